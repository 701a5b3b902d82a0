"""Whether a dataset is what its log says: every file, every hash, every row accounted for exactly once.

Reads everything once. Memory: ids of all segments and faces of one model at a time, about 100 bytes a face.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import DamageError, UsageError
from pipeline.ledger.dataset import DATASET_FILE, Dataset
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.id_set import IdSet
from pipeline.ledger.live import difference, read_live
from pipeline.ledger.log import CHECKPOINT_EVERY, LOG
from pipeline.ledger.replay import Replay, replay
from pipeline.ledger.state import SEGMENT_DIGITS, LogState
from pipeline.storage.store import Store

_KEYS = {
    "segments": ["segment_id", "faces_kept", "status"],
    "faces": ["segment_id", "face_id"],
    "sources": ["source_id"],
    "crops": ["segment_id", "face_id"],
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong. kind: a stable word. path: the file, or the table and model."""

    kind: str
    path: str
    problem: str


@dataclass(kw_only=True)
class Verification:
    """What was looked at and what was found. The rest is what `pipeline.ledger.repair` needs.

    damaged: live files that are gone or not what was committed. strays: public files that are not live.
    lost: model -> segments whose rows or faces are not all there. lost_sources, lost_crops: ids without their rows.
    """

    replayed: Replay
    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    segments: int = 0
    faces: int = 0
    damaged: set[str] = field(default_factory=set)
    strays: list[str] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)
    lost_sources: list[str] = field(default_factory=list)
    lost_crops: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def found(self, kind: str, path: str, problem: str) -> None:
        """Notes a finding."""
        self.findings.append(Finding(kind=kind, path=path, problem=problem))


def public_files(store: Store) -> set[str]:
    """Parquet files where a plain glob reads a table. What else lies there, such as pictures in a folder of the same
    name, is somebody else's."""
    return {path for table in schema.TABLES for path in store.list(table) if path.endswith(".parquet")}


def verify(store: Store, *, checkpoint_every: int = CHECKPOINT_EVERY) -> Verification:
    """Looks at everything in a dataset. Raises UsageError where there is none or a newer version's, and StoreError if
    the store fails: what it does not give is not called damaged.

    While a run is at work, files that it has just committed may be named as not public yet.
    """
    _check_is_dataset(store)
    listed = public_files(store)
    result = Verification(replayed=replay(store, checkpoint_every=checkpoint_every))
    state = result.replayed.state
    try:
        Dataset.open(store)
    except DamageError as error:
        result.found("dataset_file", DATASET_FILE, str(error))
    for path, problem in sorted(result.replayed.problems.items()):
        result.found("log_checkpoint" if "checkpoint" in path else "log_entry", path, problem)

    def rows_of(table: str, model_id: str = "") -> pa.Table:
        """The key columns of the files that are whole."""
        parts = [_check_file(store, file, listed, result) for file in state.files(table, model_id)]
        empty = schema.empty(table).select(_KEYS[table])
        return pa.concat_tables([empty, *(part.cast(empty.schema) for part in parts if part is not None)])

    cropped = schema.empty("segments").select(_KEYS["segments"])  # of all models
    for model_id in dict.fromkeys([*state.models, *(file.model_id for file in state.files() if file.model_id)]):
        segments, faces = rows_of("segments", model_id), rows_of("faces", model_id)
        if model_id in state.models:
            _check_model(state, model_id, segments, faces, result)
        cropped = _counts(cropped, segments.filter(pa.array(state.crops.contains(segments["segment_id"]))))
        del segments, faces
    _check_sources(state, rows_of("sources"), result)
    _check_crops(state, rows_of("crops"), cropped, result)
    result.strays = sorted(listed - state.live.keys())
    for path in result.strays:
        known = "was removed but is still there" if path in state.removed_files else "is not in the log"
        result.found("stray_file", path, f"{known}: a plain glob reads it")
    return result


def _check_is_dataset(store: Store) -> None:
    if not store.exists(DATASET_FILE) and not store.list(LOG):
        raise UsageError(f"{store.url} holds no dataset (no {DATASET_FILE}); `run … -o {store.url}` makes one")


def _check_file(store: Store, file: CommittedFile, listed: set[str], result: Verification) -> pa.Table | None:
    """The file's key columns; None if it is gone or damaged."""
    result.files += 1
    result.bytes += file.bytes
    try:
        data = read_live(store, file)
    except DamageError:
        result.found("missing_file", file.path, f"is committed with {file.rows} rows but is gone")
        result.damaged.add(file.path)
        return None
    problem = difference(file, data)
    if problem is not None:
        result.found("damaged_file", file.path, problem)
        result.damaged.add(file.path)
        return None
    if file.path not in listed and not store.exists(file.path):
        result.found("unpublished_file", file.path, "is committed but not public yet; the next run publishes it")
    rows: pa.Table = pq.read_table(pa.BufferReader(data), columns=_KEYS[file.table])
    return rows


def _check_model(state: LogState, model_id: str, segments: pa.Table, faces: pa.Table, result: Verification) -> None:
    result.segments += segments.num_rows
    result.faces += faces.num_rows
    where = f"segments/{model_id}"
    doubled = _doubled(segments["segment_id"])
    if doubled:
        result.found("doubled_rows", where, f"{len(doubled)} segments are there twice, first {doubled[0]}")
    expected = IdSet(SEGMENT_DIGITS)
    expected.add(state.committed(model_id))
    expected.remove(state.covered(model_id))
    there = IdSet(SEGMENT_DIGITS)
    there.add(segments["segment_id"].to_pylist())
    missing, foreign = _minus(expected, there), _minus(there, expected)
    if missing:
        result.found("missing_rows", where, f"{len(missing)} committed segments have no row, first {missing[0]}")
    if foreign:
        result.found("foreign_rows", where, f"{len(foreign)} segments are not committed, first {foreign[0]}")
    short = _faces_short(segments, faces)
    if short:
        problem = f"{len(short)} segments have more or fewer faces than they say, first {short[0]}"
        result.found("missing_rows", f"faces/{model_id}", problem)
    repeated = _doubled(faces["face_id"])
    if repeated:
        result.found("doubled_rows", f"faces/{model_id}", f"{len(repeated)} faces are there twice, first {repeated[0]}")
    lost = sorted({*missing, *foreign, *doubled, *short, *(face_segment(faces, repeated) if repeated else ())})
    if lost:
        result.lost[model_id] = lost


def face_segment(faces: pa.Table, face_ids: list[str]) -> list[str]:
    """The segments that have some of the faces."""
    chosen = faces.filter(pc.is_in(faces["face_id"], pa.array(face_ids, pa.string())))
    segment_ids: list[str] = pc.unique(chosen["segment_id"]).to_pylist()
    return segment_ids


def _faces_short(segments: pa.Table, faces: pa.Table) -> list[str]:
    """Segments whose faces are not as many as faces_kept, and segments that have faces but no row."""
    counted = faces.group_by("segment_id").aggregate([("face_id", "count")])
    both = segments.join(counted, "segment_id", join_type="full outer")
    kept, there = pc.fill_null(both["faces_kept"], 0), pc.fill_null(both["face_id_count"], 0)
    wrong: list[str] = both.filter(pc.not_equal(pc.cast(kept, pa.int64()), there))["segment_id"].to_pylist()
    return sorted(wrong)


def _check_sources(state: LogState, sources: pa.Table, result: Verification) -> None:
    ids = sources["source_id"]
    there = set(ids.to_pylist())
    result.lost_sources = sorted(set(state.sources) - there)
    if result.lost_sources:
        problem = f"{len(result.lost_sources)} committed sources have no row, first {result.lost_sources[0]}"
        result.found("missing_rows", "sources", problem)
    doubled = _doubled(ids)
    if doubled:
        result.found("doubled_rows", "sources", f"{len(doubled)} sources are there twice, first {doubled[0]}")
        result.lost_sources = sorted({*result.lost_sources, *doubled})


def _counts(*parts: pa.Table) -> pa.Table:
    """Rows of `segments` with how many faces models have of a segment, each number once. None counts only where a
    model found that there is none: an error says nothing of a segment of which others have faces."""
    rows = pa.concat_tables(parts)
    says = pc.or_(pc.equal(rows["status"], "ok"), pc.greater(rows["faces_kept"], 0))
    is_theirs = pc.is_in(rows["segment_id"], rows.filter(says)["segment_id"].combine_chunks())
    telling = rows.filter(pc.or_(says, pc.invert(is_theirs)))
    counts = telling.group_by(["segment_id", "faces_kept"]).aggregate([("status", "max")])
    return counts.rename_columns(rows.column_names).cast(rows.schema)


def _check_crops(state: LogState, crops: pa.Table, segments: pa.Table, result: Verification) -> None:
    """The faces of a segment whose crops are kept have one each: all those of one model, since another may have found
    more, or fewer, when it was tried again. segments: those, as `_counts` gives them."""
    if not len(state.crops) and not crops.num_rows:
        return
    foreign = crops.filter(pa.array(~state.crops.contains(crops["segment_id"])))["segment_id"].to_pylist()
    there = crops.group_by("segment_id").aggregate([("face_id", "count")])
    both = segments.join(there, "segment_id", join_type="left outer")
    is_right = pc.equal(pc.cast(both["faces_kept"], pa.int64()), pc.fill_null(both["face_id_count"], 0))
    right = both.filter(is_right)["segment_id"].combine_chunks()
    wrong = set(segments.filter(pc.invert(pc.is_in(segments["segment_id"], right)))["segment_id"].to_pylist())
    wrong.update(_doubled_segments(crops), foreign)
    if wrong:
        problem = f"{len(wrong)} segments have more or fewer kept faces than they say, first {min(wrong)}"
        result.found("missing_rows", "crops", problem)
    result.lost_crops = sorted(wrong)


def _doubled_segments(crops: pa.Table) -> list[str]:
    return face_segment(crops, _doubled(crops["face_id"]))


def _doubled(ids: pa.ChunkedArray) -> list[str]:
    counts = pa.table({"id": ids}).group_by("id").aggregate([("id", "count")])
    doubled: list[str] = counts.filter(pc.greater(counts["id_count"], 1))["id"].to_pylist()
    return sorted(doubled)


def _minus(left: IdSet, right: IdSet) -> list[str]:
    ids = list(left)
    return [one for one, is_there in zip(ids, right.contains(ids).tolist(), strict=True) if not is_there]
