"""The shipped detector on a real face: places, batches, sizes and errors."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from pipeline.config import Extraction
from pipeline.detect import (
    CPU_BATCH_PIXELS,
    MOBILENET_PATH,
    Detections,
    Detector,
    RetinaFaceDetector,
    load_detector,
)
from pipeline.errors import UsageError
from pipeline.worker import SegmentExtractor, WorkerConfig
from ran_model.config import ModelConfig

ASTRONAUT = Path(__file__).parents[2] / "examples" / "media" / "astronaut.png"
CPU = "CPUExecutionProvider"
Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def astronaut() -> Image:
    return np.ascontiguousarray(cv2.imread(str(ASTRONAUT))[:, :, ::-1])


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector(min_face_px=8)


def only(found: list[Detections]) -> Detections:
    assert [len(one) for one in found] == [1]
    return found[0]


def test_the_astronaut_is_found_where_she_is(detector: Detector, astronaut: Image) -> None:
    face = only(detector.detect([astronaut]))
    assert face.scores_N[0] > 0.99
    np.testing.assert_allclose(face.boxes_N4[0], [178, 57, 95, 120], atol=6)
    left_eye, right_eye, nose, mouth_left, mouth_right = face.landmarks_N52[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert mouth_left[0] < mouth_right[0]
    assert left_eye[1] < nose[1] < mouth_left[1]


def test_a_batch_answers_as_single_pictures_do(detector: Detector, astronaut: Image) -> None:
    pictures = [
        astronaut,
        astronaut[:, ::-1],
        cv2.resize(astronaut, (300, 411)),
        (astronaut * 0.6).astype(np.uint8),
        np.zeros_like(astronaut),
        cv2.resize(astronaut[:, ::-1], (300, 411)),
    ]
    together = detector.detect(pictures)
    for one, picture in zip(together, pictures, strict=True):
        alone = detector.detect([picture])[0]
        np.testing.assert_array_equal(one.boxes_N4, alone.boxes_N4)
        np.testing.assert_array_equal(one.landmarks_N52, alone.landmarks_N52)
        np.testing.assert_array_equal(one.scores_N, alone.scores_N)
    assert [len(one) for one in together] == [1, 1, 1, 1, 0, 1]


def test_shrinking_for_detection_keeps_the_pictures_own_pixels(astronaut: Image) -> None:
    large = cv2.resize(astronaut, (1024, 1536))
    found = only(load_detector(max_side_px=512).detect([large]))
    expected = only(load_detector().detect([astronaut]))
    np.testing.assert_allclose(found.landmarks_N52 / [2, 3], expected.landmarks_N52, atol=5)


def test_a_picture_filled_by_a_small_face_is_found(detector: Detector, astronaut: Image) -> None:
    face = cv2.resize(astronaut[40:190, 150:300], (48, 48), interpolation=cv2.INTER_AREA)
    found = only(detector.detect([face]))
    scale = 48 / 150
    expected = (only(detector.detect([astronaut])).landmarks_N52 - [150, 40]) * scale
    np.testing.assert_allclose(found.landmarks_N52, expected, atol=2.5)


def test_boxes_end_at_the_border(detector: Detector, astronaut: Image) -> None:
    cut = np.ascontiguousarray(astronaut[90:, 200:])
    x, y, width, height = only(detector.detect([cut])).boxes_N4[0]
    assert x >= 0
    assert y >= 0
    assert x + width <= cut.shape[1]
    assert y + height <= cut.shape[0]


def test_faces_below_the_smallest_size_are_dropped(astronaut: Image) -> None:
    assert len(load_detector(min_face_px=90).detect([astronaut])[0]) == 1
    assert len(load_detector(min_face_px=100).detect([astronaut])[0]) == 0  # its box is 95 wide


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (1000, 3)])
def test_odd_shapes_hold_no_face_and_no_surprise(detector: Detector, shape: tuple[int, int]) -> None:
    found = detector.detect([np.full((*shape, 3), 128, dtype=np.uint8)])[0]
    assert (found.boxes_N4.shape, found.landmarks_N52.shape) == ((0, 4), (0, 5, 2))


def test_the_weights_are_named_by_their_hash(detector: Detector) -> None:
    assert detector.weights_sha256 == hashlib.sha256(MOBILENET_PATH.read_bytes()).hexdigest()


def test_errors_name_the_value(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'yolo'"):
        load_detector("yolo")
    with pytest.raises(UsageError, match=r"absent\.onnx"):
        load_detector(weights=tmp_path / "absent.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(UsageError, match=r"junk\.onnx"):
        load_detector(weights=tmp_path / "junk.onnx")
    with pytest.raises(UsageError, match="'tpu'"):
        load_detector(providers="tpu")


@pytest.fixture
def built_for_gpus(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """onnxruntime says that it was built with CUDA; its sessions are real ones. What each was told to use."""
    told: list[list[str]] = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, *arguments: object, providers: list[str], **options: object) -> None:
            told.append(providers)
            super().__init__(*arguments, providers=providers, **options)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return told


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there may be a GPU")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available")
def test_a_gpu_that_onnxruntime_cannot_use_gets_no_batches_of_a_gpu(built_for_gpus: list[list[str]]) -> None:
    found = load_detector()
    assert built_for_gpus == [["CUDAExecutionProvider", CPU]]
    assert isinstance(found, RetinaFaceDetector)
    assert found.batch_pixels == CPU_BATCH_PIXELS
    with pytest.raises(UsageError, match="'cuda'"):
        load_detector(providers="cuda")


def test_decode_processes_take_no_gpu(built_for_gpus: list[list[str]]) -> None:
    SegmentExtractor(WorkerConfig(extraction=Extraction(), model_config=ModelConfig().to_json()))
    assert built_for_gpus == [[CPU]]


def test_detecting_and_aligning_need_no_torch() -> None:
    code = (
        "import sys; import pipeline.detect, pipeline.headpose, pipeline.quality, ran_model.align, ran_model.config,"
        " ran_model.regions; print('torch' in sys.modules or 'ray' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
