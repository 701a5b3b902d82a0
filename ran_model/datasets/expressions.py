"""Expressions by name and by the numbers that each data set gives them, as indices into EXPRESSIONS."""

from __future__ import annotations

from ran_model.labels import EXPRESSIONS

_SYNONYMS = {
    "neutral": ("neutrality", "calm"),
    "happiness": ("happy", "joy", "joyful", "smile"),
    "surprise": ("surprised", "surprising"),
    "sadness": ("sad",),
    "anger": ("angry",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared"),
    "contempt": ("contemptuous",),
}
_BY_NAME = {
    name: index for index, first in enumerate(EXPRESSIONS) for name in (first, *_SYNONYMS[first])
}  # lower case only


def _order(*names: str) -> tuple[int, ...]:
    return tuple(EXPRESSIONS.index(name) for name in names)


#: EXPRESSIONS index of each number in FERPlus' and the RAN authors' FERPlus lists.
FERPLUS_ORDER = _order("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
#: EXPRESSIONS index of each number in AffectNet and the RAN authors' AffectNet lists.
AFFECTNET_ORDER = _order("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
#: EXPRESSIONS index of each number in the RAN authors' RAF-DB lists; RAF-DB itself counts from 1.
RAF_DB_ORDER = _order("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")


def expression_index(name: str) -> int | None:
    """Index of an expression by name or common synonym, in any case; None for a name that is not known."""
    return _BY_NAME.get(name.strip().lower())


def allowed_names() -> str:
    """The names that `expression_index` knows, for error messages."""
    return ", ".join(f"{name} ({', '.join(_SYNONYMS[name])})" for name in EXPRESSIONS)
