"""RetinaFace's anchors, decoding and non-maximum suppression, in numpy: the same for every backbone.

Source: Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", arXiv 1905.00641, in the
configuration of biubug6/Pytorch_Retinaface: two square anchors per cell at strides 8, 16 and 32, offsets scaled by
variances .1 and .2.
Shape suffixes: N images or faces, A anchors, 4 box, 5 landmarks, 2 x and y.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

STRIDES = (8, 16, 32)
ANCHOR_SIZES_PX = ((16, 32), (64, 128), (256, 512))
CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
MEAN_BGR = np.array([104.0, 117.0, 123.0], dtype=np.float32)


@lru_cache(maxsize=64)
def anchors(height: int, width: int) -> Float:
    """All anchors of a picture of `height` × `width` pixels: float32 (A, 3) of centre x, centre y and side, in pixels.

    Order: by stride, then row, column and size, as the network's heads flatten their maps. Read-only (it is cached).
    """
    levels = []
    for stride, sizes in zip(STRIDES, ANCHOR_SIZES_PX, strict=True):
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        y, x, side = np.meshgrid(
            (np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, np.array(sizes), indexing="ij"
        )
        levels.append(np.stack([x, y, side], axis=-1).reshape(-1, 3))
    table = np.concatenate(levels).astype(np.float32)
    table.setflags(write=False)
    return table


def decode_boxes(offsets_A4: Float, anchors_A3: Float) -> Float:
    """Box offsets to (A, 4) corners x0, y0, x1, y1 in pixels."""
    side_A1 = anchors_A3[:, 2:]
    centre_A2 = anchors_A3[:, :2] + offsets_A4[:, :2] * CENTRE_VARIANCE * side_A1
    half_A2 = side_A1 * np.exp(offsets_A4[:, 2:] * SIZE_VARIANCE) / 2
    return np.concatenate([centre_A2 - half_A2, centre_A2 + half_A2], axis=1).astype(np.float32)


def decode_landmarks(offsets_A10: Float, anchors_A3: Float) -> Float:
    """Landmark offsets to (A, 5, 2) pixels: left eye, right eye, nose, left and right mouth corner."""
    offsets_A52 = offsets_A10.reshape(-1, 5, 2)
    points: Float = anchors_A3[:, None, :2] + offsets_A52 * CENTRE_VARIANCE * anchors_A3[:, None, 2:]
    return points.astype(np.float32)


def suppress(corners_N4: Float, scores_N: Float, max_overlap: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices kept, by descending score (ties: the lower index first).

    A box goes when its intersection over union with a better kept box is above `max_overlap`. Vectorised over the rest
    for each kept box.
    """
    order = np.argsort(-scores_N, kind="stable")
    area_N = np.prod(corners_N4[:, 2:] - corners_N4[:, :2], axis=1)
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        low = np.maximum(corners_N4[best, :2], corners_N4[rest, :2])
        high = np.minimum(corners_N4[best, 2:], corners_N4[rest, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        order = rest[shared <= max_overlap * (area_N[best] + area_N[rest] - shared)]
    return np.array(kept, dtype=np.intp)


def decode(
    offsets_A4: Float,
    scores_A: Float,
    landmarks_A10: Float,
    anchors_A3: Float,
    *,
    min_score: float,
    max_overlap: float = 0.4,
) -> tuple[Float, Float, Float]:
    """One picture's raw outputs to its faces, by score: corners (N, 4), scores (N,), landmarks (N, 5, 2), in pixels."""
    likely = np.flatnonzero(scores_A >= min_score)
    corners_N4 = decode_boxes(offsets_A4[likely], anchors_A3[likely])
    scores_N = scores_A[likely].astype(np.float32)
    kept = suppress(corners_N4, scores_N, max_overlap)
    return corners_N4[kept], scores_N[kept], decode_landmarks(landmarks_A10[likely[kept]], anchors_A3[likely[kept]])
