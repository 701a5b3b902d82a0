"""Sharpness and brightness against their definitions."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.quality import sharpness_brightness


def test_the_measures_follow_their_definitions() -> None:
    faces = np.random.default_rng(0).integers(0, 256, size=(2, 40, 40, 3), dtype=np.uint8)
    measures = sharpness_brightness(faces)
    for face, (sharpness, brightness) in zip(faces, measures, strict=True):
        grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float64)
        middle = grey[1:-1, 1:-1]
        edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
        np.testing.assert_allclose(sharpness, edges.var(), rtol=1e-4)
        np.testing.assert_allclose(brightness, (face @ [0.299, 0.587, 0.114]).mean(), atol=0.6)


def test_blur_lowers_sharpness_and_a_flat_face_has_none() -> None:
    face = np.random.default_rng(0).integers(0, 256, size=(60, 60, 3), dtype=np.uint8)
    measures = sharpness_brightness(np.stack([face, cv2.GaussianBlur(face, (5, 5), 1.5), np.full_like(face, 90)]))
    assert measures[0, 0] > 5 * measures[1, 0] > 0
    np.testing.assert_allclose(measures[2], [0, 90], atol=1e-3)
    assert sharpness_brightness(np.empty((0, 60, 60, 3), np.uint8)).shape == (0, 2)
