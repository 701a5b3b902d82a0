"""Scores against values by hand, and against loops over faces."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from ran_model.metrics import ClassScores, calibration_error, score

CLASSES = ("neutral", "happiness", "surprise", "sadness")


def _random(faces: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Labels and probabilities that are right more often than not."""
    generator = torch.Generator().manual_seed(seed)
    labels_B = torch.randint(classes, (faces,), generator=generator)
    logits_BK = torch.randn(faces, classes, generator=generator) + 1.5 * torch.eye(classes)[labels_B]
    return labels_B, logits_BK.softmax(dim=1)


def test_scores_by_hand() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 3])
    probabilities = torch.tensor(
        [
            [0.75, 0.25, 0.0, 0.0],
            [0.5, 0.25, 0.25, 0.0],
            [0.25, 0.75, 0.0, 0.0],
            [0.0, 1.0, 0.0, 0.0],
            [0.75, 0.25, 0.0, 0.0],
            [0.0, 0.0, 0.5, 0.5 - 2**-8],
        ]
    )
    scores = score(labels, probabilities, CLASSES)
    assert scores.n == 6
    assert scores.confusion == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert scores.accuracy == pytest.approx(3 / 6)
    assert scores.macro_recall == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert scores.per_class == {
        "neutral": ClassScores(n=3, recall=2 / 3, precision=2 / 3, f1=pytest.approx(2 / 3)),
        "happiness": ClassScores(n=2, recall=1 / 2, precision=1 / 2, f1=1 / 2),
        "surprise": ClassScores(n=0, recall=None, precision=0.0, f1=0.0),
        "sadness": ClassScores(n=1, recall=0.0, precision=None, f1=0.0),
    }
    # confidence .5: one right of two; .75: one right of three; 1: right
    assert scores.ece == pytest.approx((2 * abs(0.5 - 1 / 2) + 3 * abs(0.75 - 1 / 3) + 0) / 6)
    of_labels = (0.75, 0.5, 0.25, 1.0, 0.25, 0.5 - 2**-8)
    assert scores.nll == pytest.approx(-sum(map(math.log, of_labels)) / 6, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_agree_with_loops_over_faces(seed: int) -> None:
    labels_B, probabilities_BK = _random(501, 4, seed)
    scores = score(labels_B, probabilities_BK, CLASSES)
    faces = [(label, row) for label, row in zip(labels_B.tolist(), probabilities_BK.tolist(), strict=True)]
    answers = [(label, row.index(max(row))) for label, row in faces]

    assert scores.accuracy == pytest.approx(sum(label == answer for label, answer in answers) / 501)
    for index, name in enumerate(CLASSES):
        hits = sum(label == answer == index for label, answer in answers)
        labelled = sum(label == index for label, _ in answers)
        answered = sum(answer == index for _, answer in answers)
        recall, precision = hits / labelled, hits / answered
        assert scores.per_class[name].n == labelled
        assert scores.per_class[name].recall == pytest.approx(recall)
        assert scores.per_class[name].precision == pytest.approx(precision)
        assert scores.per_class[name].f1 == pytest.approx(2 * precision * recall / (precision + recall))
        for other in range(4):
            assert scores.confusion[index][other] == answers.count((index, other))

    ece = 0.0
    for number in range(15):
        inside = [
            (max(row), label == row.index(max(row)))
            for label, row in faces
            if number / 15 < max(row) <= (number + 1) / 15
        ]
        if inside:
            confidence = sum(one for one, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            ece += len(inside) / 501 * abs(accuracy - confidence)
    assert scores.ece == pytest.approx(ece, abs=1e-7)
    assert scores.ece > 0.01
    assert scores.nll == pytest.approx(-sum(math.log(row[label]) for label, row in faces) / 501)


def test_calibrated_confidence_has_a_small_error_and_bold_confidence_a_large_one() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence_B = 0.5 + 0.5 * torch.rand(20_000, generator=generator)
    right_B = torch.rand(20_000, generator=generator) < confidence_B
    assert calibration_error(confidence_B, right_B) < 0.02
    assert calibration_error(torch.ones(20_000), right_B) == pytest.approx(0.25, abs=0.01)


def test_a_bin_holds_its_upper_edge_and_not_its_lower() -> None:
    right = torch.tensor([True, False])
    assert calibration_error(torch.tensor([0.5, 0.5001]), right, bins=2) == pytest.approx((0.5 + 0.5001) / 2)
    assert calibration_error(torch.tensor([0.4999, 0.5]), right, bins=2) == pytest.approx(abs(0.9999 - 1) / 2, abs=1e-6)


def test_an_impossible_label_costs_much_but_not_everything() -> None:
    scores = score(torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), CLASSES[:2])
    assert scores.nll == pytest.approx(-math.log(1e-12) / 2)


def test_json_holds_plain_types_and_survives_a_round_trip() -> None:
    scores = score(*_random(50, 3, 0), CLASSES[:3])
    answer = scores.to_json()
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert answer["per_class"]["neutral"]["n"] == scores.per_class["neutral"].n
    assert list(answer) == ["n", "accuracy", "macro_recall", "per_class", "confusion", "ece", "nll", "without_copies"]


def test_classes_that_the_model_lacks_are_named() -> None:
    _, probabilities_BK = _random(3, 2, 0)
    labels_B = torch.tensor([0, 3, 1])
    with pytest.raises(ValueError, match=r"3 \(sadness\), which the model lacks: it knows neutral, happiness"):
        score(labels_B, probabilities_BK, CLASSES)
    with pytest.raises(ValueError, match="labels hold 3, which"):
        score(labels_B, probabilities_BK, CLASSES[:2])
    with pytest.raises(ValueError, match="labels hold -1, which"):
        score(torch.tensor([0, -1, 1]), probabilities_BK, CLASSES)


def test_both_ways_around_a_class_that_the_model_lacks() -> None:
    labels_B, probabilities_BK = torch.tensor([0, 2, 1]), torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    known = labels_B < 2
    dropped = score(labels_B[known], probabilities_BK[known], CLASSES[:3])
    assert (dropped.n, dropped.accuracy, dropped.macro_recall) == (2, 1.0, 1.0)
    assert list(dropped.per_class) == ["neutral", "happiness"]
    widened = score(labels_B, torch.nn.functional.pad(probabilities_BK, (0, 1)), CLASSES[:3])
    assert (widened.n, widened.accuracy, widened.macro_recall) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert widened.per_class["surprise"] == ClassScores(n=1, recall=0.0, precision=None, f1=0.0)


def test_what_cannot_be_scored_is_refused() -> None:
    labels_B, probabilities_BK = _random(5, 3, 0)
    with pytest.raises(ValueError, match="at least one"):
        score(labels_B[:0], probabilities_BK[:0], CLASSES)
    with pytest.raises(ValueError, match="4 labels and 5 rows"):
        score(labels_B[:4], probabilities_BK, CLASSES)
    with pytest.raises(ValueError, match="only 2 classes"):
        score(labels_B, probabilities_BK, CLASSES[:2])
    one_bad_row = probabilities_BK.clone()
    one_bad_row[2] = 0
    for wrong in (probabilities_BK.log(), probabilities_BK * math.nan, one_bad_row):
        with pytest.raises(ValueError, match="do not sum to 1"):
            score(labels_B, wrong, CLASSES)
