"""What a dataset shows, in numbers: one model's rows, counted by DuckDB in a few passes and never loaded.

Everything is of one state of the log (`OpenedDataset.following`), so that numbers fit each other beside a run too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.dataset import OpenedDataset
from jobs.model_columns import ModelColumns, column_value
from jobs.sql import literal, quoted
from pipeline import schema
from pipeline.errors import ErrorCode

CONFIDENCE_BINS = 10
MOST_ERRORS = 100
UNSURE_BELOW = 0.5


@dataclass(frozen=True, kw_only=True)
class Totals:
    """frames: sampled ones, of which `frames_read` could be read and `frames_without_face` of these had no face.

    kinds: sources by what they are. videos: those of which a frame was sampled. video_s: seconds from first to last
    sampled frame, summed over them. largest_share: of the faces, in the source that has most; None without faces.
    """

    sources: int
    sources_with_errors: int
    kinds: dict[str, int]
    videos: int
    video_s: float
    frames: int
    frames_read: int
    frames_without_face: int
    faces: int
    largest_share: float | None

    @property
    def share_without_face(self) -> float | None:
        """Of the frames that could be read."""
        return self.frames_without_face / self.frames_read if self.frames_read else None


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A class of the model. faces: with this as the most probable one. mean_probability: over all faces. confidence and
    attention: means over `faces`, attention by region; None and empty where there is none."""

    name: str
    faces: int
    share: float
    mean_probability: float
    confidence: float | None
    attention: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SourceFigures:
    """A source. expression: the most frequent one, of `expression_share` of the faces. errors: segments that failed or
    are partial. Shares and means are None where there is nothing to take them of."""

    source_id: str
    source_uri: str
    kind: str
    frames: int
    faces: int
    share_without_face: float | None
    expression: str | None
    expression_share: float | None
    confidence: float | None
    errors: int


@dataclass(frozen=True, kw_only=True)
class ErrorFigures:
    """An error code, what it means, and how many segments and sources have it."""

    code: str
    meaning: str
    segments: int
    sources: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """attention: mean weight of each region over all faces. confidence_bins: faces by confidence, tenths from 0 to 1.

    by_source: the largest ones by frames. error_rows: at most MOST_ERRORS rows of `errors`.
    """

    totals: Totals
    expressions: list[Expression]
    attention: dict[str, float]
    confidence_bins: list[int]
    unsure: int
    by_source: list[SourceFigures]
    errors: list[ErrorFigures]
    error_rows: list[dict[str, Any]]


def figures(dataset: OpenedDataset, columns: ModelColumns, *, sources: int) -> Figures:
    """The views' model in numbers. sources: how many are listed."""
    probabilities = [f"prob_{name}" for name in columns.classes]
    attention = [f"attention_{name}" for name in columns.regions]
    _make_tables(dataset, [*probabilities, *attention])
    total = _totals(dataset)
    sums = ", ".join(f"sum({quoted(name)}) AS {quoted(name)}" for name in ("confidence", *probabilities, *attention))
    said = {
        row["expression"]: row
        for row in dataset.query(
            f"SELECT expression, sum(n)::BIGINT AS faces, {sums} FROM seen GROUP BY expression"  # a row per class
        )
    }
    over_all = {name: sum(row[name] for row in said.values()) for name in (*probabilities, *attention)}
    bins = {
        row["bin"]: row["faces"]
        for row in dataset.query(
            f"SELECT least(floor(confidence::DOUBLE * {CONFIDENCE_BINS})::INT, {CONFIDENCE_BINS - 1}) AS bin, "
            "count(*) AS faces FROM faces GROUP BY 1"
        )
    }
    confidence_bins = [bins.get(index, 0) for index in range(CONFIDENCE_BINS)]
    return Figures(
        totals=total,
        expressions=[_expression(name, said.get(name), total.faces, over_all, columns) for name in columns.classes],
        attention={name: over_all[f"attention_{name}"] / total.faces for name in columns.regions},
        confidence_bins=confidence_bins,
        unsure=sum(confidence_bins[: round(UNSURE_BELOW * CONFIDENCE_BINS)]),
        by_source=_by_source(dataset, sources),
        errors=_errors(dataset),
        error_rows=dataset.query(
            "SELECT source_uri, start_s, end_s, first_member, status, error_code, error_message FROM errors "
            f"ORDER BY error_code, source_uri, start_s, first_member, segment_id LIMIT {MOST_ERRORS}"
        ),
    )


def _make_tables(dataset: OpenedDataset, summed: Sequence[str]) -> None:
    """`seen`, a row per source and expression, from the one pass over all columns of all faces; `looked`, a row per
    source, from the one over all segments. A file that changed since is one source, by the content that was sampled,
    though the row that tells of its new content has another source_id."""
    sums = "".join(f", sum({column_value(name, 'faces')}::DOUBLE) AS {quoted(name)}" for name in summed)
    dataset.execute(
        "CREATE OR REPLACE TEMP TABLE seen AS SELECT source_id, expression, count(*) AS n, "
        f"sum(confidence::DOUBLE) AS confidence{sums} FROM faces GROUP BY source_id, expression"
    )
    dataset.execute(
        "CREATE OR REPLACE TEMP TABLE looked AS SELECT source_uri, arg_max(source_id, len(frames)) AS source_id, "
        "sum(len(frames))::BIGINT AS frames, sum(list_aggregate(face_counts, 'count'))::BIGINT AS readable, "
        "sum(len(list_filter(face_counts, lambda found: found = 0)))::BIGINT AS empty, "
        "count(*) FILTER (status <> 'ok') AS errors FROM segments GROUP BY source_uri"
    )
    dataset.execute(
        "CREATE OR REPLACE TEMP TABLE kinds AS SELECT source_id, coalesce(any_value(sources.kind), 'unknown') AS kind "
        "FROM looked LEFT JOIN sources USING (source_id) GROUP BY source_id"
    )


def _totals(dataset: OpenedDataset) -> Totals:
    frames = dataset.query(
        "SELECT count(*) AS sources, count(*) FILTER (errors > 0) AS sources_with_errors, "
        "coalesce(sum(frames), 0)::BIGINT AS frames, coalesce(sum(readable), 0)::BIGINT AS frames_read, "
        "coalesce(sum(empty), 0)::BIGINT AS frames_without_face FROM looked"
    )[0]
    videos = dataset.query(
        "SELECT count(last) AS videos, coalesce(sum(last - first), 0)::DOUBLE AS video_s FROM ("
        "SELECT min(list_min(timestamps)) AS first, max(list_max(timestamps)) AS last FROM segments "
        "WHERE kind = 'video' GROUP BY source_id, first_member)"
    )[0]
    faces = dataset.query(
        "SELECT coalesce(sum(n), 0)::BIGINT AS faces, max(n) / sum(n) AS largest_share "
        "FROM (SELECT sum(n) AS n FROM seen GROUP BY source_id)"
    )[0]
    kinds = dataset.query("SELECT kind, count(*) AS sources FROM kinds GROUP BY 1 ORDER BY 2 DESC, 1")
    return Totals(**frames, **videos, **faces, kinds={row["kind"]: row["sources"] for row in kinds})


def _expression(
    name: str, row: dict[str, Any] | None, faces: int, over_all: dict[str, float], columns: ModelColumns
) -> Expression:
    return Expression(
        name=name,
        faces=row["faces"] if row else 0,
        share=row["faces"] / faces if row else 0.0,
        mean_probability=over_all[f"prob_{name}"] / faces,
        confidence=row["confidence"] / row["faces"] if row else None,
        attention={region: row[f"attention_{region}"] / row["faces"] for region in columns.regions} if row else {},
    )


def _by_source(dataset: OpenedDataset, most: int) -> list[SourceFigures]:
    order = ", ".join(literal(name) for name in schema.EXPRESSIONS)  # of equally frequent ones the first
    rows = dataset.query(
        "SELECT looked.source_id, source_uri, kind, frames, coalesce(faces, 0)::BIGINT AS faces, "
        "empty / nullif(readable, 0) AS share_without_face, expression, most / faces AS expression_share, "
        f"confidence / faces AS confidence, errors FROM looked JOIN kinds USING (source_id) LEFT JOIN ("
        f"SELECT source_id, sum(n) AS faces, arg_max(expression, n * 100 - list_position([{order}], expression)) "
        "AS expression, max(n) AS most, sum(confidence) AS confidence FROM seen GROUP BY source_id) "
        f"USING (source_id) ORDER BY frames DESC, faces DESC, source_id LIMIT {most}"
    )
    return [SourceFigures(**row) for row in rows]


def _errors(dataset: OpenedDataset) -> list[ErrorFigures]:
    rows = dataset.query(
        "SELECT coalesce(error_code, 'unknown') AS code, count(*) AS segments, count(DISTINCT source_uri) AS sources "
        "FROM errors GROUP BY 1 ORDER BY sources DESC, segments DESC, code"
    )
    meanings = {str(code): code.meaning for code in ErrorCode}
    return [ErrorFigures(**row, meaning=meanings.get(row["code"], "")) for row in rows]
