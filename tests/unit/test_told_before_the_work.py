"""`evaluate` and `train` say what can't be done before they align, train or score; figures come before drawings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from jobs.training_faces import training_faces
from ran_model.config import ModelConfig
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork
from ran_model.pretrained import load_single_pass, save_model, save_single_pass
from ran_model.recipe import read_recipe
from tests.conftest import run_cli_here
from tests.crops import kept_crops

CONFIG = ModelConfig(name="tiny", input_size=32, aligned_size=48, classes=("neutral", "happiness"))
SMALLEST = "model: {}\nsingle_pass: {}\nran: {}\n"


def pictures(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(number).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), picture)
    return folder


def saved(folder: Path, bias: float = 0.0) -> Path:
    network = RegionAttentionNetwork(CONFIG)
    with torch.no_grad():
        network.classifier.bias.fill_(bias)
    save_model(folder, CONFIG, network, "# A model for tests\n")
    save_single_pass(folder / "single_pass.safetensors", SinglePassNetwork(CONFIG))
    return folder


@pytest.mark.parametrize(
    ("figure", "says"),
    [("none/f.png", "there is no folder"), (".", "is a folder: name a file in it")],
)
def test_a_figure_that_has_no_place_is_told_before_anything_is_read(tmp_path: Path, figure: str, says: str) -> None:
    done = run_cli_here("evaluate", "--data", tmp_path / "nowhere", "--figure", tmp_path / figure)
    assert done.returncode == 2
    assert says in done.stderr
    assert "--figure" in done.stderr


def test_a_figure_without_a_twin_is_told_before_anything_is_read(tmp_path: Path) -> None:
    done = run_cli_here("evaluate", "--data", tmp_path / "nowhere", "--figure", tmp_path / "f.png")
    assert done.returncode == 2  # of the model that ships
    assert "--figure compares with a single-pass twin" in done.stderr


def test_a_batch_of_more_faces_than_there_are_is_told_before_faces_are_aligned(tmp_path: Path) -> None:
    data = pictures(
        tmp_path / "data", "train/happy/a.png", "train/neutral/b.png", "validation/happy/c.png", "test/happy/d.png"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {data}\nmodel: {{}}\nsingle_pass: {{epochs: 0}}\nran: {{batch_size: 4}}\n")
    done = run_cli_here("train", recipe, "-o", tmp_path / "m", "--work", tmp_path / "work")
    assert done.returncode == 2
    assert "ran.batch_size is 4, more than there is to train on (2 faces)" in done.stderr
    assert not (tmp_path / "work").exists()


def test_figures_are_printed_before_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jobs.probe_figure.draw_evaluation", full)
    data = pictures(tmp_path / "data", "test/happy/a.png", "test/neutral/b.png")
    done = run_cli_here(
        "evaluate", "--model", saved(tmp_path / "m"), "--data", data, "--work", tmp_path / "work", "--json",
        "--figure", tmp_path / "f.png",
    )  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["lists"]["full"]["n"] == 2
    assert "f.png can't be written: No space left on device" in done.stderr


def test_a_model_whose_training_diverged_is_no_bug(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", "test/happy/a.png")
    model = saved(tmp_path / "m", bias=math.nan)
    done = run_cli_here("evaluate", "--model", model, "--data", data, "--work", tmp_path / "work")
    assert done.returncode == 2
    assert "tiny answers with values that are not finite: its training has diverged" in done.stderr


def test_validation_faces_of_other_classes_alone_are_nothing_to_score(tmp_path: Path) -> None:
    data, labels = kept_crops(tmp_path / "data", {"a-0-0": ("anger", "validation")})
    done = run_cli_here(
        "evaluate", "--model", saved(tmp_path / "m"), "--data", data, "--labels", labels, "--work", tmp_path / "work"
    )
    assert done.returncode == 2
    assert "no validation part with expressions that the model knows: there is nothing to score" in done.stderr
    assert "`--all` takes every labelled picture" in done.stderr
    assert not (tmp_path / "work").exists()


def test_a_model_folder_that_has_no_place_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: nowhere\n{SMALLEST}")
    for output in ("file", "file/model"):
        done = run_cli_here("train", recipe, "-o", tmp_path / output)
        assert done.returncode == 2
        assert f"{tmp_path / 'file'} is a file, and a folder is to be there" in done.stderr
    assert "nowhere does not exist" in run_cli_here("train", recipe, "-o", tmp_path / "new" / "model").stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["train", "ablate", "evaluate"])
def test_a_file_in_the_place_of_the_work_folder_is_told(tmp_path: Path, command: str) -> None:
    (tmp_path / "work").write_text("")
    arguments = {"train": ["none.yaml", "-o", tmp_path / "m"], "ablate": ["none.yaml"], "evaluate": ["--data", "none"]}
    done = run_cli_here(command, *arguments[command], "--work", tmp_path / "work")
    assert done.returncode == 2
    assert "work is a file, and a folder is to be there" in done.stderr


@pytest.mark.parametrize("command", ["train", "ablate"])
@pytest.mark.parametrize(("missing", "purpose"), [("train", "train on"), ("val", "validate with")])
def test_a_part_without_the_models_classes_is_told_before_pictures_are_aligned(
    tmp_path: Path, command: str, missing: str, purpose: str
) -> None:
    names = {part: "angry" if part == missing else "happy" for part in ("train", "val", "test")}
    data = pictures(tmp_path / "data", *(f"{part}/{name}/a.png" for part, name in names.items()))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {data}\n{SMALLEST.replace('{}', '{classes: [neutral, happiness]}', 1)}")
    output = ["-o", tmp_path / "m"] if command == "train" else []
    done = run_cli_here(command, recipe, *output, "--work", tmp_path / "work")
    assert done.returncode == 2
    assert f"has no pictures of the model's classes to {purpose}" in done.stderr
    assert not (tmp_path / "work").exists()


def test_labels_without_validation_faces_say_which_column_gives_them(tmp_path: Path) -> None:
    data, labels = kept_crops(tmp_path / "out", {"a-0": ("happiness", "train"), "b-0": ("neutral", "test")})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {data}\nlabels: {labels}\n{SMALLEST}")
    done = run_cli_here("train", recipe, "-o", tmp_path / "m", "--work", tmp_path / "work")
    assert done.returncode == 2
    assert f"a column `split` in {labels} says which faces are for validation" in done.stderr


def test_expressions_that_training_never_shows_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = {"a-0": ("happiness", "train"), "b-0": ("neutral", "validation")}
    data, labels = kept_crops(tmp_path / "out", faces)
    recipe = tmp_path / "recipe.yaml"
    model, stage = "{classes: [neutral, happiness, fear], aligned_size: 32}", "{epochs: 0}"
    recipe.write_text(f"data: {data}\nlabels: {labels}\nmodel: {model}\nsingle_pass: {stage}\nran: {stage}\n")
    training_faces(read_recipe(recipe), tmp_path / "work")
    told = capsys.readouterr().err
    assert "expressions that training has no picture of, which the model will hardly answer: neutral, fear" in told


def test_validation_faces_that_the_model_has_no_class_for_are_told(tmp_path: Path) -> None:
    faces = {"a-0-0": ("happiness", "validation"), "a-1-0": ("anger", "validation")}
    data, labels = kept_crops(tmp_path / "data", faces)
    done = run_cli_here(
        "evaluate", "--model", saved(tmp_path / "m"), "--data", data, "--labels", labels, "--work", tmp_path / "work"
    )
    assert "validation pictures of expressions that the model lacks, left out: 1 anger" in done.stdout


def test_a_twin_of_another_model_says_what_does_not_fit(tmp_path: Path) -> None:
    single = SinglePassNetwork(replace(CONFIG, classes=("neutral", "happiness", "fear")))
    save_single_pass(tmp_path / "twin.safetensors", single)
    with pytest.raises(ValueError, match=r"is no single-pass network of this model: .*size mismatch for classifier"):
        load_single_pass(tmp_path / "twin.safetensors", CONFIG)
