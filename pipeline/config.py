"""What a run is made of, validated once at the border: the extraction (identity) and the execution (speed)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from pipeline.errors import UsageError

DEFAULT_DETECTOR = "retinaface-mobilenet0.25"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Everything before the model. A dataset has exactly one, because it decides which rows exist.

    fps: sampling rate in frames per second of presentation time, as an exact fraction ("5", "30000/1001"), or "all".
    segment_frames: the most sampled frames in one segment; the unit of recovery and of memory.
    detector, detector_sha256: which face detector, and the sha256 of its weights.
    min_score: detections below this score (0-1) are dropped.
    min_face_px: faces whose box is narrower or lower than this, in pixels of the upright frame, are dropped.
    max_faces: the most faces kept per frame, by descending score.
    detect_max_side_px: frames are shrunk for detection (only) until their longer side is at most this.
    max_pixels: pictures and frames with more pixels than this are refused before decoding.
    grid_version: 2: points of the sampling grid begin at whole ticks of a container's clock; 1: at their exact times,
    in datasets that were begun before. A dataset keeps its own.
    """

    fps: str = "5"
    segment_frames: int = 32
    detector: str = DEFAULT_DETECTOR
    detector_sha256: str = ""
    min_score: float = 0.6
    min_face_px: int = 24
    max_faces: int = 64
    detect_max_side_px: int = 960
    max_pixels: int = 100_000_000
    grid_version: int = 2

    def __post_init__(self) -> None:
        if self.fps != "all":
            try:
                rate = Fraction(self.fps)
            except (ValueError, ZeroDivisionError):
                raise UsageError(f"fps is {self.fps!r}: give frames per second (5, 0.5, 30000/1001) or 'all'") from None
            if not 0 < rate <= 1000:
                raise UsageError(f"fps is {self.fps}: it must be above 0 and at most 1000, or 'all'")
            object.__setattr__(self, "fps", str(rate))  # 5, 5.0 and 10/2 are one extraction
        _between("segment_frames", self.segment_frames, 1, 4096)
        _between("min_score", self.min_score, 0.0, 1.0)
        _between("min_face_px", self.min_face_px, 1, 100_000)
        _between("max_faces", self.max_faces, 1, 10_000)
        _between("detect_max_side_px", self.detect_max_side_px, 64, 16_384)
        _between("max_pixels", self.max_pixels, 1, 2**31)
        _between("grid_version", self.grid_version, 1, 2)

    @property
    def rate(self) -> Fraction | None:
        """Grid points per second, or None when every frame is taken."""
        return None if self.fps == "all" else Fraction(self.fps)

    def to_json(self) -> dict[str, Any]:
        """The extraction as dataset.json stores it."""
        values = asdict(self)
        if self.grid_version == 1:
            del values["grid_version"]  # segments keep the ids that they had before there was another
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Extraction:
        """The extraction of a dataset.json, which may be older than some fields. Raises TypeError for unknown ones."""
        return cls(**{"grid_version": 1, **values})

    @property
    def id(self) -> str:
        """16 hex over the canonical JSON; part of every segment's identity."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}: it must be between {low} and {high}")
