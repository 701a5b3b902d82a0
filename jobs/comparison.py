"""Two models on the same faces, in numbers. Every difference is B minus A.

Intervals resample whole sources (`ran_model.source_bootstrap`), for the faces of a video are not independent. An
archive is one source, which is the cautious side: its pictures may be frames of one video.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.face_pairs import FacePairs
from jobs.sql import quoted
from pipeline import schema
from ran_model.source_bootstrap import CONFIDENCE, mean_intervals

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over faces, and its 95% interval over resampled sources: None where one source is all there is."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A column's means, and the mean of B − A. comparable: false for entropy of models with different classes, and for
    attention, whose shares are over each model's own regions, of models with different regions."""

    column: str
    mean_a: float
    mean_b: float
    shift: Estimate
    comparable: bool


@dataclass(frozen=True, kw_only=True)
class SourceAgreement:
    """A source. faces: those that both models have. same: those of them with the same expression, as `agreement`."""

    source_id: str
    source_uri: str
    faces: int
    same: int
    agreement: float
    total_variation: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """faces: those that both models have, the only ones that anything but `faces_only_*` counts.

    agreement: share of faces with the same expression; total_variation: mean of ½ Σ |p_b − p_a|; None without faces.
    expressions, flips: counts, rows what A says, columns what B says. shifts: of every column that both have.
    classes_only_*, regions_only_*: what one of the models lacks. by_source: the sources with most changed faces.
    agreement_quantiles: of the agreement within each source: least, quarter, median, three quarters, most.
    """

    model_a: str
    model_b: str
    faces: int
    faces_only_a: int
    faces_only_b: int
    sources: int
    confidence: float
    agreement: Estimate | None
    total_variation: Estimate | None
    expressions: tuple[str, ...]
    flips: list[list[int]]
    shifts: list[Shift]
    classes_only_a: tuple[str, ...]
    classes_only_b: tuple[str, ...]
    regions_only_a: tuple[str, ...]
    regions_only_b: tuple[str, ...]
    by_source: list[SourceAgreement]
    agreement_quantiles: list[float] | None

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        return asdict(self)


def compare(pairs: FacePairs, *, sources: int = 20) -> Comparison:
    """Everything that counts all faces. sources: how many are listed."""
    query, a, b = pairs.dataset.query, pairs.a, pairs.b
    sums = ", ".join(f"sum({quoted(f'{c}_{m}')}) AS {quoted(f'{c}_{m}')}" for c in pairs.shared for m in "ab")
    # The one join over all faces; everything below reads this: a row per source and pair of expressions.
    pairs.dataset.execute(
        "CREATE TEMP TABLE compared AS SELECT source_id, any_value(source_uri) AS source_uri, expression_a, "
        f"expression_b, count(*) AS n, sum(total_variation) AS total_variation, {sums} "
        "FROM pairs GROUP BY source_id, expression_a, expression_b"
    )
    total = query(
        "SELECT coalesce(sum(n), 0)::BIGINT AS faces, count(DISTINCT source_id) AS sources, "
        "(SELECT count(*) FROM faces_a) AS a, (SELECT count(*) FROM faces_b) AS b FROM compared"
    )[0]
    means = _means(pairs, total["sources"]) if total["faces"] else {}
    counts = {
        (row["expression_a"], row["expression_b"]): row["faces"]
        for row in query("SELECT expression_a, expression_b, sum(n)::BIGINT AS faces FROM compared GROUP BY ALL")
    }
    expressions = tuple(name for name in schema.EXPRESSIONS if name in a.classes or name in b.classes)
    return Comparison(
        model_a=a.model_id,
        model_b=b.model_id,
        faces=total["faces"],
        faces_only_a=total["a"] - total["faces"],
        faces_only_b=total["b"] - total["faces"],
        sources=total["sources"],
        confidence=CONFIDENCE,
        agreement=means.get("same"),
        total_variation=means.get("total_variation"),
        expressions=expressions,
        flips=[[counts.get((row, column), 0) for column in expressions] for row in expressions],
        shifts=[
            Shift(
                column=name,
                mean_a=means[f"{name}_a"].value,
                mean_b=means[f"{name}_b"].value,
                shift=means[f"{name}_shift"],
                comparable=name not in pairs.incomparable,
            )
            for name in pairs.shared
            if means
        ],
        classes_only_a=_lacking(a.classes, b.classes),
        classes_only_b=_lacking(b.classes, a.classes),
        regions_only_a=_lacking(a.regions, b.regions),
        regions_only_b=_lacking(b.regions, a.regions),
        by_source=_by_source(pairs, sources),
        agreement_quantiles=query(
            f"SELECT quantile_cont(agreement, {list(QUANTILES)}) AS quantiles FROM (SELECT "
            "coalesce(sum(n) FILTER (expression_a = expression_b), 0) / sum(n) AS agreement "
            "FROM compared GROUP BY source_id)"
        )[0]["quantiles"],
    )


def estimates(sums_GC: NDArray[np.float64], faces_G: NDArray[np.int64]) -> list[Estimate]:
    """Each column's mean over all faces, with its interval; sums and numbers of faces per group of sources."""
    values = sums_GC.sum(axis=0) / faces_G.sum()
    low, high = mean_intervals(sums_GC, faces_G)
    return [
        Estimate(value=float(v), low=_or_none(lo), high=_or_none(hi))
        for v, lo, hi in zip(values, low, high, strict=True)
    ]


def _means(pairs: FacePairs, sources: int) -> dict[str, Estimate]:
    """`same`, `total_variation`, and `<column>_a`, `_b` and `_shift` of every shared column."""
    sums = {"same": "coalesce(sum(n) FILTER (expression_a = expression_b), 0)::DOUBLE"}
    sums["total_variation"] = "sum(total_variation)"
    for column in pairs.shared:
        a, b = quoted(f"{column}_a"), quoted(f"{column}_b")
        sums |= {f"{column}_a": f"sum({a})", f"{column}_b": f"sum({b})", f"{column}_shift": f"sum({b} - {a})"}
    key = pairs.group_key(sources)
    groups = pairs.dataset.connection.execute(
        f"SELECT sum(n)::BIGINT, {', '.join(sums.values())} FROM compared GROUP BY {key} ORDER BY {key}"
    ).fetchall()
    sums_GC = np.array([row[1:] for row in groups], np.float64)
    return dict(zip(sums, estimates(sums_GC, np.array([row[0] for row in groups], np.int64)), strict=True))


def _by_source(pairs: FacePairs, most: int) -> list[SourceAgreement]:
    rows = pairs.dataset.query(
        "SELECT source_id, any_value(source_uri) AS source_uri, sum(n)::BIGINT AS faces, "
        "coalesce(sum(n) FILTER (expression_a = expression_b), 0)::BIGINT AS same, same / faces AS agreement, "
        "sum(total_variation) / sum(n) AS total_variation "
        f"FROM compared GROUP BY source_id ORDER BY faces - same DESC, faces DESC, source_id LIMIT {most}"
    )
    return [SourceAgreement(**row) for row in rows]


def _lacking(names: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
