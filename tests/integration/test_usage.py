"""Mistakes are told at once: what was wrong, and what to do. Exit codes are those that scripts rely on."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.conftest import DEMO_MEDIA, run_cli, run_cli_here


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fps", "fast"], "'all'"),
        (["--model", "/nowhere"], "config.json"),
        (["--storage-option", "endpoint"], "KEY=VALUE"),
        (["--detector", "retinaface-resnet50"], "--detector-weights"),
        (["--device", "tpu"], "auto"),
        (["--max-error-rate", "7"], "0 to 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = run_cli_here("run", DEMO_MEDIA, "-o", tmp_path / "out", *arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_inputs_without_media_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run_cli_here("run", tmp_path / "empty", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert str(tmp_path / "empty") in done.stderr


def test_a_job_that_the_machine_cannot_hold_is_told_before_it_starts(tmp_path: Path) -> None:
    done = run_cli_here("plan", DEMO_MEDIA, "-o", tmp_path / "out", "--ran-actors", "500")
    assert done.returncode == 4
    assert "--ran-actors" in done.stderr
    assert "500 RAN actors" in done.stderr
    assert not (tmp_path / "out").exists()


def test_plan_says_what_run_would_do_and_writes_nothing(tmp_path: Path) -> None:
    done = run_cli_here("plan", DEMO_MEDIA / "portraits.tar", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "1 source (1 archive)" in done.stdout
    assert "1 segment, 0 already done" in done.stdout
    assert not (tmp_path / "out").exists()


def test_plan_says_what_it_cannot_know_of_videos_in_archives(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "films.tar", "w") as archive:
        archive.add(DEMO_MEDIA / "portrait.mp4", "portrait.mp4")
        archive.add(DEMO_MEDIA / "astronaut.png", "astronaut.png")
    done = run_cli_here("plan", tmp_path / "films.tar", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "2 to do, at most 33 frames; 1 video in archives may have more" in done.stdout


def test_inputs_may_come_from_standard_input(tmp_path: Path) -> None:
    names = "\0".join(str(DEMO_MEDIA / name) for name in ("portraits.tar", "astronaut.png"))
    command = ("plan", "-o", tmp_path / "out", "--from-file", "-", "--json")
    done = run_cli_here(*command, stdin=names)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sources"] == {"archive": 1, "picture": 1}
    nothing = run_cli_here(*command, stdin="\n")
    assert nothing.returncode == 2
    assert "--from-file" in nothing.stderr


def test_yaml_stands_in_for_flags_and_flags_win(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"fps: 2\nsegment-frames: 4\noutput: {tmp_path / 'out'}\n")
    four = run_cli_here("plan", DEMO_MEDIA / "portrait.mp4", "--config", config)
    assert four.returncode == 0, four.stderr
    eight = run_cli_here("plan", DEMO_MEDIA / "portrait.mp4", "--config", config, "--segment-frames", "8")
    count = [int(done.stdout.splitlines()[1].split()[0]) for done in (four, eight)]
    assert count == [5, 3]  # 17 grid points in runs of four, then of eight
    config.write_text("frames-per-second: 5\n")
    unknown = run_cli_here("plan", DEMO_MEDIA, "--config", config, "-o", tmp_path / "out")
    assert unknown.returncode == 2
    assert "fps" in unknown.stderr


def test_commands_on_a_folder_without_a_dataset_say_so(tmp_path: Path) -> None:
    for command in (["inspect"], ["errors"], ["query"]):
        done = run_cli_here(*command, tmp_path, *(["SELECT 1"] if command == ["query"] else []))
        assert done.returncode == 2, done.stderr
        assert str(tmp_path) in done.stderr


def test_doctor_finds_this_machine_ready(tmp_path: Path) -> None:
    done = run_cli("doctor", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stdout + done.stderr
    for check in ("video decoder", "detector", "model", "ray", "store"):
        assert check in done.stdout
    assert "FAILED" not in done.stdout


def test_a_model_whose_weights_do_not_fit_its_config_is_refused(
    tiny_model: Path, ray_address: str, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"backbone": "resnet50"}))
    done = run_cli("run", DEMO_MEDIA / "astronaut.png", "-o", tmp_path / "out", "--model", model, address=ray_address)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == "error: the model can't be used: model.safetensors does not fit config.json"
    assert not list((tmp_path / "out").glob("segments/**/*.parquet")), "an input was blamed for a broken model"


def test_plan_says_what_it_can_not_read(tmp_path: Path) -> None:
    done = run_cli_here("plan", DEMO_MEDIA / "portrait.mp4", tmp_path / "nope.mp4", "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["unreadable"] == {"not_found": 1}
    assert any("nope.mp4 (not_found)" in note for note in report["notes"])
