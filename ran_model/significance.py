"""Whether one model is better than another on the same faces, or only luckier.

B faces, the same and in the same order for both models. Differences are accuracy of `a` minus accuracy of `b`. Faces of
one video are not independent: given in groups, whole groups are resampled (`ran_model.source_bootstrap`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ran_model.source_bootstrap import mean_intervals


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """n: faces. only_a, only_b: faces that this model alone has right. p_value: two-sided, exact, and too small where
    many faces are of one video."""

    n: int
    only_a: int
    only_b: int
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """Numbers and strings only."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of accuracies, in shares of 1, and the interval from `low` to `high` of this confidence.

    n: faces. by_seed: the difference of each pair of models; `difference` is their mean. samples: bootstrap samples.
    groups: how many groups of faces were resampled; None where single faces were. low, high: None with one group.
    seeds_half_width: how far to either side of `difference` its interval over seeds reaches, by `half_width`.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    confidence: float
    samples: int
    by_seed: list[float]
    groups: int | None = None
    seeds_half_width: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        return asdict(self)


def mcnemar(right_a_B: Tensor, right_b_B: Tensor) -> McNemar:
    """Were both models equally good, how likely are their disagreements to be at least as one-sided as these?

    right_a_B, right_b_B: bool, whether the answer is right. Exact binomial test on the faces that only one of the
    models has right. Source: McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 1947; the exact form is in Dietterich, "Approximate statistical tests", Neural
    Computation 1998, section 3.1. Raises ValueError for different numbers of faces, or none.
    """
    _check([(right_a_B, right_b_B)])
    only_a, only_b = int((right_a_B & ~right_b_B).sum()), int((right_b_B & ~right_a_B).sum())
    return McNemar(n=len(right_a_B), only_a=only_a, only_b=only_b, p_value=_binomial_p(only_a, only_b))


def paired_bootstrap(
    right_a_B: Tensor,
    right_b_B: Tensor,
    groups_B: Tensor | None = None,
    *,
    samples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """The difference of two models, with a percentile interval over resampled faces; see `mean_difference`."""
    return mean_difference([(right_a_B, right_b_B)], groups_B, samples=samples, confidence=confidence, seed=seed)


def mean_difference(
    pairs: Sequence[tuple[Tensor, Tensor]],
    groups_B: Tensor | None = None,
    *,
    samples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """The mean difference over pairs of models, one pair per training seed, with a percentile interval.

    pairs: `right_a_B`, `right_b_B`, bool. Faces are resampled with replacement, the same for every model. So the
    interval says what other faces would give, with these very models; `by_seed` and `seeds_half_width` say how far
    other seeds would differ, on these very faces. groups_B: int64, which faces belong together; then whole groups are
    resampled instead, and one group has no interval. Source: Efron and Tibshirani, "An Introduction to the Bootstrap",
    1993, chapter 13; of groups, that of `mean_intervals`. Raises ValueError as `mcnemar` does, and for groups of
    another number of faces.
    """
    _check(pairs)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: it must be between 0 and 1")
    gains_SB = torch.stack([a.long() - b.long() for a, b in pairs]).cpu().numpy()
    seeds, faces = gains_SB.shape
    low: float | None
    high: float | None
    groups: int | None = None
    if groups_B is None:
        # Only how often each gain is drawn matters: drawing the counts is drawing the faces, without 10,000 x B indices
        values, counts = np.unique(gains_SB.sum(axis=0), return_counts=True)
        drawn = np.random.default_rng(seed).multinomial(faces, counts / faces, size=samples)
        tail = (1 - confidence) / 2
        low, high = np.quantile(drawn @ values / (faces * seeds), (tail, 1 - tail)).tolist()
    else:
        if len(groups_B) != faces:
            raise ValueError(f"groups of {len(groups_B)} faces, answers for {faces}: every face must be in one group")
        _, group_B, faces_G = np.unique(groups_B.cpu().numpy(), return_inverse=True, return_counts=True)
        sums_G1 = np.bincount(group_B, weights=gains_SB.mean(axis=0)).astype(np.float64)[:, None]
        ends = mean_intervals(sums_G1, faces_G, samples=samples, confidence=confidence, seed=seed)[:, 0].tolist()
        groups = len(faces_G)
        low, high = (None, None) if groups == 1 else ends
    by_seed = gains_SB.mean(axis=1).tolist()
    return Difference(
        n=faces,
        difference=float(gains_SB.mean()),
        low=low,
        high=high,
        confidence=confidence,
        samples=samples,
        by_seed=by_seed,
        groups=groups,
        seeds_half_width=half_width(by_seed, confidence),
    )


def half_width(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """t·sd/√n: how far an interval for the mean of independent values reaches to either side, for values that are about
    normally distributed; None with less than two. Source: Student, "The probable error of a mean", Biometrika 1908."""
    if len(values) < 2:
        return None
    return _t_quantile(confidence, len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _t_quantile(share: float, freedom: int) -> float:
    """What Student's t stays within, to either side, in this share of cases. With t = √f·tan θ its density over θ is
    cos^(f−1) θ, which is summed up here by trapezoids."""
    theta = np.linspace(0, np.pi / 2, 100_001)
    density = np.cos(theta) ** (freedom - 1)
    summed = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * float(np.tan(np.interp(share * summed[-1], summed, theta)))


def _binomial_p(b: int, c: int) -> float:
    """Twice the tail of a fair coin's `b + c` throws, in whole numbers, which neither overflow nor round."""
    throws, tail, term = b + c, 0, 1
    for k in range(min(b, c) + 1):
        tail += term
        term = term * (throws - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << throws))


def _check(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    lengths = {len(right) for pair in pairs for right in pair}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"answers for {sorted(lengths)} faces: every model must answer the same faces, at least one")
    if any(right.dtype != torch.bool for pair in pairs for right in pair):
        raise ValueError("answers must be bool: whether each is right")
