"""The face detector: pictures in, boxes, scores and five landmarks out. No torch here: the decode child imports this.

The default is RetinaFace MobileNet-0.25 on onnxruntime, shipped in `pipeline/detectors`. Another network joins by being
a `Detector`; `RetinaFaceDetector` does everything but the forward pass, so that every RetinaFace backbone shares sizes,
decoding and thresholds.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline import retinaface
from pipeline.errors import UsageError

Float = NDArray[np.float32]
Image = NDArray[np.uint8]
Forward = Callable[[Image], tuple[Float, Float, Float]]

MOBILENET = "retinaface-mobilenet0.25"
RESNET50 = "retinaface-resnet50"
PROVIDERS = ("auto", "cpu", "cuda")
MOBILENET_PATH = Path(__file__).parent / "detectors" / "retinaface_mobilenet025.onnx"

TINY_PX = 256  # a picture this small is likely a face that fills it, which the anchors miss without a margin
TINY_ENLARGED_PX = 192
TINY_MARGIN_PX = 64
# Pixels of one forward pass. Measured on a CPU at 640×360: one frame 7.9 ms, eight together 9.6 ms each (caches).
CPU_BATCH_PIXELS, GPU_BATCH_PIXELS = 500_000, 8_000_000


@dataclass(frozen=True)
class Detections:
    """The faces of one picture, by descending score; all coordinates in pixels of that picture.

    boxes_N4: float32 x, y, width, height, clipped to the picture. scores_N: float32 in 0-1.
    landmarks_N52: float32 x, y of left eye, right eye, nose, left and right mouth corner (left = left in the picture);
    not clipped.
    """

    boxes_N4: Float
    scores_N: Float
    landmarks_N52: Float

    def __len__(self) -> int:
        return len(self.scores_N)


class Detector(Protocol):
    """What the pipeline needs of a face detector. `weights_sha256` is part of a dataset's identity."""

    @property
    def name(self) -> str: ...

    @property
    def weights_sha256(self) -> str: ...

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """One `Detections` per picture (uint8 HWC RGB, any sizes; equal sizes travel in one batch)."""
        ...


@dataclass(frozen=True, kw_only=True)
class RetinaFaceDetector:
    """RetinaFace around a forward pass: shrinks, pads, batches, decodes, and scales back.

    forward: uint8 RGB pictures (N, H, W, 3) to box offsets (N, A, 4), face probabilities (N, A) and landmark offsets
    (N, A, 10), float32; the network's own normalisation is its business.
    min_score, min_face_px, max_side_px: as in `pipeline.config.Extraction`. batch_pixels: of one forward pass.
    """

    name: str
    weights_sha256: str
    forward: Forward
    min_score: float = 0.6
    min_face_px: float = 24
    max_side_px: int = 960
    batch_pixels: int = CPU_BATCH_PIXELS

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """See `Detector.detect`. The answers don't depend on which pictures share a batch."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            by_shape[image.shape].append(index)
        found: dict[int, Detections] = {}
        for (height, width, _), members in by_shape.items():
            frame = _Frame.fit(height, width, self.max_side_px)
            size = max(1, self.batch_pixels // (frame.padded_height * frame.padded_width))
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                offsets_NA4, scores_NA, landmarks_NA10 = self.forward(
                    np.stack([frame.prepare(images[i]) for i in batch])
                )
                anchors_A3 = retinaface.anchors(frame.padded_height, frame.padded_width)
                for row, index in enumerate(batch):
                    faces = retinaface.decode(
                        offsets_NA4[row], scores_NA[row], landmarks_NA10[row], anchors_A3, min_score=self.min_score
                    )
                    found[index] = self._in_picture(frame, *faces)
        return [found[i] for i in range(len(images))]

    def _in_picture(self, frame: _Frame, corners_N4: Float, scores_N: Float, landmarks_N52: Float) -> Detections:
        corners_N22 = frame.restore(corners_N4.reshape(-1, 2, 2))
        corners_N22 = np.clip(corners_N22, 0, np.array([frame.width, frame.height], dtype=np.float32))
        boxes_N4 = np.concatenate([corners_N22[:, 0], corners_N22[:, 1] - corners_N22[:, 0]], axis=1)
        large_N = boxes_N4[:, 2:].min(axis=1, initial=np.inf) >= max(self.min_face_px, 1)
        return Detections(boxes_N4[large_N], scores_N[large_N], frame.restore(landmarks_N52)[large_N])


@dataclass(frozen=True)
class _Frame:
    """How a picture of one size is laid out for the network: scaled, then padded by a margin."""

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    margin: int

    @staticmethod
    def fit(height: int, width: int, max_side_px: int) -> _Frame:
        long = max(height, width)
        scale = min(1.0, max_side_px / long)
        margin = 0
        if long <= TINY_PX:
            scale, margin = max(1.0, TINY_ENLARGED_PX / long), TINY_MARGIN_PX
        return _Frame(height, width, max(1, round(height * scale)), max(1, round(width * scale)), margin)

    @property
    def padded_height(self) -> int:
        return self.scaled_height + 2 * self.margin

    @property
    def padded_width(self) -> int:
        return self.scaled_width + 2 * self.margin

    def prepare(self, image: Image) -> Image:
        """The picture scaled, in a margin of the mean colour."""
        if (self.scaled_height, self.scaled_width) != (self.height, self.width):
            how = cv2.INTER_AREA if self.scaled_height < self.height else cv2.INTER_LINEAR
            image = cv2.resize(image, (self.scaled_width, self.scaled_height), interpolation=how).astype(np.uint8)
        if not self.margin:
            return image
        canvas = np.empty((self.padded_height, self.padded_width, 3), dtype=np.uint8)
        canvas[:] = retinaface.MEAN_BGR[::-1].astype(np.uint8)
        m = self.margin
        canvas[m : m + self.scaled_height, m : m + self.scaled_width] = image
        return canvas

    def restore(self, points: Float) -> Float:
        """Points (…, 2) of the padded picture back to pixels of the original."""
        scale = np.array([self.width / self.scaled_width, self.height / self.scaled_height], dtype=np.float32)
        return ((points - self.margin) * scale).astype(np.float32)


def load_detector(
    name: str = MOBILENET,
    *,
    weights: str | Path | None = None,
    threads: int = 1,
    min_score: float = 0.6,
    min_face_px: float = 24,
    max_side_px: int = 960,
    providers: str = "auto",
) -> Detector:
    """The detector of that name, ready to detect.

    weights: a local file; the MobileNet's ship with the product. threads: for one forward pass.
    providers: "cpu" (decode processes, which reserve no GPU), "cuda" (refused where it can't be used), or "auto": CUDA
    where this machine has it, else the CPU.
    Raises UsageError for an unknown name or provider, missing weights, or a missing extra.
    """
    if providers not in PROVIDERS:
        raise UsageError(f"detector provider is {providers!r}: it must be one of {', '.join(PROVIDERS)}")
    if name == RESNET50:
        from pipeline.retinaface_torch import load_resnet50  # torch only where it is asked for

        forward, sha256, on_gpu = load_resnet50(weights, threads=threads, providers=providers)
    elif name == MOBILENET:
        forward, sha256, on_gpu = _load_onnx(Path(weights) if weights else MOBILENET_PATH, threads, providers)
    else:
        raise UsageError(f"detector is {name!r}: it must be {MOBILENET} or {RESNET50}")
    return RetinaFaceDetector(
        name=name,
        weights_sha256=sha256,
        forward=forward,
        min_score=min_score,
        min_face_px=min_face_px,
        max_side_px=max_side_px,
        batch_pixels=GPU_BATCH_PIXELS if on_gpu else CPU_BATCH_PIXELS,
    )


def weights_sha256(name: str, weights: str | Path | None = None) -> str:
    """sha256 of the weights that `load_detector` would load: part of a dataset's identity. Raises UsageError."""
    if weights is None and name != MOBILENET:
        raise UsageError(f"detector {name} does not ship with weights: give --detector-weights PATH")
    path = Path(weights) if weights else MOBILENET_PATH
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"detector weights {path} can't be read ({error.strerror})") from error


def _load_onnx(path: Path, threads: int, providers: str) -> tuple[Forward, str, bool]:
    """The forward pass, the sha256 of the weights, and whether a GPU does the work."""
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"detector weights {path} can't be read ({error.strerror}): give the path of an ONNX file"
        ) from error
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if providers == "cuda" and not has_cuda:
        raise UsageError(
            "detector provider is 'cuda', but this onnxruntime has none: install onnxruntime-gpu, or use cpu"
        )
    wants_gpu = has_cuda and providers != "cpu"
    use = ["CUDAExecutionProvider", "CPUExecutionProvider"] if wants_gpu else ["CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # spinning threads would steal the other actors' cores
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=use)
    except Exception as error:  # onnxruntime's errors share no public base class
        raise UsageError(f"detector weights {path} are no ONNX model that onnxruntime can load: {error}") from error
    on_gpu = session.get_providers()[0] == "CUDAExecutionProvider"  # without a driver it takes the CPU, with a warning
    if providers == "cuda" and not on_gpu:
        raise UsageError("detector provider is 'cuda', but onnxruntime could not use the GPU: use cpu")

    def forward(images_NHWC: Image) -> tuple[Float, Float, Float]:
        count, height, width, _ = images_NHWC.shape
        images_NCHW = np.empty((count, 3, height, width), dtype=np.float32)
        for channel, mean in enumerate(retinaface.MEAN_BGR):  # plane by plane: five times faster than all at once
            np.subtract(images_NHWC[..., 2 - channel], mean, out=images_NCHW[:, channel])
        offsets_NA4, classes_NA2, landmarks_NA10 = session.run(None, {"input": images_NCHW})
        return offsets_NA4, classes_NA2[:, :, 1], landmarks_NA10

    return forward, hashlib.sha256(weights).hexdigest(), on_gpu
