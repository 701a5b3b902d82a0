"""At which changes of the store a driver dies, by seed, and the runs that die so."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.faults.comparison import assert_nothing_twice_or_by_halves
from tests.faults.job import Job

LEAST_STEPS = 12  # every job here has so many, whichever way its units come
SWEEP = 24  # the first seeds take the steps in turn, past the end of the longest job
MOST_DEATHS = 3


@dataclass(frozen=True)
class Death:
    """step: counted from 1, of one run. when: `before` or `after` the change."""

    step: int
    when: str


def deaths_of(seed: int) -> list[Death]:
    """One death after each step in turn; past those, two or three at random, each in the run that resumes the last."""
    if seed < SWEEP:
        return [Death(1 + (5 * seed + 8) % LEAST_STEPS if seed < LEAST_STEPS else 1 + seed, "after")]
    choices = random.Random(seed)
    count = choices.randint(2, MOST_DEATHS)
    return [Death(choices.randint(1, LEAST_STEPS), choices.choice(["before", "after"])) for _ in range(count)]


def die(job: Job, output: Path, folder: Path, deaths: list[Death]) -> int:
    """Runs that die as told, one after the other; how many of them did.

    A step past the least that a job has may be past its end, and so may any in a run that only resumes.
    """
    died = 0
    for number, death in enumerate(deaths):
        driver = job.start(output, folder, "kill", str(death.step), death.when)
        stderr = driver.communicate(timeout=240)[1]
        may_end = number > 0 or death.step > LEAST_STEPS
        assert driver.returncode == -signal.SIGKILL or (driver.returncode == 0 and may_end), (
            f"{death}: exit code {driver.returncode}: {stderr}"
        )
        died += driver.returncode != 0
        assert_nothing_twice_or_by_halves(output)
    return died
