"""`train`, killed and continued, `evaluate` on what it wrote, and `ablate`: the real commands on a small data set."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ran_model.config import ModelConfig
from ran_model.labels import EXPRESSIONS
from ran_model.network import RegionAttentionNetwork
from ran_model.pretrained import load_model, save_model
from ran_model.recipe import read_recipe
from tests.conftest import run_cli, run_cli_here

ASTRONAUT = Path(__file__).parents[2] / "examples" / "media" / "astronaut.png"
RECIPE = """
data: {data}
model: {{name: tiny, input_size: 32, aligned_size: 48, regions: [whole, center_down], classes: [neutral, happiness]}}
teacher:
  model: {{name: t, input_size: 32, aligned_size: 48, classes: [neutral, happiness]}}
  train: {{optimizer: adamw, epochs: 1, batch_size: 8, learning_rate: 1e-3, bf16: false}}
single_pass:
  {{optimizer: adamw, epochs: 12, batch_size: 8, learning_rate: 1e-3, bf16: false, mean_decay: 0.8, teacher_share: 0.2}}
ran:
  {{optimizer: adamw, epochs: 1, batch_size: 8, learning_rate: 1e-4, bf16: false, mean_decay: 0.5, teacher_share: 0.2}}
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders: the portrait as it is, and with dark bars; a task that anything can learn."""
    folder = tmp_path_factory.mktemp("classes")
    face = cv2.imread(str(ASTRONAUT))[40:190, 150:300]
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("validation", 6), ("test", 8)):
        for number in range(count):
            name = EXPRESSIONS[number % 2]
            picture = face.astype(np.float32) * random.uniform(0.7, 1.1)
            if name == "happiness":
                picture[95:125, 30:120] = 0
            path = folder / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture.clip(0, 255).astype(np.uint8))
    return folder


def curve(work: Path) -> list[str]:
    path = work / "single_pass" / "curve.csv"
    return path.read_text().splitlines()[1:] if path.exists() else []


def test_train_goes_on_after_a_kill_and_evaluate_scores_what_it_wrote(faces: Path, tmp_path: Path) -> None:
    recipe, work, model = tmp_path / "recipe.yaml", tmp_path / "work", tmp_path / "model"
    seen = ModelConfig(input_size=32, aligned_size=48, regions=("whole",), classes=("neutral", "happiness"))
    start = save_model(tmp_path / "start", seen, RegionAttentionNetwork(seen), "# Random weights\n")
    recipe.write_text(RECIPE.format(data=faces) + f"start: {tmp_path / 'start'}\n")
    arguments = ["train", str(recipe), "-o", str(model), "--work", str(work), "--processes", "1"]
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    started = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 240
    while len(curve(work)) < 2 and time.monotonic() < deadline:
        assert started.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    killed_at = len(curve(work))
    assert 2 <= killed_at < 12
    assert not model.exists()
    done = run_cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    epochs = [int(row.split(",")[0]) for row in curve(work)]
    assert epochs == list(range(1, 13))
    assert "single pass" in done.stderr
    result = json.loads(done.stdout)
    assert result["lists"]["full"]["n"] == 8
    assert result["lists"]["full"]["accuracy"] >= 0.75
    assert result["start"]["model_id"] == start
    gained = result["start"]["comparison"]["full"]["bootstrap"]["difference"]
    assert gained == result["lists"]["full"]["accuracy"] - result["start"]["lists"]["full"]["accuracy"]
    assert result == json.loads((model / "evaluation.json").read_text())
    assert load_model(model).model_id == result["model_id"]
    assert "tiny" in (model / "README.md").read_text()
    again = run_cli(
        "evaluate", "--model", str(model), "--data", str(faces), "--work", str(work), "--json",
        "--figure", str(tmp_path / "probe.png"),
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    evaluated = json.loads(again.stdout)
    assert evaluated["lists"] == result["lists"]
    assert evaluated["single_pass"] == result["single_pass"]  # the twin lies beside the model
    steps = {stage: json.loads((work / stage / "train.json").read_text()) for stage in ("ran", "twin")}
    assert steps["twin"] == steps["ran"] | {"whole_share": 1.0}
    assert read_recipe(model / "recipe.yaml") == read_recipe(recipe)
    assert evaluated["comparison"]["full"]["mcnemar"]["n"] == 8
    assert cv2.imread(str(tmp_path / "probe.png")).shape[1] == 1200


def test_ablate_trains_variants_once_and_prints_them_as_a_table(faces: Path, tmp_path: Path) -> None:
    recipe, work = tmp_path / "recipe.yaml", tmp_path / "work"
    stage = "{optimizer: adamw, epochs: 1, batch_size: 8, learning_rate: 1e-3, bf16: false}"
    model = "{input_size: 32, aligned_size: 48, regions: [whole, center_down], classes: [neutral, happiness]}"
    recipe.write_text(f"data: {faces}\nmodel: {model}\nsingle_pass: {stage}\nran: {stage}\n")
    arguments = ["ablate", recipe, "--work", work, "--seeds", "2", "--only", "regions-random", "--processes", "1"]
    first = run_cli(*arguments)
    assert first.returncode == 0, first.stderr
    assert "| regions | random (6) |" in first.stdout
    assert "| validation | 6 |" in first.stdout
    checkpoints = sorted(work.glob("variants/*/checkpoint.safetensors"))
    assert len(checkpoints) == 6
    written = [path.stat().st_mtime_ns for path in checkpoints]
    again = run_cli(*arguments, "--lists", "--json")
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in checkpoints] == written
    result = json.loads(again.stdout)
    assert set(result["variants"]) == {"recipe", "single-pass", "regions-random"}
    assert result["variants"]["recipe"]["full"]["n"] == 8
    assert len(result["ran_minus_single_pass"]["full"]["mcnemar"]) == 2
    odd = run_cli_here(*arguments[:-4], "--only", "speed")
    assert odd.returncode == 2
    assert "the variants are recipe, single-pass" in odd.stderr


def test_mistakes_are_usage_errors(faces: Path, tmp_path: Path) -> None:
    nowhere = run_cli_here("evaluate", "--data", str(tmp_path / "nowhere"))
    assert nowhere.returncode == 2
    assert "does not exist" in nowhere.stderr
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(data=faces) + "speed: 3\n")
    odd = run_cli_here("train", str(recipe), "-o", str(tmp_path / "m"))
    assert odd.returncode == 2
    assert "unknown key 'speed'" in odd.stderr


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_a_missing_start_is_told_before_faces_are_aligned(command: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    output = ["-o", str(tmp_path / "m")] if command == "train" else []
    for start, says in (("trunk", "trunk none.safetensors can't be read"), ("start", "config.json can't be read")):
        recipe.write_text(f"data: nowhere\nmodel: {{}}\nsingle_pass: {{}}\nran: {{}}\n{start}: none.safetensors\n")
        odd = run_cli_here(command, str(recipe), *output)
        assert odd.returncode == 2
        assert says in odd.stderr
