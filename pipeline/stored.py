"""What a dataset already knows of its segments, for another model: rows, faces with their landmarks, kept crops.

    plan rows ──> attach ──> the same rows with a column `stored`

Memory: the rows of one pass and of the files that are read for it at once (AHEAD_BYTES of them), and 14 bytes per
segment for each table that it is in. Time: the first pass reads all of the model's files, each later one those that it
needs; many small files at once, since a store answers slowly. Of crops only three small columns are fetched, never the
pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.extraction import FACE_COLUMNS
from pipeline.failures import count_answers
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.id_set import IdNumbers
from pipeline.ledger.live import read_in_turn, read_live_columns, sound_rows
from pipeline.ledger.state import SEGMENT_DIGITS, LogState
from pipeline.schema import FACES, SEGMENTS
from pipeline.segments import PLAN
from pipeline.storage.store import Store
from pipeline.terminal import counted
from ran_model.config import ModelConfig

AHEAD_BYTES = 256 << 20  # of files; in memory, rows take a few times that

_SEGMENT_COLUMNS = (
    "frames", "timestamps", "members", "face_counts", "frame_errors", "status", "error_stage", "error_code",
    "error_message", "decoder",
)  # fmt: skip
_FACE_COLUMNS = ("face_id", "frame", *(name for name in FACE_COLUMNS if name != "frame_position"))

#: A segment's row; null where it has none because an earlier window has its error (`covered`). faces: in their order.
#: crops: the file that has their aligned pixels as the model wants them, if there is one.
STORED = pa.struct(
    [
        *(pa.field(name, SEGMENTS.field(name).type) for name in _SEGMENT_COLUMNS),
        pa.field("faces", pa.list_(pa.struct([pa.field(name, FACES.field(name).type) for name in _FACE_COLUMNS]))),
        pa.field("crops", pa.string()),
    ]
)


def best_base(store: Store, state: LogState, model_id: str) -> str | None:
    """The other model that has a row without an error for the most segments, the newest among equals; None if there is
    no other. Error rows would be taken over as they are."""
    others = [model for model in reversed(state.models) if model != model_id and state.count(model)]
    if len(others) < 2:
        return others[0] if others else None
    return max(others, key=lambda model: count_answers(store, state, model))


class StoredSegments:
    """The rows of one model of a dataset, looked up by segment. The first look reads every file and keeps which of them
    has each segment, so that the next ones read only the files that they need."""

    def __init__(self, store: Store, state: LogState, base_model_id: str, model: ModelConfig) -> None:
        self._store = store
        self._state = state
        self._base = base_model_id
        self.left_out = 0  # segments with faces that no source is known of
        self._read_before: dict[str, tuple[list[CommittedFile], IdNumbers]] = {}  # by table
        crops = state.files("crops")
        self._crops_files = pa.array([file.path for file in crops], pa.string())
        self._crops = IdNumbers(SEGMENT_DIGITS, read_in_turn(crops, functools.partial(self._fitting_crops, model)))

    def plan(self, planned: pa.Table, model_id: str, again: Collection[str] = ()) -> pa.Table:
        """Plan rows of what the base model has and `model_id` lacks, or is to have `again`; those with crops together
        file by file.

        planned: plan rows of all sources. A committed segment that is not among them (the error row of a changed
        source) gets a plan row of its own, unless it has faces (`left_out`): without its source they can't be read.
        """
        state, self.left_out = self._state, 0
        rows = planned.filter(pa.array(state.committed(self._base).contains(planned["segment_id"])))
        if rows.num_rows < state.count(self._base):
            rows = pa.concat_tables([rows, self._without_plan(rows["segment_id"])])
        wanted = state.filter_uncommitted(model_id, rows["segment_id"])
        if again:
            ids = pa.array(sorted(again), pa.string())
            wanted = pc.or_(wanted, pc.is_in(rows["segment_id"].combine_chunks(), ids))
        rows = rows.filter(wanted)
        numbers = self._crops.each(rows["segment_id"])
        numbers[numbers < 0] = len(self._crops_files)  # those without come last
        return rows.take(pa.array(np.argsort(numbers, kind="stable")))

    def notes(self, model_id: str) -> list[str]:
        """Of the last plan: what it does not have of all that the dataset knows, a line each."""
        notes, state = [], self._state
        if self.left_out:
            notes.append(
                f"{counted(self.left_out, 'segment')} with faces left out, of sources that the dataset has no row of: "
                "repeat the `run` that made them, then this"
            )
        for other in state.models:
            more = state.committed(other).count_beyond(state.committed(self._base), state.committed(model_id))
            if more:
                notes.append(
                    f"{counted(more, 'segment')} more of model {other}, which base {self._base} lacks: the same "
                    f"command with --base {other} takes them"
                )
        return notes

    def to_decode(self, planned: pa.Table) -> pa.Table:
        """Those of the plan rows whose faces are not among the crops, so that their sources are opened. The others have
        crops, no face, or an error of the probe."""
        no_crops = pa.array(self._crops.each(planned["segment_id"]) < 0)
        rows = planned.filter(pc.and_(no_crops, pc.is_null(planned["error_code"])))
        if not rows.num_rows:
            return rows

        def with_faces(file: CommittedFile) -> pa.Array:
            found = read_live_columns(self._store, file, ("segment_id", "faces_kept"))
            return found.filter(pc.greater(found["faces_kept"], 0))["segment_id"].combine_chunks()

        ids = IdNumbers(SEGMENT_DIGITS, read_in_turn(self._state.files("segments", self._base), with_faces))
        return rows.filter(pa.array(ids.each(rows["segment_id"]) >= 0))

    def attach(self, segments: pa.Table) -> pa.Table:
        """The plan rows with a column `stored` (STORED)."""
        ids = segments["segment_id"].combine_chunks()
        rows = self._read("segments", ("segment_id", *_SEGMENT_COLUMNS), ids)
        faces = self._read("faces", ("segment_id", *_FACE_COLUMNS), ids)
        at = pc.index_in(ids, rows["segment_id"].combine_chunks())
        columns: list[pa.Array] = [rows[name].combine_chunks().take(at) for name in _SEGMENT_COLUMNS]
        columns.append(_grouped(faces, ids))
        columns.append(self._crops_of(ids))
        stored = pa.StructArray.from_arrays(columns, fields=list(STORED), mask=pc.is_null(at))
        return segments.append_column("stored", stored)

    def _read(self, table: str, columns: Sequence[str], ids: pa.Array) -> pa.Table:
        """The base model's rows of these segments."""
        declared = {"segments": SEGMENTS, "faces": FACES}[table]
        parts = [pa.schema([declared.field(name) for name in columns]).empty_table()]
        if table in self._read_before:
            files, numbers = self._read_before[table]
            files = [files[number] for number in numbers.of(ids)]
        else:
            files = self._state.files(table, self._base)
        has = IdNumbers(SEGMENT_DIGITS)
        unsifted: list[pa.Table] = []
        read = functools.partial(sound_rows, self._store, columns=columns)
        for number, rows in enumerate(read_in_turn(files, read, ahead_bytes=AHEAD_BYTES), 1):
            if table not in self._read_before:
                has.add(pc.unique(rows["segment_id"]))
            unsifted.append(rows.cast(parts[0].schema))
            # each look for so many ids has a table of them to build, so it takes as many rows at once
            if sum(map(len, unsifted)) >= len(ids) or number == len(files):
                together = pa.concat_tables(unsifted)
                parts.append(together.filter(pc.is_in(together["segment_id"], ids)))
                unsifted = []
        if table not in self._read_before:
            self._read_before[table] = files, has
        return pa.concat_tables(parts)

    def _fitting_crops(self, model: ModelConfig, file: CommittedFile) -> pa.Array:
        """Segments of the file's crops that were aligned as the model wants them."""
        template = np.asarray(model.template, np.float32).ravel()
        rows = read_live_columns(self._store, file, ("segment_id", "template", "size"))
        templates = np.asarray(rows["template"].combine_chunks().flatten(), np.float32).reshape(-1, 10)
        fits = (templates == template).all(axis=1) & (np.asarray(rows["size"]) == model.aligned_size)
        return pc.unique(rows.filter(pa.array(fits))["segment_id"])

    def _crops_of(self, ids: pa.Array) -> pa.Array:
        """The path of each segment's crops; null where there are none that fit."""
        numbers = self._crops.each(ids)
        return self._crops_files.take(pa.array(numbers, mask=numbers < 0))

    def _without_plan(self, planned: pa.ChunkedArray) -> pa.Table:
        missing = pa.array(self._state.committed(self._base).less(planned), pa.string())
        names = ("segment_id", "source_id", "source_uri", "faces_kept")
        found = self._read("segments", names, missing)
        faceless = found.filter(pc.equal(found["faces_kept"], 0))
        self.left_out = found.num_rows - faceless.num_rows
        rows = faceless.drop_columns(["faces_kept"]).to_pylist()
        plain = {"location": "", "fingerprint": "", "kind": "unknown", "size_bytes": 0, "window": 0, "is_last": True}
        plain |= {"follows": False, "attempts": 0}
        return pa.Table.from_pylist([{**row, **plain} for row in rows], schema=PLAN)


def _grouped(faces: pa.Table, ids: pa.Array) -> pa.Array:
    """The faces of each segment as a list, in the order in which they were written."""
    of = np.asarray(pc.index_in(faces["segment_id"].combine_chunks(), ids), np.int64)
    order = np.argsort(of, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=len(ids)))]).astype(np.int32)
    taken = faces.take(pa.array(order))
    item = STORED.field("faces").type.value_type
    struct = pa.StructArray.from_arrays([taken[name].combine_chunks() for name in _FACE_COLUMNS], fields=list(item))
    return pa.ListArray.from_arrays(pa.array(offsets), struct)
