"""FERPlus' ten vote counts: neutral to contempt in EXPRESSIONS order, then unknown and not-a-face.

The protocol is that of Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced
Label Distribution" (2016) and its published code: a single vote is an outlier.
"""

from __future__ import annotations

from collections.abc import Sequence

from ran_model.labels import EXPRESSIONS

VOTE_COLUMNS = (*EXPRESSIONS, "unknown", "NF")


def vote_distribution(votes: Sequence[int]) -> tuple[float, ...] | None:
    """Shares of the eight expressions without outliers, unknown and not-a-face; None where no vote is left."""
    kept = _without_outliers(votes)[: len(EXPRESSIONS)]
    total = sum(kept)
    return tuple(count / total for count in kept) if total else None


def majority(votes: Sequence[int]) -> int | None:
    """Index among the ten of what got more than half of the votes without outliers; None where nothing did.

    8 and 9 are unknown and not-a-face.
    """
    kept = _without_outliers(votes)
    most = max(kept)
    return kept.index(most) if 2 * most > sum(kept) else None


def _without_outliers(votes: Sequence[int]) -> list[int]:
    if len(votes) != len(VOTE_COLUMNS):
        raise ValueError(f"{len(votes)} vote counts: there must be {len(VOTE_COLUMNS)}")
    return [count if count > 1 else 0 for count in votes]
