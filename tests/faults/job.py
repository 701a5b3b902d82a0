"""One small job in every shape that the fault tests need: in this process, beside it, or in one that may be killed."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.run_config import RunConfig
from tests.conftest import ROOT
from tests.faults.driver_process import extraction_of, run

#: Two sampled frames per segment, so that two short videos are many units of work and of commit.
EXTRACTION: dict[str, Any] = {"fps": "5", "segment_frames": 2}
STARTED: list[subprocess.Popen[str]] = []  # drivers, which must not outlive a test that fails
DRIVER = [sys.executable, "-m", "tests.faults.driver_process"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """inputs: paths or URLs. address: of the suite's Ray, which all runs share. changes: of the run's configuration.

    reprocesses: the input is the output's own faces, for `model`.
    """

    inputs: tuple[str, ...]
    model: Path
    address: str
    changes: tuple[tuple[str, Any], ...] = ()
    reprocesses: bool = False

    def but(self, *inputs: str | Path, **changes: Any) -> Job:
        """The same job with other inputs, if any are given, and other settings."""
        merged = dict(self.changes) | changes
        return replace(self, inputs=tuple(map(str, inputs)) or self.inputs, changes=tuple(merged.items()))

    def again_with(self, model: Path) -> Job:
        """`reprocess` of this job's output with another model."""
        return replace(self, model=model, reprocesses=True)

    def settings(self, output: str | Path) -> dict[str, Any]:
        """RunConfig's arguments: a commit for every unit, one actor per stage, a heartbeat that is soon stale."""
        values: dict[str, Any] = {
            "inputs": (str(output),) if self.reprocesses else self.inputs,
            "output": str(output),
            "model": str(self.model),
            "decode_actors": 1,
            "ran_actors": 1,
            "commit_interval_s": 1e-6,
            "heartbeat_s": 0.5,
            "stale_after_s": 2.0,
            "max_error_rate": 1.0,
            "address": self.address,
        }
        return values | dict(self.changes)

    def run(self, output: str | Path) -> dict[str, Any]:
        """The run in this process; its summary."""
        return run(RunConfig(**self.settings(output)), extraction_of(**EXTRACTION))

    def beside(self, output: str | Path) -> Future[dict[str, Any]]:
        """The run in a thread of this process, so that the test can see to its fault meanwhile."""
        pool = ThreadPoolExecutor(1)
        future = pool.submit(self.run, output)
        pool.shutdown(wait=False)
        return future

    def start(self, output: str | Path, folder: Path, *fault: str) -> subprocess.Popen[str]:
        """The run in a process of its own; `fault` as `tests.faults.driver_process` takes it."""
        config = folder / f"config-{len(list(folder.glob('config-*.json')))}.json"
        config.write_text(json.dumps({"run": self.settings(output), "extraction": EXTRACTION}))
        driver = subprocess.Popen([*DRIVER, str(config), *fault], cwd=ROOT, text=True, stderr=subprocess.PIPE)
        STARTED.append(driver)
        return driver


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """A driver process' stderr, once it has ended as expected."""
    stderr = process.communicate(timeout=240)[1]
    assert process.returncode == code, f"exit code {process.returncode}: {stderr}"
    return stderr


def committed_segments(output: Path) -> int:
    """How many files of segments are public; each commit adds one."""
    return len(list(output.glob("segments/*/*.parquet")))
