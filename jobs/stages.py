"""The stages of a recipe: a teacher, the single pass that it teaches, and what is trained on from there."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from jobs.training_progress import training_progress
from pipeline.terminal import counted
from ran_model.backbones import check_trunk, has_folded_batch_norm, load_trunk, renew_batch_norm
from ran_model.batches import Batches
from ran_model.data import FaceSet
from ran_model.datasets import Listing
from ran_model.model_files import WEIGHTS_FILE
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork, ran_from_single_pass
from ran_model.pretrained import single_pass_of_model
from ran_model.recipe import Recipe
from ran_model.train import SETTINGS_FILE, train
from ran_model.train_config import TrainConfig, twin_config

RENEWED_BY = 256  # faces


def check_starts(recipe: Recipe) -> None:
    """Raises ValueError for a start that is missing or doesn't fit: to be told before hours of aligning, not after."""
    if recipe.trunk is not None:
        check_trunk(recipe.trunk, recipe.model)
    if recipe.teacher is not None and recipe.teacher.trunk is not None:
        check_trunk(recipe.teacher.trunk, recipe.teacher.model)
    if recipe.start is not None:
        single_pass_of_model(recipe.start, recipe.model)


def check_faces(recipe: Recipe, listing: Listing) -> None:
    """Raises ValueError where the model's classes have nothing to train on or to validate with, or too little for a
    batch, as `check_starts`."""
    for split, purpose in (("train", "train on"), ("validation", "validate with")):
        if not listing.of(split, recipe.model.classes):
            hint = f"; a column `split` in {recipe.labels} says which faces are for {split}" if recipe.labels else ""
            raise ValueError(f"{recipe.data} has no pictures of the model's classes to {purpose}{hint}")
    count = len(listing.of("train", recipe.model.classes))
    stages = {"single_pass": recipe.single_pass, "ran": recipe.ran}
    if recipe.teacher is not None:
        stages["teacher.train"] = recipe.teacher.train
    for name, stage in stages.items():
        if stage.epochs and stage.batch_size > count:
            raise ValueError(
                f"{name}.batch_size is {stage.batch_size}, more than there is to train on ({counted(count, 'face')}): "
                "take a smaller one"
            )


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What every stage of a recipe shares. Each keeps its checkpoint and curve in a folder of `work`.

    Random weights depend on the stage's own seed alone, so that they are the same where the stage before it was done
    already.
    """

    recipe: Recipe
    faces: FaceSet
    validation: FaceSet
    work: Path
    device: str

    def teacher(self) -> SinglePassNetwork | None:
        """Trained, and frozen."""
        plan = self.recipe.teacher
        if plan is None:
            return None
        torch.manual_seed(plan.train.seed)
        network = SinglePassNetwork(plan.model).to(self.device)
        if plan.trunk is not None:
            self._load(network, plan.trunk, plan.train)
        train(
            network,
            self.faces,
            self.validation,
            plan.train,
            self.work / "teacher",
            self.recipe.augmentation,
            progress=training_progress("teacher"),
            origin=_digest(self._faces_digest, _file(plan.trunk)),
        )
        return network.requires_grad_(False)

    def single_pass(self, teacher: SinglePassNetwork | None, folder: str = "single_pass") -> SinglePassNetwork:
        """The start of both the RAN and its twin. folder: where it keeps its checkpoint; the last stages look for it in
        the one that it has by default."""
        recipe = self.recipe
        torch.manual_seed(recipe.single_pass.seed)
        if recipe.start is not None:
            network = single_pass_of_model(recipe.start, recipe.model)
        else:
            network = SinglePassNetwork(recipe.model)
        network = network.to(self.device)
        if recipe.trunk is not None:
            self._load(network, recipe.trunk, recipe.single_pass)
        train(
            network,
            self.faces,
            self.validation,
            recipe.single_pass,
            self.work / folder,
            recipe.augmentation,
            teacher,
            progress=training_progress("single pass"),
            origin=_digest(self._faces_digest, self._start, self._settings("teacher")),
        )
        return network.eval()

    def ran(self, single: SinglePassNetwork, teacher: SinglePassNetwork | None) -> RegionAttentionNetwork:
        """The RAN, from the single pass."""
        network = ran_from_single_pass(single).to(self.device)
        self._last_stage(network, teacher, self.recipe.ran, "ran", "RAN")
        return network

    def twin(self, single: SinglePassNetwork, teacher: SinglePassNetwork | None) -> SinglePassNetwork:
        """The single pass trained on for as many steps as the RAN, by the same settings: what six passes must beat."""
        network = copy.deepcopy(single)
        self._last_stage(network, teacher, twin_config(self.recipe.ran), "twin", "twin")
        return network

    def _load(self, network: SinglePassNetwork, trunk: Path, config: TrainConfig) -> None:
        """Starts a stage from a trunk. Folded BatchNorms are renewed by pictures as the stage will train on: their
        statistics depend on size and changes."""
        load_trunk(network.trunk.backbone, trunk)
        if not has_folded_batch_norm(network.trunk.backbone):
            return
        count = min(RENEWED_BY, len(self.faces))
        batches = Batches(
            self.faces,
            network.config,
            replace(config, batch_size=count, epoch_steps=None),
            self.recipe.augmentation,
            single_pass=True,
            device=torch.device(self.device),
        )
        batch = batches.at(0)
        with torch.no_grad():
            crops_BRCII = network.trunk.crops(batch.faces_BCSS, batch.boxes_BR4)
        renew_batch_norm(network.trunk.backbone, crops_BRCII.flatten(0, 1))

    def _last_stage(
        self,
        network: RegionAttentionNetwork | SinglePassNetwork,
        teacher: SinglePassNetwork | None,
        config: TrainConfig,
        folder: str,
        name: str,
    ) -> None:
        train(
            network,
            self.faces,
            self.validation,
            config,
            self.work / folder,
            self.recipe.augmentation,
            teacher,
            progress=training_progress(name),
            origin=self.origin_of_last_stage,
        )

    @cached_property
    def origin_of_last_stage(self) -> str:
        """What it goes on from, as `train` wants to know it. To be asked for once the stages before are done."""
        return _digest(self._faces_digest, self._start, self._settings("single_pass"), self._settings("teacher"))

    @cached_property
    def _faces_digest(self) -> str:
        return self.faces.digest()

    @cached_property
    def _start(self) -> str:
        start = self.recipe.start
        return _file(self.recipe.trunk if start is None else start / WEIGHTS_FILE)

    def _settings(self, stage: str) -> str:
        """What a stage before this one was trained by, its own origin included; empty if the recipe has none."""
        path = self.work / stage / SETTINGS_FILE
        is_there = self.recipe.teacher is not None if stage == "teacher" else self.recipe.single_pass.epochs > 0
        return path.read_text() if is_there else ""


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _file(path: Path | None) -> str:
    if path is None:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
