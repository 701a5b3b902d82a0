"""The pose of a face whose landmarks coincide is not known: null in the table, never NaN, also when scored again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Extraction
from pipeline.extract import append_results
from pipeline.extraction import FACE_COLUMNS, LANDMARK_COLUMNS, ExtractedSegment
from pipeline.headpose import head_pose
from pipeline.infer import InferConfig, ModelBytes, RanActor
from pipeline.rescore import restored
from pipeline.segments import PLAN, Segment
from pipeline.stage import StageConfig, StageWriter
from pipeline.storage.store import Store
from ran_model.config import ModelConfig
from ran_model.model_files import read_model_bytes
from ran_model.regions import region_boxes

POSE = ["Pitch", "Roll", "Yaw"]


def test_the_pose_of_coinciding_landmarks_is_null(tiny_model: Path, tmp_path: Path) -> None:
    config, weights = read_model_bytes(tiny_model)
    model = ModelConfig.from_json(config)
    result = ExtractedSegment(
        segment_id="s", frames=[0], timestamps=[0.0], members=[None], ordinals=[0], face_counts=[2], frame_errors=[None]
    )
    result.faces = {name: np.zeros(2, dtype) for name, dtype in FACE_COLUMNS.items()}
    result.faces["face"][1] = 1
    seen = np.asarray([[10, 10], [30, 10], [20, 20], [12, 30], [28, 30]], np.float32)
    landmarks_N52 = np.stack([seen, np.full_like(seen, 20)])
    result.faces |= dict(zip(LANDMARK_COLUMNS, landmarks_N52.reshape(2, 10).T, strict=True))
    result.faces |= dict(zip(POSE, head_pose(landmarks_N52).T, strict=True))
    result.region_boxes = region_boxes(model, 2)
    row = {
        "segment_id": "s", "source_id": "a", "source_uri": "/a", "location": "/a", "fingerprint": "1:1",
        "kind": "picture", "size_bytes": 1, "window": 0, "is_last": True, "attempts": 1,
    }  # fmt: skip
    plan = pa.Table.from_pylist([row], schema=PLAN)
    pixels = bytes(2 * model.aligned_size**2 * 3)

    def staged(extracted: ExtractedSegment, name: str) -> pa.Table:
        """What the stages after it write of its faces."""
        block = append_results(plan, [extracted], [pixels], [False], Extraction(), 0.0)
        answered = RanActor(ModelBytes(config, weights), InferConfig(device="cpu", batch_size=2))(block)
        store = Store(str(tmp_path / name))
        writer = StageWriter(StageConfig(store=store, run_id="r", model_id="m", model_config=config))
        (files,) = writer(answered)["files"].to_pylist()
        (path,) = (file["path"] for file in files if file["table"] == "faces")
        return pq.read_table(tmp_path / name / path)

    first = staged(result, "first")
    for name in POSE:
        known, unknown = first[name].to_pylist()
        assert unknown is None
        assert np.isfinite(known)
    stored = {name: value for name, value in asdict(result).items() if name != "faces"} | {"faces": first.to_pylist()}
    again = restored(Segment.from_row(plan.to_pylist()[0]), stored)
    again.region_boxes = result.region_boxes
    assert staged(again, "again").select(POSE).equals(first.select(POSE))
