"""What each training step sees. It depends on the seed, the step and the process alone, so that a run that goes on in
the middle of an epoch sees what an uninterrupted one would have.

B faces, C channels, S aligned side, R regions, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ran_model.augment import Augmentation, moved_landmarks
from ran_model.config import ModelConfig
from ran_model.data import FaceSet
from ran_model.regions import LANDMARKS, around
from ran_model.train_config import TrainConfig


class Batch(NamedTuple):
    """A process's share of a step, on its device. boxes_BR4: the regions to look at; B is 1 where faces share them."""

    faces_BCSS: Tensor
    targets_BK: Tensor
    boxes_BR4: Tensor


class Batches:
    """Augmented batches by step. Every epoch has an order of its own; what doesn't fill a batch is left for the next.

    single_pass: one region per face, the whole or another, so that the trunk knows both; else all regions.
    rank, processes: which share of every batch this process takes.
    Raises ValueError where the faces don't fill one batch, and where a share has less than two faces, which BatchNorm
    can't train on.
    """

    def __init__(
        self,
        faces: FaceSet,
        model: ModelConfig,
        config: TrainConfig,
        augmentation: Augmentation,
        *,
        single_pass: bool,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.steps_per_epoch = min(len(faces) // config.batch_size, config.epoch_steps or len(faces))
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"batch_size is {config.batch_size}, but there are only {len(faces)} faces to train on: take a smaller "
                "one"
            )
        self._share = config.batch_size // processes
        if self._share < 2:
            raise ValueError(
                f"batch_size is {config.batch_size}, which is less than two faces for each of {processes} processes: "
                "use a larger one, or fewer --processes"
            )
        self._faces, self._model, self._config, self._augmentation = faces, model, config, augmentation
        self._single_pass, self._device, self._rank = single_pass, device, rank
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0 over all epochs."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = Generator().manual_seed(self._config.seed * 1000 + epoch)
            self._epoch = epoch
            self._order = shuffled(self._faces.labels_B, self._config.class_balance, generator)
        begin = index * self._config.batch_size + self._rank * self._share
        faces = self._faces.take(self._order[begin : begin + self._share])
        generator = Generator(self._device).manual_seed(augmentation_seed(self._config.seed, step, self._rank))
        changed, moves = self._augmentation.with_moves(faces.faces_BCSS.to(self._device).float() / 255, generator)
        return Batch(changed, faces.targets_BK.to(self._device), self._boxes(faces, moves, generator))

    def _boxes(self, faces: FaceSet, moves_B23: Tensor, generator: Generator) -> Tensor:
        boxes_BR4 = faces.boxes(self._model)
        if faces.landmarks_B52 is not None:  # these regions move with the face; all others stay where they are
            landmarks_B52 = moved_landmarks(faces.landmarks_B52, moves_B23.cpu()).numpy()
            for index, name in enumerate(self._model.regions):
                if name in LANDMARKS:
                    centres_B2 = landmarks_B52[:, LANDMARKS.index(name)]
                    boxes_BR4[:, index] = torch.from_numpy(around(centres_B2, self._model.landmark_side))
        boxes_BR4 = boxes_BR4.to(self._device)
        regions = boxes_BR4.shape[1]
        if not self._single_pass or regions == 1:
            return boxes_BR4
        count = len(faces)
        region_B = torch.randint(1, regions, (count,), generator=generator, device=self._device)
        is_whole_B = torch.rand(count, generator=generator, device=self._device) < self._config.whole_share
        region_B[is_whole_B] = 0
        return boxes_BR4.expand(count, -1, -1)[torch.arange(count, device=self._device), region_B][:, None]


def augmentation_seed(seed: int, step: int, rank: int) -> int:
    """Of a process's share of a step; no two are alike up to a seed of 4 million. Only the 64 first ranks fit beside
    the step, and their seeds are those of models that are trained already; the others count in the bits above."""
    return (seed * 1_000_000 + step) * 64 + rank % 64 + (rank // 64 << 48)


def shuffled(labels_B: Tensor, class_balance: float, generator: Generator) -> Tensor:
    """Positions of every face once, shuffled; with class balance, as many draws with replacement."""
    if class_balance == 0:
        return torch.randperm(len(labels_B), generator=generator)
    weights_B = torch.bincount(labels_B).double()[labels_B] ** -class_balance
    return torch.multinomial(weights_B, len(labels_B), replacement=True, generator=generator)
