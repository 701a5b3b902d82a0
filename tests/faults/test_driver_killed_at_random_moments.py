"""kill -9 of the driver at moments that a seed chooses, again and again, until a run gets through."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.comparison import assert_same_tables
from tests.faults.job import Job, committed_segments, ended
from tests.faults.processes import wait_for

MOST_KILLS = 4


@pytest.mark.seeds(1)
def test_driver_killed_at_random_moments(
    job: Job, undisturbed: Path, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    choices = random.Random(seed)
    output, kills = tmp_path / "out", 0
    for _ in range(choices.randint(1, MOST_KILLS)):
        # Counted from a moment that every machine meets: a number of commits, and a little later.
        before = committed_segments(output)
        target = before + (choices.randint(0, 3) if kills else 1)
        driver = job.start(output, tmp_path)
        wait_for("commits", lambda: committed_segments(output) >= target or driver.poll() is not None)  # noqa: B023
        time.sleep(choices.uniform(0, 1.0) if kills else 0)  # the first comes before the run is over
        driver.kill()
        driver.wait()
        if driver.returncode != -signal.SIGKILL:  # it was over by then
            ended(driver)
            break
        driver.communicate()
        kills += 1
    assert kills, "the run was over before the first kill"
    record_property("faults", kills)
    ended(job.start(output, tmp_path))
    assert_same_tables(undisturbed, output)
