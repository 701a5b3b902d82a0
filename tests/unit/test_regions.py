"""Region boxes: the published fractions, landmark squares, seeded random squares."""

from __future__ import annotations

import numpy as np
import pytest

from ran_model.config import ModelConfig
from ran_model.regions import STRATEGIES, region_boxes


def test_the_six_fixed_boxes_are_the_authors() -> None:
    boxes = region_boxes(ModelConfig(), 3)
    assert boxes.shape == (3, 6, 4)
    expected = [
        (0, 0, 1, 1),
        (0, 0, 0.75, 0.75),
        (0.25, 0, 1, 0.75),
        (0.125, 0.25, 0.875, 1),
        (0.05, 0.05, 0.95, 0.95),
        (0.075, 0.075, 0.925, 0.925),
    ]
    np.testing.assert_allclose(boxes[2], np.array(expected, dtype=np.float32))


def test_the_affectnet_strategy_has_eight_regions_and_begins_with_the_whole() -> None:
    config = ModelConfig(regions=STRATEGIES["affectnet"])
    boxes = region_boxes(config, 1)
    assert boxes.shape == (1, 8, 4)
    np.testing.assert_allclose(boxes[0, config.regions.index("center_top")], [0.125, 0, 0.875, 0.75])
    np.testing.assert_allclose(boxes[0, config.regions.index("center_80")], [0.1, 0.1, 0.9, 0.9])


def test_landmark_regions_are_squares_around_each_faces_landmarks_inside_the_face() -> None:
    config = ModelConfig(regions=STRATEGIES["landmark"], landmark_side=0.4)
    landmarks = np.random.default_rng(0).uniform(0, 1, size=(20, 5, 2)).astype(np.float32)
    boxes = region_boxes(config, 20, landmarks_N52=landmarks)[:, 1:]
    np.testing.assert_allclose(boxes[..., 2:] - boxes[..., :2], 0.4, atol=1e-6)
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-6
    inside = ((landmarks > 0.2) & (landmarks < 0.8)).all(axis=-1)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    np.testing.assert_allclose(centres[inside], landmarks[inside], atol=1e-6)


def test_random_regions_belong_to_the_face_and_not_to_its_neighbours() -> None:
    config = ModelConfig(regions=STRATEGIES["random"])
    alone = region_boxes(config, 1, face_ids=["a-0-3-1"])
    among = region_boxes(config, 2, face_ids=["a-0-3-0", "a-0-3-1"])
    np.testing.assert_array_equal(alone[0], among[1])
    assert (among[0, 1:] != among[1, 1:]).any()
    sides = among[:, 1:, 2:] - among[:, 1:, :2]
    assert sides.min() >= 0.7 - 1e-6
    assert sides.max() <= 0.95 + 1e-6
    assert among.min() >= 0
    assert among.max() <= 1


def test_no_face_gives_no_boxes() -> None:
    assert region_boxes(ModelConfig(), 0).shape == (0, 6, 4)
    assert region_boxes(ModelConfig(regions=STRATEGIES["random"]), 0, face_ids=[]).shape == (0, 6, 4)


def test_what_has_no_box_is_named() -> None:
    with pytest.raises(ValueError, match="'left_ear'"):
        region_boxes(ModelConfig(regions=("whole", "left_ear")), 1)
    with pytest.raises(ValueError, match="face_ids"):
        region_boxes(ModelConfig(regions=STRATEGIES["random"]), 1)
