"""Where a face's regions lie: boxes as fractions x0, y0, x1, y1 of the aligned square. `ran_model.crops` cuts them.

Sources: the six boxes and the eight of AffectNet are those of the authors' released code (Wang et al., TIP 2020). Their
"random" is squares with a side uniform in .70-.95; "landmark" a square around each of five landmarks, whose side the
paper leaves open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ran_model.config import FIXED_REGIONS, ModelConfig

Float = NDArray[np.float32]

BOXES = {
    "whole": (0.0, 0.0, 1.0, 1.0),
    "top_left": (0.0, 0.0, 0.75, 0.75),
    "top_right": (0.25, 0.0, 1.0, 0.75),
    "center_down": (0.125, 0.25, 0.875, 1.0),
    "center_90": (0.05, 0.05, 0.95, 0.95),
    "center_85": (0.075, 0.075, 0.925, 0.925),
    "center_80": (0.1, 0.1, 0.9, 0.9),
    "center_75": (0.125, 0.125, 0.875, 0.875),
    "center_top": (0.125, 0.0, 0.875, 0.75),
}
LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
STRATEGIES = {
    "fixed": FIXED_REGIONS,
    "affectnet": ("whole", "center_down", "top_left", "top_right", "center_90", "center_80", "center_75", "center_top"),
    "landmark": ("whole", *LANDMARKS),
    "random": ("whole", "random_1", "random_2", "random_3", "random_4", "random_5"),
}
RANDOM_SIDES = (0.70, 0.95)


def region_boxes(
    config: ModelConfig, count: int, *, landmarks_N52: Float | None = None, face_ids: Sequence[str] | None = None
) -> Float:
    """Boxes of `count` faces: float32 (N, R, 4).

    landmarks_N52: fractions of the aligned square; landmark regions follow them, or the template where it is None.
    face_ids: seed random regions, so that a face keeps its boxes whoever computes them; needed only for those.
    Raises ValueError for a region that has no box.
    """
    boxes_NR4 = np.empty((count, len(config.regions), 4), dtype=np.float32)
    for index, name in enumerate(config.regions):
        if name in BOXES:
            boxes_NR4[:, index] = BOXES[name]
        elif name in LANDMARKS:
            if landmarks_N52 is None:
                landmarks_N52 = np.broadcast_to(np.array(config.template, dtype=np.float32), (count, 5, 2))
            boxes_NR4[:, index] = around(landmarks_N52[:, LANDMARKS.index(name)], config.landmark_side)
        elif name.startswith("random_"):
            if face_ids is None:
                raise ValueError(f"region {name!r} is random: face_ids must seed it")
            boxes_NR4[:, index] = np.array([_random(f"{face}/{name}") for face in face_ids]).reshape(-1, 4)
        else:
            raise ValueError(f"region is {name!r}: it must be random_<n> or one of {', '.join((*BOXES, *LANDMARKS))}")
    return boxes_NR4


def around(centres_N2: Float, side: float) -> Float:
    """Squares around points, moved (not shrunk) to lie within the face: float32 (N, 4)."""
    low_N2 = np.clip(centres_N2 - side / 2, 0, 1 - side)
    return np.concatenate([low_N2, low_N2 + side], axis=1).astype(np.float32)


def _random(seed: str) -> tuple[float, float, float, float]:
    digest = hashlib.sha256(seed.encode()).digest()
    a, b, c = (int.from_bytes(digest[4 * i : 4 * i + 4], "little") / 2**32 for i in range(3))
    side = RANDOM_SIDES[0] + a * (RANDOM_SIDES[1] - RANDOM_SIDES[0])
    x, y = b * (1 - side), c * (1 - side)
    return x, y, x + side, y + side
