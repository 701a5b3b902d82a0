"""Shares of a batch: none too small to train on, and no two changed alike."""

from __future__ import annotations

import pytest
import torch

from ran_model.augment import Augmentation
from ran_model.batches import Batches, augmentation_seed, shuffled
from ran_model.config import ModelConfig
from ran_model.data import FaceSet
from ran_model.regions import region_boxes
from ran_model.train_config import TrainConfig

CONFIG = ModelConfig(input_size=32, aligned_size=32, classes=("neutral", "happiness"))


def batches(processes: int) -> Batches:
    labels = torch.arange(16) % 2
    pictures = torch.zeros(16, 1, 32, 32, dtype=torch.uint8)
    faces = FaceSet(faces_BCSS=pictures, targets_BK=torch.eye(2)[labels], labels_B=labels)
    config, device = TrainConfig(batch_size=8), torch.device("cpu")
    return Batches(faces, CONFIG, config, Augmentation(), single_pass=True, device=device, processes=processes)


def test_a_share_has_at_least_two_faces() -> None:
    assert len(batches(4).at(0).faces_BCSS) == 2
    for processes in (5, 9):
        with pytest.raises(ValueError, match=f"batch_size is 8, .* two faces for each of {processes} processes"):
            batches(processes)


def test_no_two_shares_are_changed_alike() -> None:
    seeds = {augmentation_seed(seed, step, rank) for seed in (0, 1) for step in range(50) for rank in range(300)}
    assert len(seeds) == 2 * 50 * 300
    assert [augmentation_seed(3, 5, rank) for rank in (0, 63)] == [3_000_005 * 64, 3_000_005 * 64 + 63]
    torch.Generator().manual_seed(augmentation_seed(4_000_000, 999_999, 10_000))


def test_landmark_regions_move_with_the_changed_face_and_others_stay() -> None:
    model = ModelConfig(input_size=32, aligned_size=32, regions=("whole", "nose", "left_eye"))
    landmarks = torch.rand(16, 5, 2, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.35
    boxes = torch.from_numpy(region_boxes(model, 16, landmarks_N52=landmarks.numpy()))
    labels = torch.zeros(16, dtype=torch.int64)
    faces = FaceSet(
        faces_BCSS=torch.zeros(16, 1, 32, 32, dtype=torch.uint8),
        targets_BK=torch.ones(16, 1),
        labels_B=labels,
        boxes_BR4=boxes.clone(),
        landmarks_B52=landmarks,
    )
    kept = Augmentation(rotation_deg=0, scale=0, shift=0, shear=0)  # but for mirroring
    config = TrainConfig(batch_size=16)
    given = Batches(faces, model, config, kept, single_pass=False, device=torch.device("cpu")).at(0).boxes_BR4
    order = shuffled(labels, config.class_balance, torch.Generator().manual_seed(0))
    mirrored = 0
    for box, index in zip(given, order.tolist(), strict=True):
        assert box[0].tolist() == [0, 0, 1, 1]
        own, eyes = boxes[index, 1], landmarks[index, :2]
        is_kept = torch.allclose(box[1], own, atol=1e-5)
        assert is_kept or torch.allclose(box[1], torch.stack([1 - own[2], own[1], 1 - own[0], own[3]]), atol=1e-5)
        x, y = eyes[0] if is_kept else torch.stack([1 - eyes[1, 0], eyes[1, 1]])
        assert torch.allclose(box[2], torch.stack([x - 0.2, y - 0.2, x + 0.2, y + 0.2]), atol=1e-5)
        mirrored += not is_kept
    assert 3 < mirrored < 13
    assert torch.equal(faces.boxes_BR4, boxes)  # the set's own are as they were
