"""Stored segments are looked up in the files that hold them, and after the first look in no others."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipeline import schema
from pipeline.config import Extraction
from pipeline.ledger.entry import Entry
from pipeline.ledger.staging import stage_table, to_commit
from pipeline.ledger.state import LogState
from pipeline.segments import plan_table
from pipeline.storage.store import Store
from pipeline.stored import StoredSegments
from ran_model.config import ModelConfig

EXTRACTION = Extraction(segment_frames=10)


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

    stored = StoredSegments(store, state, "m", ModelConfig(name="any"))
    first, last = plan.slice(0, 1), plan.slice(plan.num_rows - 1)
    assert stored.attach(first)["stored"].to_pylist()[0]["status"] == "ok"
    for file in files[:-1]:
        (tmp_path / file.staged).unlink()
    assert stored.attach(last)["stored"].to_pylist()[0]["status"] == "ok"
