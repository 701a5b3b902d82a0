"""Faces to one framing: five landmarks onto the model's template by a similarity transform. No torch here.

Training and serving both cut faces here, so a face looks the same to the network wherever it came from.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Image = NDArray[np.uint8]

# Median landmarks of FER2013's faces as fractions of its square: eyes, nose, mouth corners, each left one first.
FER_TEMPLATE = ((0.318, 0.391), (0.682, 0.385), (0.500, 0.599), (0.354, 0.760), (0.651, 0.760))
SHRINK_ABOVE = 2.0  # source pixels per aligned pixel from which the picture is shrunk first, or sampling would alias


def similarity_transform(landmarks_N52: Float, template_52: Float, size: int) -> Float:
    """Least-squares rotation, uniform scale and shift from each face's landmarks to the template: float32 (N, 2, 3).

    landmarks_N52: pixels. template_52: fractions of the aligned square of `size` pixels. Vectorised over faces.
    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991; in
    two dimensions the optimum without reflection is closed: with centred points as complex numbers, scale·rotation = Σ
    conj(p)·q / Σ |p|².
    Coinciding landmarks give the shift alone.
    """
    source = landmarks_N52.astype(np.float64)
    target = np.asarray(template_52, dtype=np.float64) * size
    source_mean, target_mean = source.mean(axis=1), target.mean(axis=0)
    p, q = source - source_mean[:, None], target - target_mean
    spread = np.maximum((p**2).sum(axis=(1, 2)), 1e-12)
    cosine = (p * q).sum(axis=(1, 2)) / spread
    sine = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(axis=1) / spread
    linear = np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)
    shift = target_mean - np.einsum("nij,nj->ni", linear, source_mean)
    return np.concatenate([linear, shift[..., None]], axis=-1).astype(np.float32)


def transform_points(points_NP2: Float, matrices_N23: Float) -> Float:
    """Points in picture pixels to aligned pixels: float32 (N, P, 2)."""
    moved: Float = np.einsum("nij,npj->npi", matrices_N23[:, :, :2], points_NP2) + matrices_N23[:, None, :, 2]
    return moved.astype(np.float32)


def aligned_landmarks(landmarks_N52: Float, template_52: Float, size: int) -> Float:
    """Where a face's own landmarks (pixels of its picture) lie once it is aligned: fractions of the square, float32
    (N, 5, 2). The template is where they would lie if every face had its shape."""
    matrices_N23 = similarity_transform(landmarks_N52, template_52, size)
    return (transform_points(landmarks_N52, matrices_N23) / size).astype(np.float32)


def align_faces(image: Image, landmarks_N52: Float, template_52: Float, size: int) -> Image:
    """Each face of a picture (uint8 HWC RGB) cut to the template: uint8 (N, size, size, 3).

    Coordinates are those of pixel edges (a picture spans 0 to its width), as the detector's. Beyond the picture its
    border pixels repeat.
    A face larger than twice the aligned size is shrunk by a whole factor first, by area, so that nothing aliases.
    """
    matrices_N23 = similarity_transform(landmarks_N52, template_52, size)
    faces = np.empty((len(landmarks_N52), size, size, 3), dtype=np.uint8)
    for index, matrix in enumerate(matrices_N23.astype(np.float64)):
        faces[index] = _warp(image, matrix, size)
    return faces


def _warp(image: Image, matrix: NDArray[np.float64], size: int) -> Image:
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 1e-6:  # landmarks far outside any sane face; a flat crop is better than a crash
        return np.zeros((size, size, 3), dtype=np.uint8)
    if scale * SHRINK_ABOVE <= 1:
        image, matrix = _shrink(image, matrix, size, int(1 / scale))
    return cv2.warpAffine(
        image, _pixel_centres(matrix), (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.uint8)


def _shrink(image: Image, matrix: NDArray[np.float64], size: int, factor: int) -> tuple[Image, NDArray[np.float64]]:
    """The part of the picture under the aligned square, averaged over square blocks, and the transform from there."""
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], dtype=np.float64)
    source = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(source.min(axis=0)) - factor, 0, limit - 1).astype(int)
    high = np.clip(np.ceil(source.max(axis=0)) + factor, low + 1, limit).astype(int)
    blocks = np.maximum((high - low) // factor, 1)
    high = np.minimum(low + blocks * factor, limit)
    part = image[low[1] : high[1], low[0] : high[0]]
    small = cv2.resize(part, (int(blocks[0]), int(blocks[1])), interpolation=cv2.INTER_AREA).astype(np.uint8)
    pixels = (high - low) / blocks  # source pixels per small pixel: `factor`, but for slivers at the border
    linear = matrix[:, :2] * pixels
    return small, np.concatenate([linear, (matrix[:, :2] @ low + matrix[:, 2])[:, None]], axis=1)


def _pixel_centres(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenCV puts coordinate 0 at the centre of the first pixel, we at its edge."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2].sum(axis=1) * 0.5 - 0.5
    return moved
