"""`ran-pipeline convert` as a user runs it: a model that loads, a trunk that starts training, one line for mistakes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from ran_model.backbones import build_backbone, load_trunk
from ran_model.pretrained import load_model
from ran_model.regions import region_boxes
from tests.conftest import run_cli, run_cli_here


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' names, as DataParallel saves them."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = dict(torchvision.models.resnet18(weights=None).state_dict())
    for layer, outputs, inputs in (("alpha.0", 1, 512), ("beta.0", 1, 1024), ("fc", 8, 1024)):
        state |= {f"{layer}.weight": torch.randn(outputs, inputs) / 10, f"{layer}.bias": torch.zeros(outputs)}
    path = tmp_path_factory.mktemp("checkpoint") / "model_best.pth.tar"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    return path


def test_a_checkpoint_becomes_a_model_that_answers(checkpoint: Path, tmp_path: Path) -> None:
    done = run_cli("convert", checkpoint, "-o", tmp_path / "model", "--colour", "grey", "--input-size", "64")
    assert done.returncode == 0, done.stderr
    assert "region attention network of the RAN authors, resnet18, 8 classes" in done.stdout
    assert "assumed: FERPlus order" in done.stdout
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    model = load_model(tmp_path / "model")
    assert f"model_id: {model.model_id}" in done.stdout
    assert (model.config.colour, model.config.input_size, model.config.attention_norm) == ("grey", 64, "authors")
    face = np.zeros((1, 224, 224, 3), np.uint8)
    probabilities, _, attention = model.predict(face, region_boxes(model.config, 1))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert attention.shape == (1, 6)

    again = run_cli("convert", checkpoint, "-o", tmp_path / "model")
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_json_tells_what_was_recognised(checkpoint: Path, tmp_path: Path) -> None:
    order = "neutral,happiness,sadness,surprise,fear,disgust,anger,contempt"
    as_others_say = order.replace("happiness", " Happy").replace("anger", "angry")
    arguments = ["--classes", as_others_say, "--regions", "affectnet", "--json"]
    done = run_cli_here("convert", checkpoint, "-o", tmp_path / "model", *arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["model_id"] == load_model(tmp_path / "model").model_id
    assert (told["kind"], told["backbone"], told["classes_assumed"]) == ("ran", "resnet18", False)
    assert told["classes"] == order.split(",")
    assert len(load_model(tmp_path / "model").config.regions) == 8


def test_a_trunk_is_written_for_training(checkpoint: Path, tmp_path: Path) -> None:
    trunk = tmp_path / "trunk.safetensors"
    done = run_cli_here("convert", checkpoint, "-o", trunk, "--trunk-only")
    assert done.returncode == 0, done.stderr
    load_trunk(build_backbone("resnet18", 1)[0], trunk)
    for arguments, says in (
        ([trunk], "is there already"),
        ([tmp_path / "trunk"], ".safetensors"),
        ([tmp_path / "other.safetensors", "--mean", "0.5"], "leave out --mean"),
    ):
        refused = run_cli_here("convert", checkpoint, "--trunk-only", "-o", *arguments)
        assert refused.returncode == 2
        assert says in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--classes", "neutral,happiness"], "8 classes, but 2 are named"),
        (["--mean", "0.485,0.456,0.406"], "one number per channel"),
        (["--std", "wide"], "no number"),
        (["--std", "0"], "above 0"),
        (["--regions", "affectnet"], "--classes"),
        (["--input-size", "4"], "32 to 1024"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    arguments: list[str], says: str, checkpoint: Path, tmp_path: Path
) -> None:
    done = run_cli_here("convert", checkpoint, "-o", tmp_path / "model", *arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "model").exists()


def test_files_that_cannot_be_converted_are_one_line(checkpoint: Path, tmp_path: Path) -> None:
    whole = checkpoint.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:-1000])
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    for name, says in {
        "cut.pth": "damaged",
        "module.pth": "can run any code",
        "pickle.pth": "no PyTorch checkpoint",
        "nowhere.pth": "can't be read",
    }.items():
        done = run_cli_here("convert", tmp_path / name, "-o", tmp_path / "model")
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "model").exists()
