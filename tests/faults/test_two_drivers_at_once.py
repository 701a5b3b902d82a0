"""Two real drivers on one output, overlapping inputs, different grouping; one of them sleeps past its heartbeat."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.run_config import RunConfig
from tests.conftest import DEMO_MEDIA, ROOT
from tests.datasets import assert_equal_datasets
from tests.faults.driver_process import extraction_of, run
from tests.media import write_video

EXTRACTION = {"fps": "2", "segment_frames": 4}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-media")
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(folder / name, frames=150)
    shutil.copy(DEMO_MEDIA / "portraits.tar", folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(media: Path, tiny_model: Path, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("two") / "undisturbed"
    run(RunConfig(**settings([media], output, tiny_model)), extraction_of(**EXTRACTION))
    return output


def settings(inputs: list[Path], output: Path, model: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "inputs": tuple(map(str, inputs)),
        "output": str(output),
        "model": str(model),
        "decode_actors": 1,
        "ran_actors": 1,
        "commit_interval_s": 0.01,
        "heartbeat_s": 0.5,
        "stale_after_s": 2.0,
    }
    return values | changes


def start(config: Path, values: dict[str, Any], fault: str, step: int, *when: str) -> subprocess.Popen[str]:
    config.write_text(json.dumps({"run": values, "extraction": EXTRACTION}))
    command = [sys.executable, "-m", "tests.faults.driver_process", str(config), fault, str(step), *when]
    return subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE)


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def is_stopped(process: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_two_drivers_with_overlapping_inputs_make_one_table(
    media: Path, undisturbed: Path, tiny_model: Path, ray_address: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    first = start(
        tmp_path / "first.json",
        settings([media / "c.mp4", media / "portraits.tar"], output, tiny_model, address=ray_address, batch_size=3),
        "kill", 10_000, "before",
    )  # fmt: skip
    second = start(
        tmp_path / "second.json",
        settings([media], output, tiny_model, address=ray_address, commit_interval_s=1.5),
        "kill", 10_000, "before",
    )  # fmt: skip
    for process in (first, second):
        stderr = process.communicate(timeout=200)[1]
        assert process.returncode == 0, stderr
    assert_equal_datasets(undisturbed, output)


@pytest.mark.parametrize("entry", [2, 3])
def test_a_driver_that_slept_past_its_heartbeat_commits_nothing_more(
    media: Path, undisturbed: Path, tiny_model: Path, ray_address: str, tmp_path: Path, entry: int
) -> None:
    output = tmp_path / "out"
    values = settings([media], output, tiny_model, address=ray_address)
    # entry 1 has the sources, so it sleeps with segments in hand
    sleeper = start(tmp_path / "sleeper.json", values, "stop", entry, "before", "_ran/log/")
    try:
        wait_until(lambda: is_stopped(sleeper))
        time.sleep(2.5)  # its heartbeat is stale now
        answer = run(RunConfig(**settings([media], output, tiny_model)), extraction_of(**EXTRACTION))
        assert answer["status"] == "done"
        assert_equal_datasets(undisturbed, output)
        os.kill(sleeper.pid, signal.SIGCONT)
        stderr = sleeper.communicate(timeout=100)[1]
        assert sleeper.returncode == 5, f"exit code {sleeper.returncode}: {stderr}"
        assert "closed" in stderr
        assert_equal_datasets(undisturbed, output)
    finally:
        sleeper.kill()
