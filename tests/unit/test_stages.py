"""A recipe's stages: each goes on from its own checkpoint, and from none that other stages came before."""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from jobs.stages import Stages
from ran_model.backbones import build_backbone, load_trunk
from ran_model.batches import Batches
from ran_model.config import ModelConfig
from ran_model.data import FaceSet
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork
from ran_model.recipe import Recipe, Teacher
from ran_model.train_config import TrainConfig
from tests.conftest import save_tiny_model

SMALL = ModelConfig(name="tiny", input_size=32, aligned_size=48)
SHORT = TrainConfig(optimizer="adamw", epochs=1, batch_size=8, learning_rate=1e-3, bf16=False)
OTHER = replace(SHORT, learning_rate=2e-3)
REFUSED = "has a checkpoint of other settings, data, start or teacher"


def some_faces(seed: int, count: int = 8) -> FaceSet:
    labels, random = torch.arange(count) % 8, torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 48, 48), dtype=torch.uint8, generator=random)
    return FaceSet(faces_BCSS=pixels, targets_BK=torch.eye(8)[labels], labels_B=labels)


def trained(stages: Stages) -> RegionAttentionNetwork:
    torch.manual_seed(0)
    teacher = stages.teacher()
    single = stages.single_pass(teacher)
    stages.twin(single, teacher)
    return stages.ran(single, teacher)


def stages_of(folder: Path) -> Stages:
    """Those of a recipe with a teacher and a start."""
    recipe = Recipe(
        data=folder / "faces",
        model=SMALL,
        start=folder / "start",
        teacher=Teacher(model=SMALL, train=SHORT),
        single_pass=SHORT,
        ran=SHORT,
    )
    faces = some_faces(0)
    return Stages(recipe=recipe, faces=faces, validation=faces, work=folder / "work", device="cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where they are trained."""
    folder = tmp_path_factory.mktemp("stages")
    save_tiny_model(folder / "start", seed=1)
    trained(stages_of(folder))
    return folder


@pytest.fixture
def stages(done: Path, tmp_path: Path) -> Stages:
    """Trained, in a folder of the test's own."""
    shutil.copytree(done, tmp_path, copy_function=link_weights, dirs_exist_ok=True)
    return stages_of(tmp_path)


def link_weights(source: str, target: str) -> None:
    """Weights are large, and new ones never overwrite a file but take its name; what else there is may be added to."""
    if source.endswith(".safetensors"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def folded_trunk(path: Path) -> Path:
    """A trunk as a packager leaves it who folds BatchNorms into weights and biases."""
    torch.manual_seed(2)
    backbone, _ = build_backbone("resnet18", 1)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    safetensors.torch.save_file(backbone.state_dict(), path)
    return path


@pytest.mark.parametrize("who", ["teacher", "single pass"])
def test_a_folded_start_answers_in_its_first_step_as_it_did(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is renewed by what the stage trains on: changed faces, their regions, and the size that the network sees."""
    model = replace(SMALL, input_size=96)
    trunk, faces = folded_trunk(tmp_path / "trunk.safetensors"), some_faces(0, count=64)
    teacher = Teacher(model=model, train=SHORT, trunk=trunk) if who == "teacher" else None
    recipe = Recipe(data=tmp_path, model=model, trunk=trunk, teacher=teacher, single_pass=SHORT, ran=SHORT)
    stages = Stages(recipe=recipe, faces=faces, validation=faces, work=tmp_path, device="cpu")
    starts: list[SinglePassNetwork] = []
    monkeypatch.setattr("jobs.stages.train", lambda network, *_, **__: starts.append(copy.deepcopy(network)))
    stages.teacher() if who == "teacher" else stages.single_pass(None)
    plain = SinglePassNetwork(model)
    load_trunk(plain.trunk.backbone, trunk)
    batch = Batches(
        faces, model, replace(SHORT, batch_size=64, seed=9), recipe.augmentation,
        single_pass=True, device=torch.device("cpu"),
    ).at(0)  # fmt: skip
    with torch.no_grad():
        expected = plain.eval().trunk(batch.faces_BCSS, batch.boxes_BR4)
        features = starts[0].train().trunk(batch.faces_BCSS, batch.boxes_BR4)
    likeness = F.cosine_similarity(features - expected.mean(0), expected - expected.mean(0), dim=-1).mean()
    assert likeness > 0.95


def test_the_same_recipe_goes_on_where_it_was(stages: Stages) -> None:
    written = {path: path.stat().st_mtime_ns for path in stages.work.rglob("*.safetensors")}
    assert {path.parent.name for path in written} == {"teacher", "single_pass", "ran", "twin"}
    again = trained(replace(stages)).state_dict()
    for name, tensor in trained(replace(stages, work=stages.work.with_name("anew"))).state_dict().items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0)
    assert {path: path.stat().st_mtime_ns for path in stages.work.rglob("*.safetensors")} == written


def test_other_faces_are_refused_by_the_first_stage(stages: Stages) -> None:
    other = replace(stages, faces=some_faces(1))
    with pytest.raises(ValueError, match=rf"work/teacher {REFUSED}"):
        trained(other)
    shutil.rmtree(stages.work / "teacher")
    with pytest.raises(ValueError, match=rf"work/single_pass {REFUSED}"):
        trained(other)


def test_another_start_is_refused_by_what_started_there(stages: Stages) -> None:
    assert stages.recipe.start is not None
    save_tiny_model(stages.recipe.start, seed=2)
    with pytest.raises(ValueError, match=rf"work/single_pass {REFUSED}"):
        trained(replace(stages))


def test_another_teacher_is_refused_by_what_it_would_teach(stages: Stages) -> None:
    assert stages.recipe.teacher is not None
    teacher = replace(stages.recipe.teacher, train=OTHER)
    shutil.rmtree(stages.work / "teacher")
    with pytest.raises(ValueError, match=rf"work/single_pass {REFUSED}"):
        trained(replace(stages, recipe=replace(stages.recipe, teacher=teacher)))


@pytest.mark.parametrize("last", ["ran", "twin"])
def test_another_single_pass_is_refused_by_the_last_stage(stages: Stages, last: str) -> None:
    shutil.rmtree(stages.work / "single_pass")
    shutil.rmtree(stages.work / ({"ran", "twin"} - {last}).pop())
    with pytest.raises(ValueError, match=rf"work/{last} {REFUSED}"):
        trained(replace(stages, recipe=replace(stages.recipe, single_pass=OTHER)))


def test_random_weights_do_not_depend_on_when_the_teacher_was_trained(tmp_path: Path) -> None:
    """A command that was killed once the teacher was done goes on to the very same student."""
    teacher = Teacher(model=SMALL, train=SHORT)
    recipe = Recipe(data=tmp_path, model=SMALL, teacher=teacher, single_pass=SHORT, ran=SHORT)
    faces, students = some_faces(0), []
    for _ in range(2):  # the second time the teacher is there
        stages = Stages(recipe=recipe, faces=faces, validation=faces, work=tmp_path / "work", device="cpu")
        students.append(stages.single_pass(stages.teacher()).state_dict())
        shutil.rmtree(tmp_path / "work" / "single_pass")
    for name, tensor in students[0].items():
        torch.testing.assert_close(students[1][name], tensor, rtol=0, atol=0)
