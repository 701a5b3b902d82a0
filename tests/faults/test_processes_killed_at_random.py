"""kill -9 of any process of a run at moments that a seed chooses: actors of all stages, decode processes, driver."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.comparison import assert_same_tables
from tests.faults.job import Job, committed_segments, ended
from tests.faults.processes import actors, decode_children, is_alive, wait_for

KINDS: dict[str, Callable[[], list[psutil.Process]]] = {
    "decode process": decode_children,
    "decode actor": lambda: actors("DecodeActor"),
    "actor of all stages": lambda: actors("FusedActor"),
    "inference actor": lambda: actors("RanActor"),
    "writer": lambda: actors("StageWriter"),
}
MOST_KILLS = 5


@pytest.mark.seeds(1)
def test_processes_killed_at_random(
    job: Job, undisturbed: Path, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    choices = random.Random(seed)
    output, killed = tmp_path / "out", []
    if choices.random() < 0.5:
        job = job.but(decode_actors=None, ran_actors=None)  # one actor per core does all stages
    driver = job.start(output, tmp_path)
    wait_for("the first commit", lambda: committed_segments(output) or driver.poll() is not None)
    for number in range(choices.randint(1, MOST_KILLS)):
        time.sleep(choices.uniform(0, 0.7) if number else 0)
        there = {kind: found for kind, find in KINDS.items() if (found := find())}
        if "decode process" in killed:  # twice in one segment, and it is that segment's fault, by design
            there.pop("decode process", None)
        if driver.poll() is None:
            there["driver"] = [psutil.Process(driver.pid)]
        if not there:
            break
        kind = choices.choice(list(there))
        victim = choices.choice(there[kind])
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself in this very moment
            if is_alive(victim):
                victim.kill()
                killed.append(kind)
        if kind == "driver":
            driver.communicate()
            driver = job.start(output, tmp_path)
            wait_for("actors", lambda: decode_children() or driver.poll() is not None)  # noqa: B023
    record_property("faults", len(killed))
    print(f"killed: {killed}")
    ended(driver)
    assert killed, "the run was over before the first kill"
    assert_same_tables(undisturbed, output)
