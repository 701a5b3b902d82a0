"""Head pose: known rotations of the mean face come back, with their signs."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.headpose import FACE_MM, head_pose, rotation
from ran_model.align import FER_TEMPLATE


def project(pitch: np.ndarray, roll: np.ndarray, yaw: np.ndarray, camera_mm: float | None = None) -> np.ndarray:
    turned = np.einsum("nij,pj->npi", rotation(*np.radians([pitch, roll, yaw])), FACE_MM)
    depth = 1.0 if camera_mm is None else camera_mm / (camera_mm + turned[..., 2:])
    return (turned[..., :2] * depth * 1.7 + [320, 180]).astype(np.float32)


def test_known_angles_come_back() -> None:
    random = np.random.default_rng(0)
    angles = random.uniform([-40, -170, -60], [40, 170, 60], size=(200, 3)).T
    np.testing.assert_allclose(head_pose(project(*angles)), angles.T, atol=0.05)


def test_a_near_camera_and_noisy_landmarks_cost_degrees_not_tens() -> None:
    random = np.random.default_rng(0)
    angles = random.uniform([-30, -30, -45], [30, 30, 45], size=(300, 3)).T
    points = project(*angles, camera_mm=600)
    noisy = points + random.normal(0, 0.02 * 62 * 1.7, size=points.shape).astype(np.float32)
    error = np.abs(head_pose(noisy) - angles.T)
    assert error.mean(axis=0).max() < 4
    assert error.max() < 15


@pytest.mark.parametrize(
    ("landmark_shift", "index", "sign"),
    [
        ([[0, 0], [0, 0], [8, 0], [0, 0], [0, 0]], 2, 1),  # the nose to the right of the picture: yaw > 0
        ([[0, 0], [0, 0], [0, 8], [0, 0], [0, 0]], 0, 1),  # the nose lower: looks down, pitch > 0
        ([[6, -5], [6, 5], [0, 0], [-6, -4], [-6, 4]], 1, 1),  # right side lower, mouth left: leans clockwise, roll > 0
    ],
)
def test_signs(landmark_shift: list[list[float]], index: int, sign: int) -> None:
    frontal = FACE_MM[:, :2]
    angles = head_pose((frontal + landmark_shift)[None].astype(np.float32))[0]
    assert angles[index] * sign > 5
    assert np.abs(angles).argmax() == index


@pytest.mark.parametrize(("proportions", "axis", "index"), [([1.0, 0.82], 1, 0), ([0.82, 1.0], 0, 2)])
def test_a_face_of_other_proportions_is_not_taken_for_a_turned_one(
    proportions: list[float], axis: int, index: int
) -> None:
    """Shorter, as a smile makes it, or narrower: the nose still decides, and two millimetres of it cost degrees."""
    faces = np.repeat(FACE_MM[None, :, :2] * proportions, 3, axis=0)
    faces[:, 2, axis] += [-2, 0, 2]
    angles = head_pose(faces.astype(np.float32))
    assert np.abs(angles[:, index]).max() < 8
    assert (np.diff(angles[:, index]) > 0).all()


def test_the_median_face_looks_straight_ahead() -> None:
    assert np.abs(head_pose(np.array([FER_TEMPLATE], dtype=np.float32) * 96)).max() < 1.5


def test_coinciding_landmarks_have_no_pose_and_spoil_no_neighbour() -> None:
    points = np.stack([FACE_MM[:, :2], np.zeros((5, 2))]).astype(np.float32)
    angles = head_pose(points)
    assert np.isnan(angles[1]).all()
    np.testing.assert_allclose(angles[0], 0, atol=0.05)
    assert head_pose(np.empty((0, 5, 2), np.float32)).shape == (0, 3)
