"""Of a large file of kept crops only what a unit needs is fetched, and what comes back is what is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import StoreError
from pipeline.extraction import FACE_COLUMNS
from pipeline.kept_crops import KeptCrops
from pipeline.ledger.entry import Entry
from pipeline.ledger.rows_file import RowsFile
from pipeline.ledger.staging import StagedFile, stage_table, to_commit
from pipeline.ledger.state import LogState
from pipeline.quality import sharpness_brightness
from pipeline.rescore import RescoreActor
from pipeline.segments import Segment
from pipeline.storage.store import Store
from pipeline.stored import StoredSegments
from pipeline.worker import WorkerConfig
from ran_model.config import ModelConfig
from tests.faulty_store import FaultyStore, lose_connection, memory_url
from tests.staged_rows import segment_id

MODEL = ModelConfig(name="any")
SEGMENTS, FACES, PNG_BYTES = 60, 10, 100_000  # 57 MiB: seven row groups


class CountingStore(Store):
    """Counts the bytes that are read."""

    read = 0

    def _attempt(self, operation: str, path: str, act: Callable[[], Any]) -> Any:
        result = act()
        if operation == "read":
            self.read += len(result)
        return result


def rows_of(numbers: Sequence[int]) -> pa.Table:
    """Crops of some segments; the size is right for every second."""
    owners = [number for number in numbers for _ in range(FACES)]
    count = len(owners)
    random = np.random.default_rng(numbers[0])
    columns = {
        "face_id": [f"{owner}-{index}" for index, owner in enumerate(owners)],
        "segment_id": [segment_id(owner) for owner in owners],
        "source_id": ["0" * 16] * count,
        "png": [random.bytes(PNG_BYTES) for _ in owners],
        "template": [np.asarray(MODEL.template, np.float32).ravel().tolist()] * count,
        "size": [MODEL.aligned_size + owner % 2 for owner in owners],
        "run_id": ["r"] * count,
        "pipeline_version": ["0"] * count,
    }
    return schema.table("crops", columns)


def merged(store: Store) -> StagedFile:
    """As a commit or a compaction writes it, from units of five segments."""
    with RowsFile(store, "r", "crops") as file:
        for first in range(0, SEGMENTS, 5):
            file.add(rows_of(range(first, first + 5)))
        return file.finish()[0]


def staged(store: Store) -> StagedFile:
    """As a worker writes it, at once."""
    return stage_table(store, "r", "crops", rows_of(range(SEGMENTS)))


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CountingStore:
    return CountingStore(str(tmp_path / "out") if request.param == "folder" else memory_url())


@pytest.mark.parametrize("write", [merged, staged])
def test_a_unit_fetches_the_row_groups_that_it_needs(
    store: CountingStore, write: Callable[[Store], StagedFile]
) -> None:
    file = write(store)
    metadata = pq.ParquetFile(pa.BufferReader(store.read_bytes(file.path))).metadata
    assert max(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)) < 12 << 20
    everything = pq.read_table(pa.BufferReader(store.read_bytes(file.path))).to_pylist()
    store.read = 0
    crops = KeptCrops(store, file.path)
    assert store.read < 1 << 20
    for numbers in ([3, 4], [30], [SEGMENTS - 1, 0], [SEGMENTS]):
        ids = [segment_id(number) for number in numbers]
        store.read = 0
        found = crops.pngs(pa.array(ids))
        assert found == {row["face_id"]: row["png"] for row in everything if row["segment_id"] in ids}
        assert store.read < 25 << 20, "at most two row groups"


def test_which_crops_fit_is_told_without_fetching_them(store: CountingStore) -> None:
    state = LogState()
    committed = to_commit(merged(store), run_id="r", model_id="")
    state.apply(Entry(run_id="r", add=[committed]))
    store.read = 0
    stored = StoredSegments(store, state, "m", MODEL)
    files = stored._crops_of(pa.array([segment_id(number) for number in range(SEGMENTS)])).to_pylist()
    assert files == [None if number % 2 else committed.path for number in range(SEGMENTS)]
    assert store.read < 1 << 20


def test_units_of_one_file_look_its_keys_up_once_and_a_file_that_is_gone_gives_none(
    store: CountingStore, tiny_model: Path
) -> None:
    file = merged(store)
    config = WorkerConfig(extraction=Extraction(), model_config=(tiny_model / "config.json").read_bytes())
    actor = RescoreActor(config, 60.0, store)

    def read(*numbers: int) -> set[str]:
        files = {segment_id(number): file.path for number in numbers} | {"another": "crops/gone"}
        return {face_id.partition("-")[0] for face_id in actor._read_crops(files)}

    assert read(1, 2) == {"1", "2"}
    store.read = 0
    assert read(SEGMENTS) == set()
    assert store.read == 0
    store.delete(file.path)
    assert read(1, 2) == set()


def test_measures_are_of_the_crops_whatever_the_stored_rows_were_aligned_to(store: CountingStore) -> None:
    """Rows of a model with another template, crops that fit this one."""
    actor = RescoreActor(WorkerConfig(extraction=Extraction(), model_config=MODEL.to_json()), 60.0, store)
    segment = Segment(
        segment_id=segment_id(1),
        source_id="0" * 16,
        source_uri="/v.mp4",
        location="/v.mp4",
        fingerprint="1:1",
        kind="video",
        size_bytes=1,
    )
    faces = np.random.default_rng(0).integers(0, 256, (2, MODEL.aligned_size, MODEL.aligned_size, 3), dtype=np.uint8)
    rows = [
        {**dict.fromkeys(FACE_COLUMNS, 1.0), "face_id": f"{'0' * 16}-0-5-{face}", "frame": 5, "sharpness": -1.0}
        for face in range(2)
    ]
    stored = {
        "frames": [5], "timestamps": [0.2], "members": None, "face_counts": [2], "frame_errors": None, "status": "ok",
        "error_stage": None, "error_code": None, "error_message": None, "decoder": "pyav", "faces": rows,
    }  # fmt: skip
    crops = {
        row["face_id"]: cv2.imencode(".png", face[..., ::-1])[1].tobytes()
        for row, face in zip(rows, faces, strict=True)
    }
    result, pixels = actor._restore(segment, stored, crops)
    assert pixels == faces.tobytes()
    measures = np.stack([result.faces[name] for name in ("sharpness", "brightness")], axis=1)
    np.testing.assert_array_equal(measures, sharpness_brightness(faces))
    assert result.faces["FaceScore"].tolist() == [1, 1]  # all else is what is stored


def test_a_store_that_fails_under_way_is_named(tmp_path: Path) -> None:
    store = FaultyStore(str(tmp_path))
    crops = KeptCrops(store, merged(store).path)
    for attempt in (1, 2, 3):
        store.at(attempt, "before", lose_connection)
    with pytest.raises(StoreError, match=r"read .*connection reset by peer"):
        crops.pngs(pa.array([segment_id(1)]))
