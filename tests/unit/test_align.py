"""Alignment: the transform against an independent solution, pixels against what they must be, a real face upright."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detect import load_detector
from ran_model.align import FER_TEMPLATE, align_faces, similarity_transform, transform_points

TEMPLATE = np.array(FER_TEMPLATE, dtype=np.float32)
ASTRONAUT = Path(__file__).parents[2] / "examples" / "media" / "astronaut.png"


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The general method of the 1991 paper, by singular value decomposition."""
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - mean_t).T @ (source - mean_s) / len(source)
    u, d, vt = np.linalg.svd(covariance)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / (source - mean_s).var(axis=0).sum()
    return np.column_stack([scale * rotation, mean_t - scale * rotation @ mean_s])


def test_the_transform_is_umeyamas() -> None:
    random = np.random.default_rng(0)
    faces = (TEMPLATE * 80 + random.normal(0, 6, size=(12, 5, 2)) + 300).astype(np.float32)
    ours = similarity_transform(faces, TEMPLATE, 96)
    for face, matrix in zip(faces, ours, strict=True):
        np.testing.assert_allclose(matrix, umeyama(face.astype(np.float64), TEMPLATE * 96.0), rtol=1e-3, atol=2e-3)


@settings(deadline=None)
@given(
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.1, 20),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_a_moved_template_comes_back(angle: float, scale: float, x: float, y: float) -> None:
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (TEMPLATE * 96 @ rotation.T * scale + [x, y])[None].astype(np.float32)
    back = transform_points(moved, similarity_transform(moved, TEMPLATE, 96))
    np.testing.assert_allclose(back[0], TEMPLATE * 96, atol=0.02)


def test_landmarks_on_the_template_leave_the_picture_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, size=(96, 96, 3), dtype=np.uint8)
    aligned = align_faces(picture, TEMPLATE[None] * 96, TEMPLATE, 96)
    np.testing.assert_array_equal(aligned[0], picture)


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_a_large_face_is_averaged_not_skipped(factor: int) -> None:
    """Stripes one pixel wide must turn grey; sampling every factor-th pixel would show stripes or a flat extreme."""
    side = 96 * factor
    stripes = np.zeros((side, side, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    aligned = align_faces(stripes, TEMPLATE[None] * side, TEMPLATE, 96)[0]
    slack = 127.5 / factor + 1  # a block of an odd width holds one stripe more of one kind
    assert abs(aligned.astype(float) - 127.5).max() <= slack


@pytest.mark.parametrize("factor", [0.5, 1.3, 2.0, 3.7, 9.1])
def test_a_slope_keeps_its_place_at_every_size(factor: float) -> None:
    """A linear ramp resampled is the same ramp: any shift by half a pixel would show."""
    side = round(96 * factor)
    ramp = np.repeat(((np.arange(side) + 0.5) / side * 255)[None, :], side, axis=0)
    picture = np.repeat(np.rint(ramp).astype(np.uint8)[..., None], 3, axis=2)
    aligned = align_faces(picture, TEMPLATE[None] * side, TEMPLATE, 96)[0, 48, 4:-4, 0].astype(float)
    expected = ((np.arange(96) + 0.5) / 96 * 255)[4:-4]
    np.testing.assert_allclose(aligned, expected, atol=2.1)


def test_beyond_the_picture_its_border_repeats() -> None:
    picture = np.full((60, 60, 3), 200, dtype=np.uint8)
    aligned = align_faces(picture, TEMPLATE[None] * 96 - 50, TEMPLATE, 96)
    assert (aligned == 200).all()


@pytest.mark.parametrize("size", [96, 224])
def test_degenerate_landmarks_give_a_picture_anyway(size: int) -> None:
    picture = np.full((60, 60, 3), 200, dtype=np.uint8)
    landmarks = np.stack([np.full((5, 2), 30.0), np.full((5, 2), 1e6), TEMPLATE * 1e7]).astype(np.float32)
    assert align_faces(picture, landmarks, TEMPLATE, size).shape == (3, size, size, 3)


@pytest.mark.parametrize("angle", [-25, 15, 30])
def test_a_turned_picture_gives_the_same_aligned_face(angle: float) -> None:
    picture = np.ascontiguousarray(cv2.imread(str(ASTRONAUT))[:, :, ::-1])
    turn = cv2.getRotationMatrix2D((225, 115), angle, 1.0)
    turned = cv2.warpAffine(picture, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    straight, rotated = (one.landmarks_N52[:1] for one in load_detector().detect([picture, turned]))
    moved = transform_points(straight, turn[None].astype(np.float32))
    assert np.hypot(*(rotated - moved)[0].T).max() < 10  # the detector's own error; the face is 95 px wide
    face = align_faces(picture, straight, TEMPLATE, 96)[0].astype(float)
    middle = slice(16, 80)
    for landmarks, likeness in ((moved, 0.99), (rotated, 0.8)):
        again = align_faces(turned, landmarks, TEMPLATE, 96)[0].astype(float)
        assert np.corrcoef(face[middle, middle].ravel(), again[middle, middle].ravel())[0, 1] > likeness
    off = transform_points(straight, similarity_transform(straight, TEMPLATE, 96))[0] - TEMPLATE * 96
    assert np.hypot(*off.T).max() < 6  # her face is not the median one
