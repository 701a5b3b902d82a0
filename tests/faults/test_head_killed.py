"""kill -9 of Ray's GCS, the process that makes a head of a node, under a run that started Ray itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.conftest import ROOT
from tests.faults.comparison import assert_same_tables
from tests.faults.holding import held, waiting
from tests.faults.job import EXTRACTION, Job, ended
from tests.faults.processes import kill, wait_for
from tests.faults.stand_in_decoders import HELD


def test_head_killed(job: Job, media: Path, undisturbed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "run", str(media), "--root", str(media), "-o", str(tmp_path / "out")]
    command += ["--model", job.model, "--fps", EXTRACTION["fps"], "--segment-frames", str(EXTRACTION["segment_frames"])]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with held(media):
        driver = subprocess.Popen(
            [*command, "--decoder", HELD], cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE
        )
        try:
            wait_for("a frame of b.mp4", lambda: waiting(media))
            family = psutil.Process(driver.pid).children(recursive=True)
            (head,) = (process for process in family if process.name() == "gcs_server")
            kill(head)
            killed = time.monotonic()
            stderr = ended(driver, 5)
        finally:
            driver.kill()
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("error: Ray's head at ")
    assert last.endswith(" is gone for 30 s; run the same command again")
    assert time.monotonic() - killed > 20  # a head that comes back soon is waited for
    assert job.but(decoder=HELD).run(tmp_path / "out")["status"] == "done"
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))
