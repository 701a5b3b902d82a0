"""The eight expressions that a model may answer, in FERPlus order; the columns of a dataset are named after them."""

from __future__ import annotations

EXPRESSIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
