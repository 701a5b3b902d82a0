"""Stored segments are looked up in the files that hold them, and after the first look in no others."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import Extraction
from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.live import read_in_turn
from pipeline.ledger.staging import stage_table, to_commit
from pipeline.ledger.state import LogState
from pipeline.segments import PLAN, plan_table
from pipeline.storage.store import Store
from pipeline.stored import StoredSegments
from ran_model.config import ModelConfig
from tests.staged_rows import segment_id, table

EXTRACTION = Extraction(segment_frames=10)
MODEL = ModelConfig(name="any")
FILES = 6


class MeetingStore(Store):
    """Lets nobody read on before all files of a table are being read."""

    meeting: threading.Barrier | None = None

    def _attempt(self, operation: str, path: str, act: Callable[[], Any]) -> Any:
        if self.meeting is not None and operation == "read":
            self.meeting.wait(60)  # an error for one that is alone
        return act()


def write_files(
    store: Store, state: LogState, tables: Sequence[str], segments_of_file: int = 1, faces: int = 0
) -> list[str]:
    """FILES files of each table, with a face and a crop of each segment. faces: as many as the rows of `segments` say.
    Returns the segments' ids."""
    template = np.asarray(MODEL.template, np.float32).ravel().tolist()
    count = segments_of_file
    for number in range(FILES):
        ids = [segment_id(number * count + one) for one in range(count)]
        columns: dict[str, dict[str, Any]] = {
            "segments": {"status": ["ok"] * count, "faces_kept": [faces] * count},
            "faces": {},
            "crops": {"template": [template] * count, "size": [MODEL.aligned_size] * count},
        }
        for name in tables:
            staged = stage_table(store, "r", name, table(name, count, segment_id=ids, **columns[name]))
            state.apply(Entry(run_id="r", add=[to_commit(staged, run_id="r", model_id="" if name == "crops" else "m")]))
    return [segment_id(one) for one in range(FILES * count)]


def planned(ids: Sequence[str]) -> pa.Table:
    plain = dict.fromkeys(("source_id", "source_uri", "location", "fingerprint", "kind"), "x")
    plain |= {"size_bytes": 1, "window": 0, "is_last": True, "follows": False, "attempts": 0}
    return pa.Table.from_pylist([{"segment_id": one, **plain} for one in ids], schema=PLAN)


def test_many_files_are_read_at_once(tmp_path: Path) -> None:
    """Of a store that answers in tens of milliseconds; each look at a file of crops is several requests."""
    store, state = MeetingStore(str(tmp_path)), LogState()
    ids = write_files(store, state, ("segments", "faces", "crops"))
    store.meeting = threading.Barrier(FILES)
    stored = StoredSegments(store, state, "m", MODEL).attach(planned(ids))["stored"].to_pylist()
    assert [len(row["faces"]) for row in stored] == [1] * FILES
    assert [row["crops"] for row in stored] == [file.path for file in state.files("crops")]


def test_large_files_are_not_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, state = Store(str(tmp_path)), LogState()
    ids = write_files(store, state, ("segments",))
    sizes = {file.path: file.bytes for file in state.files()}
    in_hand, most, lock = [0], [0], threading.Lock()

    def read(file: CommittedFile) -> str:
        with lock:
            in_hand[0] += file.bytes
            most[0] = max(most[0], in_hand[0])
        time.sleep(0.01)
        with lock:
            in_hand[0] -= file.bytes
        return file.path

    for limit in (1, 2 * max(sizes.values())):
        in_hand[0] = most[0] = 0
        assert list(read_in_turn(state.files(), read, ahead_bytes=limit)) == list(sizes)
        assert most[0] <= max(limit, *sizes.values())
    monkeypatch.setattr("pipeline.stored.AHEAD_BYTES", 1)
    stored = StoredSegments(store, state, "m", MODEL).attach(planned(ids))["stored"].to_pylist()
    assert [row["status"] for row in stored] == ["ok"] * FILES


def test_a_segment_with_crops_costs_a_few_bytes(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path)), LogState()
    ids = write_files(store, state, ("crops",), segments_of_file=5000)
    plan = planned(ids)
    tracemalloc.start()
    try:
        stored = StoredSegments(store, state, "m", MODEL)
        assert stored.to_decode(plan).num_rows == 0
        assert tracemalloc.get_traced_memory()[0] < 20 * len(ids)
    finally:
        tracemalloc.stop()


def test_segments_go_file_by_file_of_their_crops_and_last_those_without(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path)), LogState()
    ids = write_files(store, state, ("crops",), segments_of_file=2)
    without = segment_id(99)
    state.apply(Entry(run_id="r", model_id="m", segments=[*ids, without]))
    order = [ids[0], without, *ids[:0:-1]]
    taken = StoredSegments(store, state, "m", MODEL).plan(planned(order), "n")["segment_id"].to_pylist()
    pairs = [[ids[0], ids[1]], *([ids[at + 1], ids[at]] for at in range(2, len(ids), 2))]
    assert taken == [one for pair in pairs for one in pair] + [without]


def test_segments_that_no_source_has_are_planned_too(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path)), LogState()
    ids = write_files(store, state, ("segments", "faces"))
    state.apply(Entry(run_id="r", model_id="m", segments=ids))
    rows = StoredSegments(store, state, "m", MODEL).plan(planned(ids[1:3]), "n").to_pylist()
    assert [row["segment_id"] for row in rows] == [*ids[1:3], ids[0], *ids[3:]]
    assert [row["kind"] for row in rows] == ["x", "x", *["unknown"] * 4]


def test_faces_of_a_source_that_is_not_known_are_left_out_with_a_word(tmp_path: Path) -> None:
    """`verify --repair` takes damaged rows of `sources` away, and the next `run` makes them anew."""
    store, state = Store(str(tmp_path)), LogState()
    ids = write_files(store, state, ("segments", "faces"), faces=1)
    state.apply(Entry(run_id="r", model_id="m", segments=ids))
    stored = StoredSegments(store, state, "m", MODEL)
    assert stored.plan(planned(ids[1:3]), "n")["segment_id"].to_pylist() == ids[1:3]
    assert stored.left_out == 4
    assert "4 segments with faces left out" in stored.notes("n")[0]
    assert stored.plan(planned(ids), "n").num_rows == 6
    assert (stored.left_out, stored.notes("n")) == (0, [])


def test_segments_of_other_models_alone_are_told(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path)), LogState()
    for model_id, numbers in (("m", [0, 1]), ("first", [1, 2, 3]), ("n", [3])):
        state.apply(Entry(run_id="r", model_id=model_id, segments=[segment_id(one) for one in numbers]))
    (note,) = StoredSegments(store, state, "m", MODEL).notes("n")
    assert "1 segment more of model first, which base m lacks: the same command with --base first" in note


def test_later_looks_read_only_the_files_that_they_need(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path)), LogState()
    film = {"source_id": "0" * 16, "source_uri": "/film", "fingerprint": "1:1", "size_bytes": 1, "kind": "video"}
    film |= {"duration_s": 5.0, "container_frames": 125, "index": None, "error_code": None, "error_message": None}
    plan = plan_table([film], locations={"0" * 16: "/film"}, extraction=EXTRACTION)
    nobody = stage_table(store, "r", "faces", schema.empty("faces"))
    state.apply(Entry(run_id="r", add=[to_commit(nobody, run_id="r", model_id="m")]))
    files = []
    for row in plan.select(["segment_id", "source_id", "source_uri", "kind"]).to_pylist():
        row |= {"model_id": "m", "frames": [], "timestamps": [], "face_counts": [], "faces_kept": 0, "status": "ok"}
        row |= {"fetch_s": 0, "decode_s": 0, "detect_s": 0, "infer_s": 0, "attempts": 1, "run_id": "r", "node": "n"}
        staged = stage_table(store, "r", "segments", pa.Table.from_pylist([row], schema=schema.SEGMENTS))
        files.append(to_commit(staged, run_id="r", model_id="m"))
        state.apply(Entry(run_id="r", model_id="m", segments=[row["segment_id"]], add=files[-1:]))

    stored = StoredSegments(store, state, "m", MODEL)
    first, last = plan.slice(0, 1), plan.slice(plan.num_rows - 1)
    assert stored.attach(first)["stored"].to_pylist()[0]["status"] == "ok"
    for file in files[:-1]:
        (tmp_path / file.staged).unlink()
    assert stored.attach(last)["stored"].to_pylist()[0]["status"] == "ok"
