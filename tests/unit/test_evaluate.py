"""Scores against counting by hand."""

from __future__ import annotations

import pytest
import torch

from ran_model.evaluate import score


def test_scores_by_hand() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 3])
    answers = torch.tensor([0, 0, 1, 1, 0, 2])
    scores = score(labels, answers, 4)
    assert scores.faces == 6
    assert scores.accuracy == pytest.approx(3 / 6)
    assert scores.recall == [pytest.approx(2 / 3), 0.5, None, 0.0]
    assert scores.mean_recall == pytest.approx((2 / 3 + 0.5 + 0) / 3)
    assert scores.confusion == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
