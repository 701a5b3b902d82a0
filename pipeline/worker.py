"""The child process of a decode actor: reads a segment, detects and aligns its faces.

Decoders can loop for ever in native code, crash, or eat all memory, and no thread or signal handler can stop them.
So everything that touches foreign bytes happens here, in a process that `pipeline.child` may kill. It imports neither
Ray nor torch. Requests and answers are pickles on a pipe. Aligned faces go through it frame by frame, so that a segment
of crowds takes memory only once, in the actor.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError, StoreError, UsageError
from pipeline.extraction import FACE_COLUMNS, LANDMARK_COLUMNS, ExtractedSegment, StoredDetections
from pipeline.media.scratch import Scratch
from pipeline.media.sources import Source
from pipeline.segments import Segment

if TYPE_CHECKING:
    from pipeline.detect import Detections
    from ran_model.config import ModelConfig

#: Of a file that can't be opened: the same for every window, since the fingerprint is.
WHOLE_FILE = frozenset({ErrorCode.CORRUPT, ErrorCode.TRUNCATED, ErrorCode.UNSUPPORTED, ErrorCode.NOT_MEDIA})
DETECT_BATCH_FRAMES = 8
DETECT_BATCH_PIXELS = 16_000_000  # large frames are detected in smaller batches, so memory stays flat


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a child needs to know; sent once, when it starts.

    model_config: the canonical JSON of the model's config.json (alignment template, aligned size, regions).
    detects: whether the child needs the detector; not when all faces were found before.
    memory_limit_bytes: private memory the child may map; 0 means no limit.
    """

    extraction: Extraction
    model_config: bytes
    detector_weights: str | None = None
    decoder: str = "pyav"
    scratch_dir: str | None = None
    scratch_bytes: int = 0
    storage_options: dict[str, str] = field(default_factory=dict, repr=False)
    detects: bool = True
    threads: int = 1
    memory_limit_bytes: int = 4 << 30


def make_scratch(config: WorkerConfig) -> Scratch:
    """The node's cache of remote sources."""
    return Scratch(config.scratch_dir, capacity_bytes=config.scratch_bytes)


class SegmentExtractor:
    """Turns a segment into its frames' faces. Holds the reader, the detector and the alignment template."""

    def __init__(self, config: WorkerConfig) -> None:
        import cv2

        from pipeline.detect import load_detector
        from pipeline.media.read import SegmentReader
        from ran_model.config import ModelConfig

        cv2.setNumThreads(config.threads)
        extraction = config.extraction
        self._extraction = extraction
        self._model = ModelConfig.from_json(config.model_config)
        self._template = np.asarray(self._model.template, np.float32)
        self._reader = SegmentReader(
            scratch=make_scratch(config),
            extraction=extraction,
            storage_options=config.storage_options,
            decoder=config.decoder,
        )
        self._detector = None
        if config.detects:
            self._detector = load_detector(
                extraction.detector,
                weights=config.detector_weights,
                threads=config.threads,
                min_score=extraction.min_score,
                min_face_px=extraction.min_face_px,
                max_side_px=extraction.detect_max_side_px,
                providers="cpu",  # decode actors reserve no GPU, and there are dozens of them for each
            )
            if extraction.detector_sha256 not in ("", self._detector.weights_sha256):
                raise UsageError(f"{config.detector_weights} on this node is another file than where the run began")

    def extract(
        self,
        segment: Segment,
        emit: Callable[[NDArray[np.uint8]], None],
        started: Callable[[], None] = lambda: None,
        stored: StoredDetections | None = None,
    ) -> ExtractedSegment:
        """The segment's rows. `started` is called when its bytes are at hand.

        emit: gets the aligned faces (n, S, S, 3) of each frame that has some, in the order of the rows.
        stored: faces that were found before; then nothing is detected.
        """
        result = ExtractedSegment(segment_id=segment.segment_id)
        faces: list[dict[str, NDArray[Any]]] = []
        boxes: list[NDArray[np.float32]] = []
        try:
            try:
                frames = self._reader.read(segment)
            except MediaError as error:
                # nothing of the file can be read, which the first window that is tried says for all of them
                result.covered = segment.follows and error.code in WHOLE_FILE
                raise
            finally:
                started()
            for batch in self._batches(frames, result):
                self._detect(segment, batch, result, stored, emit, faces, boxes)
            result.beyond, result.covered = frames.beyond, frames.covered and segment.follows
            result.fetch_s, result.decode_s = frames.fetch_s, frames.decode_s
            result.decoder = frames.decoder
            if frames.error is not None:
                result.fail(frames.error, partial=bool(result.frames))
        except MediaError as error:
            result.fail(error, partial=False)
        if result.status == "ok" and any(error is not None for error in result.frame_errors):
            everything = all(error is not None for error in result.frame_errors)
            first = next(error for error in result.frame_errors if error is not None)
            code, _, message = first.partition(": ")
            result.fail(MediaError(ErrorCode(code), message), partial=not everything)
        result.region_boxes = np.concatenate(boxes) if boxes else np.empty((0, len(self._model.regions), 4), np.float32)
        result.faces = _columns(faces)
        return result

    def _batches(self, frames: Any, result: ExtractedSegment) -> Iterator[list[tuple[int, NDArray[np.uint8]]]]:
        """Groups frames for the detector and notes each sampled frame, readable or not, in `result`."""
        from pipeline.media.read import FrameError

        batch: list[tuple[int, NDArray[np.uint8]]] = []
        pixels = 0
        for frame in frames:
            position = len(result.frames)
            result.frames.append(frame.frame)
            result.timestamps.append(frame.timestamp)
            result.members.append(frame.member)
            result.ordinals.append(frame.ordinal)
            result.face_counts.append(None if isinstance(frame, FrameError) else 0)
            if isinstance(frame, FrameError):
                result.frame_errors.append(f"{frame.error.code}: {frame.error.message}")
                continue
            result.frame_errors.append(None)
            image = frame.image
            size = image.shape[0] * image.shape[1]
            if batch and (len(batch) == DETECT_BATCH_FRAMES or pixels + size > DETECT_BATCH_PIXELS):
                yield batch
                batch, pixels = [], 0
            batch.append((position, image))
            pixels += size
        if batch:
            yield batch

    def _detect(
        self,
        segment: Segment,
        batch: Sequence[tuple[int, NDArray[np.uint8]]],
        result: ExtractedSegment,
        stored: StoredDetections | None,
        emit: Callable[[NDArray[np.uint8]], None],
        faces: list[dict[str, NDArray[Any]]],
        boxes: list[NDArray[np.float32]],
    ) -> None:
        from pipeline.quality import sharpness_brightness
        from ran_model.align import align_faces

        begun = time.perf_counter()
        found = self._found(batch, result, stored)
        for (position, image), detections in zip(batch, found, strict=True):
            result.face_counts[position] = len(detections.scores_N)
            kept = min(len(detections.scores_N), self._extraction.max_faces)
            if kept == 0:
                continue
            boxes_N4, landmarks_N52 = detections.boxes_N4[:kept], detections.landmarks_N52[:kept]
            pixels = align_faces(image, landmarks_N52, self._template, self._model.aligned_size)
            height, width = image.shape[:2]
            rows: dict[str, NDArray[Any]] = {
                "frame_position": np.full(kept, position),
                "face": np.arange(kept),
                "FaceScore": detections.scores_N[:kept],
                "frame_width": np.full(kept, width),
                "frame_height": np.full(kept, height),
            }
            rows |= dict(zip(("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"), boxes_N4.T, strict=True))
            rows |= dict(zip(LANDMARK_COLUMNS, landmarks_N52.reshape(kept, 10).T, strict=True))
            rows |= dict(zip(("sharpness", "brightness"), sharpness_brightness(pixels).T, strict=True))
            frame = f"{segment.source_id}-{result.ordinals[position]}-{result.frames[position]}"
            boxes.append(face_region_boxes(self._model, landmarks_N52, frame))
            faces.append(rows)
            emit(pixels)
        result.detect_s += time.perf_counter() - begun

    def _found(
        self,
        batch: Sequence[tuple[int, NDArray[np.uint8]]],
        result: ExtractedSegment,
        stored: StoredDetections | None,
    ) -> list[Detections]:
        from pipeline.detect import Detections

        if stored is None:
            assert self._detector is not None, "a worker that does not detect was asked to"
            return self._detector.detect([image for _, image in batch])
        nothing = np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32)
        keys = [(result.ordinals[position], result.frames[position]) for position, _ in batch]
        return [
            Detections(boxes_N4=boxes, scores_N=scores, landmarks_N52=landmarks)
            for boxes, scores, landmarks in (stored.get(key, nothing) for key in keys)
        ]


def face_region_boxes(model: ModelConfig, landmarks_N52: NDArray[np.float32], frame: str) -> NDArray[np.float32]:
    """Boxes (N, R, 4) of one frame's faces: decided here, where landmarks are; cut where pixels are consumed.

    frame: `<source_id>-<member ordinal>-<frame>`, which seeds random regions.
    """
    from ran_model.align import aligned_landmarks
    from ran_model.regions import region_boxes

    return region_boxes(
        model,
        len(landmarks_N52),
        landmarks_N52=aligned_landmarks(landmarks_N52, np.asarray(model.template, np.float32), model.aligned_size),
        face_ids=[f"{frame}-{face}" for face in range(len(landmarks_N52))],
    )


def _columns(parts: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """FACE_COLUMNS of a segment's faces. Head pose joins here: all faces at once cost little more than one."""
    from pipeline.headpose import head_pose

    if not parts:
        return {name: np.empty(0, dtype) for name, dtype in FACE_COLUMNS.items()}
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    landmarks_N52 = np.stack([columns[name] for name in LANDMARK_COLUMNS], axis=1).reshape(-1, 5, 2)
    columns |= dict(zip(("Pitch", "Roll", "Yaw"), head_pose(landmarks_N52).T, strict=True))
    return {name: columns[name].astype(dtype) for name, dtype in FACE_COLUMNS.items()}


def _die_with_parent() -> None:
    """Linux: be killed when the actor is, so that a looping decoder never outlives it."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    """Serves requests on an inherited pipe, whose file descriptor is the only argument, until it closes."""
    pipe = Connection(int(sys.argv[1]))
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    config, warm = pipe.recv()
    if config.memory_limit_bytes:
        limit = config.memory_limit_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    server = _Server(config, warm)
    pipe.send(("ready", None))
    with contextlib.suppress(EOFError):
        while True:
            server.serve(pipe, pipe.recv())


class _Server:
    def __init__(self, config: WorkerConfig, warm: bool) -> None:
        self._config = config
        # probing alone needs no detector
        self._extractor = SegmentExtractor(config) if warm else None

    def serve(self, pipe: Connection, request: Source | tuple[Segment, StoredDetections | None]) -> None:
        try:
            if isinstance(request, Source):
                pipe.send(("done", self._probe(request)))
                return
            if self._extractor is None:
                self._extractor = SegmentExtractor(self._config)
            segment, stored = request
            result = self._extractor.extract(
                segment,
                emit=lambda faces: pipe.send(("faces", faces.tobytes())),
                started=lambda: pipe.send(("started", None)),
                stored=stored,
            )
        except StoreError as error:
            pipe.send(("store_failed", str(error)))
            return
        except MemoryError:
            pipe.send(("out_of_memory", None))
            os._exit(3)  # what is left of the heap can't be trusted
        pipe.send(("done", result))

    def _probe(self, source: Source) -> dict[str, Any]:
        from pipeline.media.probe import probe_source

        config = self._config
        return probe_source(
            source,
            scratch=make_scratch(config),
            storage_options=config.storage_options,
            extraction=config.extraction,
        )


if __name__ == "__main__":
    main()
