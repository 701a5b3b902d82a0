"""What decoding, detecting and aligning one segment gives: the row between the decode and the RAN stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MediaError

#: One entry per face. `frame_position` indexes the segment's `frames`; the other names are columns of `faces`.
FACE_COLUMNS: dict[str, type] = {
    "frame_position": np.int32,
    "face": np.int16,
    "FaceRectX": np.float32,
    "FaceRectY": np.float32,
    "FaceRectWidth": np.float32,
    "FaceRectHeight": np.float32,
    "FaceScore": np.float32,
    **{
        f"landmark_{point}_{axis}": np.float32
        for point in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
        for axis in "xy"
    },
    "frame_width": np.int32,
    "frame_height": np.int32,
    "Pitch": np.float32,
    "Roll": np.float32,
    "Yaw": np.float32,
    "sharpness": np.float32,
    "brightness": np.float32,
}


LANDMARK_COLUMNS = [name for name in FACE_COLUMNS if name.startswith("landmark_")]

#: (ordinal, frame) -> boxes (N, 4), scores (N,) and landmarks (N, 5, 2) that were found in it before.
StoredDetections = dict[tuple[int, int], tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]


@dataclass(kw_only=True)
class ExtractedSegment:
    """One segment after the child process: its sampled frames and, in `faces`, one entry per kept face.

    frames, timestamps (s), members, ordinals, face_counts and frame_errors have one entry per sampled frame.
    region_boxes: (N, R, 4) fractions of the aligned square.
    beyond: how many windows follow this last planned one of a video. covered: an earlier window has this one's error.
    """

    segment_id: str
    frames: list[int] = field(default_factory=list)
    timestamps: list[float | None] = field(default_factory=list)
    members: list[str | None] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    face_counts: list[int | None] = field(default_factory=list)
    frame_errors: list[str | None] = field(default_factory=list)
    faces: dict[str, NDArray[Any]] = field(
        default_factory=lambda: {name: np.empty(0, dtype) for name, dtype in FACE_COLUMNS.items()}
    )
    region_boxes: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, 4), np.float32))
    status: str = "ok"
    error_stage: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    beyond: int = 0
    covered: bool = False
    decoder: str | None = None
    fetch_s: float = 0.0
    decode_s: float = 0.0
    detect_s: float = 0.0

    @property
    def faces_kept(self) -> int:
        """Faces with a row; `sum(face_counts)` says how many were found."""
        return len(self.faces["face"])

    def fail(self, error: MediaError, *, partial: bool, stage: str = "decode") -> None:
        """Marks the segment as failed; `partial` when frames before the error are good data."""
        self.status = "partial" if partial else "error"
        self.error_stage, self.error_code, self.error_message = stage, str(error.code), error.message
