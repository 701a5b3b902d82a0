"""The first stage of `reprocess`: stored segments in, the rows of the decode stage out, without detecting again.

Pixels come from kept crops where they were aligned as the model wants them, else the frames are decoded once more and
aligned by the stored landmarks. Everything else is what is stored, so that two models have the same frames and faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, MediaError
from pipeline.extract import BLOCK_PIXEL_BYTES, extract_unit
from pipeline.extraction import FACE_COLUMNS, LANDMARK_COLUMNS, ExtractedSegment, StoredDetections
from pipeline.kept_crops import KeptCrops
from pipeline.ledger.live import UNREADABLE
from pipeline.quality import sharpness_brightness
from pipeline.segments import Segment
from pipeline.storage.store import Store
from pipeline.worker import WorkerConfig, face_region_boxes
from ran_model.config import ModelConfig


class RescoreActor:
    """Runs over plan rows with a column `stored` (`pipeline.stored`). One row per segment comes back, in order."""

    def __init__(
        self, config: WorkerConfig, deadline_s: float, store: Store, block_pixel_bytes: int = BLOCK_PIXEL_BYTES
    ) -> None:
        from pipeline.child import DecodeChild

        self._child = DecodeChild(config, deadline_s=deadline_s)  # started by the first segment that has no crops
        self._extraction = config.extraction
        self._model = ModelConfig.from_json(config.model_config)
        self._store = store
        self._crops: dict[str, KeptCrops] = {}  # of the last unit; the next one mostly goes on in the same file
        self._block_pixel_bytes = block_pixel_bytes

    def __call__(self, plan: pa.Table) -> pa.Table:
        stored = dict(zip(plan["segment_id"].to_pylist(), plan["stored"].to_pylist(), strict=True))
        crops = self._read_crops({one: row["crops"] for one, row in stored.items() if row and row["crops"]})

        def restore(segment: Segment) -> tuple[ExtractedSegment, bytes | bytearray]:
            return self._restore(segment, stored[segment.segment_id], crops)

        return extract_unit(plan.drop_columns(["stored"]), restore, self._extraction, self._block_pixel_bytes)

    def close(self) -> None:
        """Ends the child."""
        self._child.stop()

    def _restore(
        self, segment: Segment, stored: Mapping[str, Any] | None, crops: Mapping[str, bytes]
    ) -> tuple[ExtractedSegment, bytes | bytearray]:
        if segment.error is not None:
            failed = ExtractedSegment(segment_id=segment.segment_id)
            failed.fail(segment.error, partial=False, stage="probe")
            return failed, b""
        if stored is None:
            return ExtractedSegment(segment_id=segment.segment_id, covered=True), b""
        result = restored(segment, stored)
        if not stored["faces"]:
            return result, b""
        pictures = [_picture(crops.get(face["face_id"])) for face in stored["faces"]]
        faces = [picture for picture in pictures if picture is not None]
        if len(faces) < len(pictures):
            return self._decode(segment, result)
        result.region_boxes = self._region_boxes(segment, result)
        # of the aligned face, and the model whose rows are stored may have aligned another way than these crops
        result.faces["sharpness"], result.faces["brightness"] = sharpness_brightness(faces).T
        return result, b"".join(face.data for face in faces)

    def _decode(self, segment: Segment, result: ExtractedSegment) -> tuple[ExtractedSegment, bytes | bytearray]:
        found, pixels = self._child.extract(segment, detections(result))
        result.fetch_s, result.decode_s, result.detect_s = found.fetch_s, found.decode_s, found.detect_s
        if found.faces_kept != result.faces_kept:
            message = f"only {found.faces_kept} of {result.faces_kept} stored faces could be read again"
            failed = ExtractedSegment(segment_id=segment.segment_id)  # its own row: no other window may have one
            if found.error_code is None:
                failed.fail(MediaError(ErrorCode.SOURCE_CHANGED, message), partial=False)
            else:
                error = MediaError(ErrorCode(found.error_code), f"{message}: {found.error_message}")
                failed.fail(error, partial=False, stage=found.error_stage or "decode")
            return failed, b""
        result.region_boxes = found.region_boxes
        for name in ("sharpness", "brightness"):  # of the aligned face, and this model may align another way
            result.faces[name] = found.faces[name]
        return result, pixels

    def _region_boxes(self, segment: Segment, result: ExtractedSegment) -> NDArray[np.float32]:
        landmarks_N52 = np.stack([result.faces[name] for name in LANDMARK_COLUMNS], axis=1).reshape(-1, 5, 2)
        positions = result.faces["frame_position"]
        parts = [
            face_region_boxes(
                self._model,
                landmarks_N52[positions == position],
                f"{segment.source_id}-{result.ordinals[position]}-{result.frames[position]}",
            )
            for position in np.unique(positions)
        ]
        return np.concatenate(parts)

    def _read_crops(self, files: Mapping[str, str]) -> dict[str, bytes]:
        """face_id -> PNG of the segments that have crops of this alignment, each in its file, where others may lie too.
        A file that is damaged, or was compacted away meanwhile, gives none: then the source is read."""
        found: dict[str, bytes] = {}
        ids = pa.array(list(files), pa.string())
        before, self._crops = self._crops, {}
        for path in sorted(set(files.values())):
            try:
                self._crops[path] = before.get(path) or KeptCrops(self._store, path)
                found |= self._crops[path].pngs(ids)
            except UNREADABLE:
                continue
        return found


def restored(segment: Segment, stored: Mapping[str, Any]) -> ExtractedSegment:
    """The segment as it was extracted before."""
    frames = stored["frames"]
    ordinals = _ordinals(segment, stored)
    result = ExtractedSegment(
        segment_id=segment.segment_id,
        frames=frames,
        timestamps=stored["timestamps"],
        members=stored["members"] or [None] * len(frames),
        ordinals=ordinals,
        face_counts=stored["face_counts"],
        frame_errors=stored["frame_errors"] or [None] * len(frames),
        status=stored["status"],
        error_stage=stored["error_stage"],
        error_code=stored["error_code"],
        error_message=stored["error_message"],
        decoder=stored["decoder"],
    )
    faces = stored["faces"]
    position = {key: at for at, key in enumerate(zip(ordinals, frames, strict=True))}
    columns = {name: [face[name] for face in faces] for name in FACE_COLUMNS if name != "frame_position"}
    columns["frame_position"] = [position[_ordinal(face["face_id"]), face["frame"]] for face in faces]
    result.faces = {name: np.array(columns[name], dtype) for name, dtype in FACE_COLUMNS.items()}
    return result


def detections(result: ExtractedSegment) -> StoredDetections:
    """(ordinal, frame) -> boxes (N, 4), scores (N,) and landmarks (N, 5, 2) of a segment's faces."""
    faces = result.faces
    boxes_N4 = np.stack([faces[name] for name in ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight")], axis=1)
    landmarks_N52 = np.stack([faces[name] for name in LANDMARK_COLUMNS], axis=1).reshape(-1, 5, 2)
    stored: StoredDetections = {}
    for position in np.unique(faces["frame_position"]):
        of = faces["frame_position"] == position
        key = result.ordinals[position], result.frames[position]
        stored[key] = boxes_N4[of], faces["FaceScore"][of], landmarks_N52[of]
    return stored


def _ordinals(segment: Segment, stored: Mapping[str, Any]) -> list[int]:
    """Each frame's place among the entries of its archive; 0 outside archives."""
    count = len(stored["frames"])
    if not segment.members:
        return [0] * count
    if segment.kind == "video":
        return [segment.members[0].ordinal] * count
    return [member.ordinal for member in segment.members][:count]  # one frame each, in the order of the plan


def _ordinal(face_id: str) -> int:
    return int(face_id.split("-")[1])


def _picture(png: bytes | None) -> NDArray[np.uint8] | None:
    """A kept crop, RGB; None where there is none, or one that is damaged."""
    import cv2

    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB) if png else None
    return None if picture is None else np.asarray(picture, np.uint8)
