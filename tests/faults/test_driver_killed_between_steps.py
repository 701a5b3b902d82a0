"""kill -9 of a real run right after every change that its driver makes to the store; then the same run again.

Whatever step it was, the next run ends with the table of an undisturbed one, and no reader ever saw a row twice.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.run_config import RunConfig
from tests.conftest import DEMO_MEDIA, ROOT
from tests.datasets import assert_equal_datasets
from tests.faults.driver_process import extraction_of, run

EXTRACTION = {"fps": "2", "segment_frames": 4}
MOST_STEPS = 80


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with a face and a file that fails: every kind of step, and two commits besides that of the sources."""
    folder = tmp_path_factory.mktemp("kill-media")
    shutil.copy(DEMO_MEDIA / "astronaut.png", folder)
    (folder / "junk.mp4").write_bytes(b"junk" * 500)
    return folder


def settings(media: Path, output: Path, model: Path, address: str | None) -> dict[str, Any]:
    return {
        "inputs": [str(media)],
        "output": str(output),
        "model": str(model),
        "decode_actors": 1,
        "ran_actors": 1,
        "commit_interval_s": 0.01,  # a commit per unit: every kind of step comes more than once
        "heartbeat_s": 0.5,
        "stale_after_s": 1.0,
        "address": address,
    }


@pytest.mark.timeout(1500)
def test_every_step_can_be_the_last(media: Path, tiny_model: Path, ray_address: str, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    run_here(media, undisturbed, tiny_model)
    killed = 0
    for step in range(1, MOST_STEPS):
        output = tmp_path / f"killed-{step}"
        code = run_killed(media, output, tiny_model, ray_address, step)
        if code == 0:
            break
        assert code == -signal.SIGKILL, f"step {step}: exit code {code}"
        killed += 1
        assert_no_row_twice(output)
        run_here(media, output, tiny_model)
        assert_equal_datasets(undisturbed, output)
        shutil.rmtree(output)
    else:
        pytest.fail(f"the run never came to its end within {MOST_STEPS} steps")
    assert killed >= 12, f"only {killed} steps were met; is the fault still armed?"


def run_here(media: Path, output: Path, model: Path) -> None:
    """The run in this process, on the suite's Ray."""
    values = settings(media, output, model, None)
    answer = run(RunConfig(**{**values, "inputs": tuple(values["inputs"])}), extraction_of(**EXTRACTION))
    assert answer["status"] == "done"


def run_killed(media: Path, output: Path, model: Path, address: str, step: int) -> int:
    """The run in a process that kills itself; its exit code."""
    config = output.with_suffix(".json")
    config.write_text(json.dumps({"run": settings(media, output, model, address), "extraction": EXTRACTION}))
    command = [sys.executable, "-m", "tests.faults.driver_process", str(config), "kill", str(step), "after"]
    return subprocess.run(command, cwd=ROOT, timeout=120, check=False, capture_output=True).returncode


def assert_no_row_twice(output: Path) -> None:
    """What a plain glob shows right after the kill: perhaps not all rows, but none of them twice."""
    if list(output.glob("faces/**/*.parquet")):
        sql = f"SELECT count(*), count(DISTINCT face_id) FROM read_parquet('{output}/faces/**/*.parquet')"
        rows, distinct = duckdb.execute(sql).fetchall()[0]
        assert rows == distinct
    if list(output.glob("segments/**/*.parquet")):
        sql = f"SELECT count(*), count(DISTINCT segment_id) FROM read_parquet('{output}/segments/**/*.parquet')"
        rows, distinct = duckdb.execute(sql).fetchall()[0]
        assert rows == distinct


def test_the_fault_counts_what_the_store_really_does(tmp_path: Path) -> None:
    """The arm itself: the second change of a fresh process never returns."""
    script = (
        "import signal\nfrom tests.faults.driver_process import fail_at\nfrom pipeline.storage.store import Store\n"
        f"fail_at(2, 'after', signal.SIGKILL); store = Store({str(tmp_path)!r})\n"
        "store.write_bytes('a', b'1'); store.write_bytes('b', b'2'); store.write_bytes('c', b'3')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a", "b"]
