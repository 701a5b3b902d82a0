"""The table that Py-Feat reads, as SQL over the views: a row per face, and one for each frame without a face.

Columns, units and signs are those that the detectors of Py-Feat 2 write and its `read_feat` takes back, in their order;
docs/py-feat.md says what each holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from jobs.damage import as_full_disk
from jobs.dataset import OpenedDataset
from jobs.source_names import exactly_named
from jobs.sql import literal, quoted
from pipeline.errors import UsageError
from pipeline.ledger.dataset import Dataset

#: Py-Feat's emotions, in its order.
EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")

_BOX = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore")
_ANGLES = ("Pitch", "Roll", "Yaw")
_UNKNOWN = "NULL::FLOAT"

#: Each column of the file, in order, and the SQL for it.
COLUMNS: dict[str, str] = {
    **{name: name for name in _BOX},
    **{f"{axis}_{point}": _UNKNOWN for axis in "xy" for point in range(68)},
    # radians, and all three turn the other way: up, to the subject's right, towards the subject's right shoulder
    **{name: f"(-radians({name}))::FLOAT" for name in _ANGLES},
    **dict.fromkeys("XYZ", _UNKNOWN),
    **{name: f"prob_{name}" for name in EMOTIONS},
    "FrameHeight": "frame_height",
    "FrameWidth": "frame_width",
    "input": "input",
    "frame": "number",
    "approx_time": "printf('%02d:%02d', floor(seconds / 60)::BIGINT, floor(seconds)::BIGINT % 60)",
    # ours
    "timestamp": "seconds",
    "face_id": "face_id",
    "contempt": "prob_contempt",
}

_SELECTED = (
    "frame", '"timestamp" AS seconds', "face", "face_id", *_BOX, *_ANGLES,
    *(f"prob_{name}" for name in (*EMOTIONS, "contempt")), "frame_height", "frame_width",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FexCounts:
    """What was written. frames_left_out: those that could not be read. sources: with a frame in the file."""

    rows: int
    faces: int
    frames_without_a_face: int
    frames_left_out: int
    sources: int


def write_fex(dataset: OpenedDataset, path: Path, model_id: str, source: str | None = None) -> FexCounts:
    """Writes the rows of a model to a CSV file, by input, frame and face; memory as `OpenedDataset.bounded` allows.

    source: the path or uri of a source; if it is none's, a shell pattern of uris, or of their ends. Raises UsageError
    if no row is left, and OSError if a disk is full.
    """
    root = Dataset.open(dataset.store).root
    rows = _Rows(model_id=model_id, source=source, named=_named(dataset, model_id, source, root), root=root)
    counted = dataset.connection.execute(
        f"WITH seen AS ({rows.seen}) SELECT count(DISTINCT source_id) FILTER (face_count >= 0), "
        f"count(*) FILTER (face_count = 0), count(*) FILTER (face_count IS NULL) FROM seen"
    ).fetchone()
    assert counted is not None
    sources, empty, left_out = counted
    if not sources:
        raise UsageError(
            f"no source that could be read fits --source {source}"
            if source is not None
            else f"model {model_id} has seen no frame: there is nothing to export"
        )
    copy = f"COPY ({rows.sql}) TO {literal(str(path))} (FORMAT csv, HEADER)"
    try:
        written = dataset.connection.execute(copy).fetchone()
    except duckdb.IOException as error:
        raise as_full_disk(error) or error from None
    assert written is not None
    return FexCounts(
        rows=written[0],
        faces=written[0] - empty,
        frames_without_a_face=empty,
        frames_left_out=left_out,
        sources=sources,
    )


def _named(dataset: OpenedDataset, model_id: str, source: str | None, root: str | None) -> tuple[str, ...]:
    """The uris of the sources whose whole name `source` is; none if it is a pattern or an end."""
    if source is None:
        return ()
    found = dataset.query("SELECT DISTINCT source_uri FROM all_segments WHERE model_id = ?", [model_id])
    return tuple(exactly_named([row["source_uri"] for row in found], source, root))


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """SQL for the rows of a model. named: the uris that `source` is, if it is no pattern. root: what uris of sources
    are relative to."""

    model_id: str
    source: str | None
    named: tuple[str, ...]
    root: str | None

    @property
    def seen(self) -> str:
        """Every sampled frame, with the faces found in it; null where it could not be read."""
        return (
            f"SELECT source_id, kind, {self._input} AS input, member, frame, seconds, face_count FROM ("
            "SELECT source_id, source_uri, kind, unnest(members) AS member, unnest(frames) AS frame, "
            "unnest(timestamps) AS seconds, unnest(face_counts) AS face_count FROM all_segments "
            f"WHERE {self._where})"
        )

    @property
    def sql(self) -> str:
        """The file's rows. Pictures are numbered through, as Py-Feat does. Columns without values are added after the
        sort, which would carry them."""
        columns = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in COLUMNS.items())
        return (
            f"WITH seen AS ({self.seen}), "
            "pictures AS (SELECT source_id, member, row_number() OVER (ORDER BY input, source_id) - 1 AS place FROM "
            "(SELECT DISTINCT source_id, member, input FROM seen WHERE kind <> 'video')), "
            f"found AS (SELECT source_id, {self._input} AS input, member, {', '.join(_SELECTED)} FROM all_faces "
            f"WHERE {self._where} UNION ALL BY NAME "
            "SELECT source_id, input, member, frame, seconds, 0::FLOAT AS FaceScore FROM seen WHERE face_count = 0) "
            f"SELECT {columns} FROM (SELECT found.*, coalesce(place, frame) AS number FROM found LEFT JOIN pictures "
            "ON found.source_id = pictures.source_id AND found.member IS NOT DISTINCT FROM pictures.member "
            "ORDER BY input, number, face, face_id)"
        )

    @property
    def _where(self) -> str:
        of_model = f"model_id = {literal(self.model_id)}"
        if self.source is None:
            return of_model
        if self.named:
            return f"{of_model} AND source_uri IN ({', '.join(map(literal, self.named))})"
        end = literal(f"*/{self.source}")
        return f"{of_model} AND (source_uri GLOB {literal(self.source)} OR source_uri GLOB {end})"

    @property
    def _input(self) -> str:
        """What to open: the source, or a member of it as `overlay` takes it."""
        uri = "source_uri" if self.root is None else f"{literal(self.root.rstrip('/') + '/')} || source_uri"
        return f"{uri} || coalesce('/' || member, '')"
