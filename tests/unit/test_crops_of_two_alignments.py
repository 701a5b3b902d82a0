"""One file of kept crops may hold those of two alignments, as `compact` makes it; the other's are not scored."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Extraction
from pipeline.ledger.compact import compact
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import Entry
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import publish_entry
from pipeline.ledger.staging import stage_table, to_commit
from pipeline.rescore import RescoreActor
from pipeline.segments import PLAN
from pipeline.storage.store import Store
from pipeline.stored import StoredSegments
from pipeline.worker import WorkerConfig
from ran_model.config import ModelConfig
from tests.staged_rows import MODEL, segment_id, source_id, table

FITS, OTHER = 10, 200  # the grey of each one's crops


def commit_picture(store: Store, log: CommitLog, number: int, *, template: list[float], grey: int, size: int) -> None:
    """A picture that is gone by now, with one face and its crop."""
    common = {"segment_id": [segment_id(number)], "source_id": [source_id(number)]}
    rows = common | {"source_uri": [f"/gone/{number}.jpg"], "model_id": [MODEL]}
    face_id = [f"{source_id(number)}-0-0-0"]
    png = cv2.imencode(".png", np.full((size, size, 3), grey, np.uint8))[1].tobytes()
    one = {"frames": [[0]], "timestamps": [[None]], "face_counts": [[1]], "faces_kept": [1], "status": ["ok"]}
    tables = {
        "segments": table("segments", 1, **rows, **one),
        "faces": table("faces", 1, **rows, face_id=face_id, frame=[0], face=[0]),
        "crops": table("crops", 1, **common, face_id=face_id, png=[png], template=[template], size=[size]),
    }
    staged = {name: stage_table(store, "run", name, rows) for name, rows in tables.items()}
    add = [to_commit(one, run_id="run", model_id="" if name == "crops" else MODEL) for name, one in staged.items()]
    ids = [segment_id(number)]
    publish_entry(
        store, log, log.append(lambda _: Entry(run_id="run", model_id=MODEL, segments=ids, crops=ids, add=add))
    )


@pytest.mark.parametrize(("scale", "size"), [(0.8, None), (1.0, 20)])
def test_crops_of_another_alignment_are_not_scored(
    scale: float, size: int | None, tiny_model: Path, tmp_path: Path
) -> None:
    model_config = (tiny_model / "config.json").read_bytes()
    model = ModelConfig.from_json(model_config)
    store = Store(str(tmp_path / "out"))
    Dataset.open_or_create(store, Extraction())
    log = CommitLog(store)
    log.refresh(write_checkpoints=True)
    template = np.asarray(model.template, np.float32)
    commit_picture(store, log, 0, template=template.ravel().tolist(), grey=FITS, size=model.aligned_size)
    other = (template * np.float32(scale)).ravel().tolist()
    commit_picture(store, log, 1, template=other, grey=OTHER, size=size or model.aligned_size)
    compact(store)
    log.refresh()
    assert len(log.state.files("crops")) == 1
    rows = [
        {
            "segment_id": segment_id(number), "source_id": source_id(number), "source_uri": f"/gone/{number}.jpg",
            "location": f"/gone/{number}.jpg", "fingerprint": "1:1", "kind": "picture", "size_bytes": 1, "window": 0,
            "is_last": True, "follows": False, "attempts": 0,
        }
        for number in range(2)
    ]  # fmt: skip
    stored = StoredSegments(store, log.state, MODEL, model)
    plan = stored.plan(pa.Table.from_pylist(rows, schema=PLAN), "b" * 12)
    worker = WorkerConfig(extraction=Extraction(), model_config=model_config, detects=False)
    actor = RescoreActor(worker, 60.0, store)
    try:
        answer = actor(stored.attach(plan))
    finally:
        actor.close()
    found = {row["segment_id"]: row for row in answer.select(["segment_id", "status", "pixels"]).to_pylist()}
    fits, unfit = found[segment_id(0)], found[segment_id(1)]
    assert (fits["status"], set(fits["pixels"])) == ("ok", {FITS})
    assert (unfit["status"], unfit["pixels"]) == ("error", b""), "its source would have to be read, and is gone"
