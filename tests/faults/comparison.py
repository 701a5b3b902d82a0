"""Two datasets are the same table, whatever happened to one of them on the way.

All columns must agree but RUN_COLUMNS, which tell of the run. Floats agree within RELATIVE or ABSOLUTE: a face that
was scored in another microbatch may differ in its last bits; 1e-5 of a probability or an attention weight, and a
hundredth of a pixel in a thousand, is far below anything that a query could tell.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.ledger.log import CommitLog
from pipeline.storage.store import Store

#: Columns that differ from run to run by nature.
RUN_COLUMNS = ("run_id", "fetch_s", "decode_s", "detect_s", "infer_s", "attempts", "node")
RELATIVE, ABSOLUTE = 1e-5, 1e-5

KEYS = {"faces": ["face_id", "model_id"], "segments": ["segment_id", "model_id"], "sources": ["source_id"]}
OWNER = ["segment_id", "model_id"]


def table(output: Store | Path, name: str) -> pa.Table:
    """All rows of a table as a plain glob shows them, in a canonical order."""
    store = output if isinstance(output, Store) else Store(str(output))
    parts = [pq.read_table(io.BytesIO(store.read_bytes(path))) for path in store.list(name) if path.endswith("parquet")]
    return pa.concat_tables(parts).sort_by([(column, "ascending") for column in KEYS.get(name, ["face_id"])])


def assert_same_tables(
    expected: Store | Path, found: Store | Path, *, but: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> None:
    """Every table of both has the same rows; and `found` is sound.

    but: names of sources whose rows may differ. without: columns that the test itself makes different.
    """
    for name in KEYS:
        left, right = (_comparable(table(output, name), but, without) for output in (expected, found))
        assert left.schema == right.schema
        ids = [column.to_pylist() for column in (left[KEYS[name][0]], right[KEYS[name][0]])]
        assert ids[0] == ids[1], f"{name}: lost {sorted(set(ids[0]) - set(ids[1]))}, new {_new(*ids)}"
        for column in left.column_names:
            where = f"{name}.{column}"
            _assert_same(left[column].combine_chunks(), right[column].combine_chunks(), where)
    assert_sound(found)


def assert_sound(output: Store | Path) -> None:
    """Nothing twice, each segment with its own faces and each face with its segment, kept crops of faces that there
    are, and the log says what the glob shows."""
    store = output if isinstance(output, Store) else Store(str(output))
    faces, segments = table(store, "faces"), table(store, "segments")
    for name, rows in (("faces", faces), ("segments", segments), ("sources", table(store, "sources"))):
        assert rows.group_by(KEYS[name]).aggregate([]).num_rows == rows.num_rows, f"{name} has a row twice"
    orphans = pc.invert(pc.is_in(faces["segment_id"], segments["segment_id"].combine_chunks()))
    assert faces.filter(orphans).num_rows == 0, "a face without its segment's row"
    assert_no_half_segment(segments, faces)
    if any(path.endswith("parquet") for path in store.list("crops")):
        kept = table(store, "crops")["face_id"]
        assert pc.count_distinct(kept).as_py() == len(kept), "crops has a row twice"
        assert pc.all(pc.is_in(kept, faces["face_id"].combine_chunks())).as_py() is not False, "a crop of no face"
    log = CommitLog(Store(store.url, store._options))
    log.refresh()
    for model_id in log.state.models:
        covered = len(log.state.covered(model_id))
        rows = segments.filter(pc.equal(segments["model_id"], model_id)).num_rows
        assert log.state.count(model_id) == rows + covered, "the log and the table disagree"


def assert_no_half_segment(segments: pa.Table, faces: pa.Table) -> None:
    """Every segment that is there has as many faces as its row says. `segments` must have been read before `faces`."""
    there = Counter(zip(*(faces[name].to_pylist() for name in OWNER), strict=True))
    for *owner, kept in zip(*(segments[name].to_pylist() for name in (*OWNER, "faces_kept")), strict=True):
        found = there[tuple(owner)]
        assert found == kept, f"segment {owner} says {kept} faces and has {found}"


def assert_nothing_twice_or_by_halves(output: Path) -> None:
    """What a plain glob shows right after a kill: perhaps not all rows, but none twice, and no segment without all of
    its faces."""
    parts = {"segments": schema.empty("segments"), "faces": schema.empty("faces")}
    for name in parts:
        if list(output.glob(f"{name}/**/*.parquet")):
            parts[name] = rows = table(output, name)
            assert rows.group_by(KEYS[name]).aggregate([]).num_rows == rows.num_rows, f"{name} has a row twice"
    assert_no_half_segment(parts["segments"], parts["faces"])


def entries(output: Store | Path) -> int:
    """How many entries the log has."""
    store = output if isinstance(output, Store) else Store(str(output))
    return sum(path.endswith(".json") for path in store.list("_ran/log"))


def _comparable(rows: pa.Table, but: tuple[str, ...], without: tuple[str, ...]) -> pa.Table:
    for ending in but:
        rows = rows.filter(pc.invert(pc.ends_with(rows["source_uri"], ending)))
    return rows.drop_columns([column for column in rows.column_names if column in RUN_COLUMNS + without])


def _assert_same(left: pa.Array, right: pa.Array, where: str) -> None:
    if pa.types.is_list(left.type) and pa.types.is_floating(left.type.value_type):
        assert pc.list_value_length(left).equals(pc.list_value_length(right)), where
        left, right = left.flatten(), right.flatten()
    if not pa.types.is_floating(left.type):
        assert left.equals(right), f"{where}: {left.to_pylist()} became {right.to_pylist()}"
        return
    assert left.is_null().equals(right.is_null()), f"{where}: null where it was not, or the other way round"
    numbers = [np.asarray(values.drop_null(), np.float64) for values in (left, right)]
    np.testing.assert_allclose(numbers[1], numbers[0], rtol=RELATIVE, atol=ABSOLUTE, err_msg=where)


def _new(expected: list[str], found: list[str]) -> list[str]:
    return sorted(set(found) - set(expected))
