"""Shares of a batch: none too small to train on, and no two changed alike."""

from __future__ import annotations

import pytest
import torch

from ran_model.augment import Augmentation
from ran_model.batches import Batches, augmentation_seed
from ran_model.config import ModelConfig
from ran_model.data import FaceSet
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
