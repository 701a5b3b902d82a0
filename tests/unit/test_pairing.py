"""No face gets another's answer: through odd batch sizes, sliced and chunked blocks, and empty segments between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.config import Extraction
from pipeline.cut import RegionCutter
from pipeline.errors import UsageError
from pipeline.extract import append_results
from pipeline.extraction import FACE_COLUMNS, ExtractedSegment
from pipeline.infer import InferConfig, ModelBytes, RanActor
from pipeline.segments import PLAN
from ran_model.pretrained import LoadedModel, load_model, read_model_bytes
from ran_model.regions import region_boxes

COUNTS = [3, 0, 1, 7, 0, 5, 2, 11]


@pytest.fixture(scope="module")
def block(tiny_model: Path) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Eight segments of different faces in chunks of uneven length, and the answer of each face scored alone."""
    model = load_model(tiny_model)
    size = model.config.aligned_size
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (sum(COUNTS), 6, 6, 3), np.uint8)
    faces = coarse.repeat(size // 6, 1).repeat(size // 6, 2)
    alone = [model.predict(face[None], region_boxes(model.config, 1)) for face in faces]
    probabilities = np.concatenate([answer[0] for answer in alone])
    attention = np.concatenate([answer[2] for answer in alone])
    assert np.abs(probabilities[:, None] - probabilities[None]).max(2)[~np.eye(len(faces), dtype=bool)].min() > 1e-4
    results, pixels, offset = [], [], 0
    for number, count in enumerate(COUNTS):
        result = ExtractedSegment(segment_id=f"s{number}", frames=[0])
        result.faces = {name: np.zeros(count, dtype) for name, dtype in FACE_COLUMNS.items()}
        result.region_boxes = region_boxes(model.config, count)
        results.append(result)
        pixels.append(faces[offset : offset + count].tobytes())
        offset += count
    rows = [
        {
            "segment_id": f"s{number}", "source_id": "a", "source_uri": "/a", "location": "/a", "fingerprint": "1:1",
            "kind": "video", "size_bytes": 1, "window": number, "is_last": False, "attempts": 1,
        }
        for number in range(len(COUNTS))
    ]  # fmt: skip
    plan = pa.Table.from_pylist(rows, schema=PLAN)
    whole = append_results(plan, results, pixels, [False] * len(COUNTS), Extraction(), 0.0)
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 4), whole.slice(5)])
    return chunked, probabilities, attention


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 16, 64])
def test_each_face_gets_its_own_answer_at_any_batch_size(
    tiny_model: Path, block: tuple[pa.Table, np.ndarray, np.ndarray], batch_size: int
) -> None:
    table, probabilities, attention = block
    actor = RanActor(ModelBytes(*read_model_bytes(tiny_model)), InferConfig(device="cpu", batch_size=batch_size))
    answer = actor(table)
    assert [len(row) for row in answer["probabilities"]] == [8 * count for count in COUNTS]
    np.testing.assert_allclose(flat(answer, "probabilities", 8), probabilities, atol=1e-5)
    np.testing.assert_allclose(flat(answer, "attention", 6), attention, atol=1e-5)
    assert answer["segment_id"].to_pylist() == table["segment_id"].to_pylist()


@pytest.mark.parametrize(("begin", "length"), [(0, 3), (2, 4), (3, 5), (1, 1), (6, 2)])
def test_a_sliced_block_gives_the_slice_of_the_answers(
    tiny_model: Path, block: tuple[pa.Table, np.ndarray, np.ndarray], begin: int, length: int
) -> None:
    table, probabilities, _ = block
    actor = RanActor(ModelBytes(*read_model_bytes(tiny_model)), InferConfig(device="cpu", batch_size=4))
    answer = actor(table.slice(begin, length))
    first, last = sum(COUNTS[:begin]), sum(COUNTS[: begin + length])
    np.testing.assert_allclose(flat(answer, "probabilities", 8), probabilities[first:last], atol=1e-5)


@pytest.mark.parametrize(("begin", "length", "batch_size"), [(0, 8, 16), (0, 8, 3), (2, 4, 5), (1, 1, 1), (4, 1, 2)])
def test_each_face_gets_its_own_answer_where_regions_were_cut_before(
    tiny_model: Path, block: tuple[pa.Table, np.ndarray, np.ndarray], begin: int, length: int, batch_size: int
) -> None:
    table, probabilities, attention = block
    config, weights = read_model_bytes(tiny_model)
    cut = RegionCutter(config)(table.slice(begin, length))
    assert not {"pixels", "region_boxes"} & set(cut.column_names)
    actor = RanActor(ModelBytes(config, weights), InferConfig(device="cpu", batch_size=batch_size))
    answer = actor(cut)
    assert not {"crops", "pixels", "region_boxes"} & set(answer.column_names)
    first, last = sum(COUNTS[:begin]), sum(COUNTS[: begin + length])
    found = flat(answer, "probabilities", 8)
    assert len(found) == last - first
    if last > first:  # rounding moves an answer, but none as far as to another face's
        distances = np.abs(found[:, None] - probabilities[None]).max(2)
        assert distances.argmin(1).tolist() == list(range(first, last))
    np.testing.assert_allclose(found, probabilities[first:last], atol=2e-3)
    np.testing.assert_allclose(flat(answer, "attention", 6), attention[first:last], atol=2e-3)


def test_crops_travel_on_only_when_they_are_kept(
    tiny_model: Path, block: tuple[pa.Table, np.ndarray, np.ndarray]
) -> None:
    model = ModelBytes(*read_model_bytes(tiny_model))
    assert "pixels" not in RanActor(model, InferConfig(device="cpu"))(block[0]).column_names
    assert "pixels" in RanActor(model, InferConfig(device="cpu", keep_pixels=True))(block[0]).column_names
    cut = RegionCutter(model.config, keep_pixels=True)(block[0])
    assert "pixels" in RanActor(model, InferConfig(device="cpu", keep_pixels=True))(cut).column_names


def test_an_actor_that_cannot_infer_does_not_start(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def fails(self: LoadedModel, faces: np.ndarray, boxes: np.ndarray) -> None:
        shapes.append((faces.shape, boxes.shape))
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED")

    monkeypatch.setattr(LoadedModel, "predict", fails)
    with pytest.raises(RuntimeError, match="CUDNN_STATUS_NOT_INITIALIZED"):
        RanActor(ModelBytes(*read_model_bytes(tiny_model)), InferConfig(device="cpu", batch_size=16))
    assert shapes == [((1, 48, 48, 3), (1, 6, 4))]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU that torch can use")
def test_a_gpu_that_torch_cannot_use_is_told_with_the_mend(
    tiny_model: Path, block: tuple[pa.Table, np.ndarray, np.ndarray]
) -> None:
    actor = RanActor(ModelBytes(*read_model_bytes(tiny_model)), InferConfig(device="cuda"))
    with pytest.raises(UsageError, match=r"^torch .* can't use the GPU of .*: use --device cpu, or a torch") as told:
        actor(block[0])
    assert len(str(told.value).splitlines()) == 1


def test_a_model_that_does_not_fit_is_told_by_the_first_call(
    tiny_model: Path, block: tuple[pa.Table, np.ndarray, np.ndarray]
) -> None:
    config, _ = read_model_bytes(tiny_model)
    actor = RanActor(ModelBytes(config, b"junk"), InferConfig(device="cpu"))
    with pytest.raises(UsageError, match=r"the model can't be used: model\.safetensors is damaged"):
        actor(block[0])


def flat(table: pa.Table, column: str, width: int) -> np.ndarray:
    return np.asarray(table[column].combine_chunks().flatten()).reshape(-1, width)
