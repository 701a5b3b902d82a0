"""How good a model's probabilities are: right answers over all and per class, and whether to trust its confidence.

B faces, K classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

ECE_BINS = 15  # Guo et al. 2017
LEAST_PROBABILITY = 1e-12  # so that one impossible label does not make the mean of the logarithms infinite


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """One class: n faces with that label. recall: None if n is 0. precision: None if it was never answered.

    f1: None if both.
    """

    n: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class PartScores:
    """Of some of a list's faces: how many, and the share of right answers."""

    n: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All figures are shares of 1, except nll, which is in nats.

    n: faces. macro_recall: mean over the classes that occur. confusion: counts, rows labels, columns answers.
    ece: expected calibration error. nll: mean negative logarithm of the label's probability.
    without_copies: of the faces whose very picture the training part lacks; None where these are all faces, or none.
    """

    n: int
    accuracy: float
    macro_recall: float
    per_class: dict[str, ClassScores]
    confusion: list[list[int]]
    ece: float
    nll: float
    without_copies: PartScores | None = None

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        return asdict(self)


def score(labels_B: Tensor, probabilities_BK: Tensor, classes: tuple[str, ...]) -> Scores:
    """Compares probabilities (float32, rows that sum to 1) with labels (int64). The answer is the likeliest class.

    classes: names by label index; the first K are the model's, in the order of its columns. More are allowed, for a
    list of faces with classes that the model lacks: such faces have to be dropped before, or given a column of zeros,
    which counts them as wrong. Raises ValueError that names those classes if they occur, and for no faces at all.
    """
    faces, columns = probabilities_BK.shape
    _check(labels_B, probabilities_BK, classes)
    labels_B, probabilities_BK = labels_B.cpu(), probabilities_BK.cpu()
    confidence_B, answers_B = probabilities_BK.max(dim=1)
    right_B = answers_B == labels_B
    confusion_KK = torch.bincount(labels_B * columns + answers_B, minlength=columns**2).reshape(columns, columns)
    per_class = {name: _class_scores(confusion_KK, index) for index, name in enumerate(classes[:columns])}
    recalls = [one.recall for one in per_class.values() if one.recall is not None]
    of_label_B = probabilities_BK.double().gather(1, labels_B[:, None])
    return Scores(
        n=faces,
        accuracy=int(right_B.sum()) / faces,
        macro_recall=sum(recalls) / len(recalls),
        per_class=per_class,
        confusion=confusion_KK.tolist(),
        ece=calibration_error(confidence_B, right_B),
        nll=float(-of_label_B.clamp(min=LEAST_PROBABILITY).log().mean()),
    )


def calibration_error(confidence_B: Tensor, right_B: Tensor, bins: int = ECE_BINS) -> float:
    """Expected calibration error: the gap of mean confidence and accuracy in each bin, weighted by the bin's faces.

    Bins are (m/bins, (m+1)/bins], of equal width. Source: Guo et al., "On Calibration of Modern Neural Networks", ICML
    2017, equation 3.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence_B.dtype)[1:-1]
    bin_B = torch.bucketize(confidence_B, edges)
    excess_B = confidence_B.double() - right_B.double()
    return float(torch.zeros(bins, dtype=torch.float64).index_add(0, bin_B, excess_B).abs().sum() / len(right_B))


def _class_scores(confusion_KK: Tensor, index: int) -> ClassScores:
    right = int(confusion_KK[index, index])
    labelled, answered = int(confusion_KK[index].sum()), int(confusion_KK[:, index].sum())
    return ClassScores(
        n=labelled,
        recall=right / labelled if labelled else None,
        precision=right / answered if answered else None,
        f1=2 * right / (labelled + answered) if labelled + answered else None,
    )


def _check(labels_B: Tensor, probabilities_BK: Tensor, classes: tuple[str, ...]) -> None:
    faces, columns = probabilities_BK.shape
    if not faces or len(labels_B) != faces:
        raise ValueError(f"{len(labels_B)} labels and {faces} rows of probabilities: as many are needed, at least one")
    if len(classes) < columns:
        raise ValueError(f"{columns} columns of probabilities, but only {len(classes)} classes: name every column")
    lacking = sorted(set(labels_B[(labels_B < 0) | (labels_B >= columns)].tolist()))
    if lacking:
        names = ", ".join(f"{i} ({classes[i]})" if 0 <= i < len(classes) else str(i) for i in lacking)
        raise ValueError(
            f"labels hold {names}, which the model lacks: it knows {', '.join(classes[:columns])}. "
            "Drop those faces, or give them a column of zeros to count them as wrong"
        )
    if not ((probabilities_BK.sum(dim=1) - 1).abs() < 1e-2).all():
        raise ValueError("probabilities do not sum to 1 in every row: they may be logits, or not finite")
