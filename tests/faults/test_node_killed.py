"""kill -9 of a Ray node, with its actors and its part of the object store, in the middle of a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from tests.faults.comparison import assert_same_tables
from tests.faults.holding import held, waiting
from tests.faults.job import Job
from tests.faults.processes import actors, is_alive, kill, wait_for
from tests.faults.stand_in_decoders import HELD


@pytest.fixture
def second_node(ray_address: str) -> Iterator[int]:
    """A node of the suite's cluster as real processes, as `ray start` makes one; its raylet's process id."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={ray_address}", "--block"]
    options = ["--num-cpus=4", "--object-store-memory=100000000"]
    node = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("the second node", lambda: len(alive_nodes()) == 2 or node.poll() is not None)
        (raylet,) = wait_for("its raylet", lambda: raylets(node.pid))
        yield raylet.pid
    finally:
        for process in psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []:
            process.kill()
        node.kill()
        node.wait()
        wait_for("one node alone", lambda: len(alive_nodes()) == 1)


def test_node_killed(job: Job, media: Path, undisturbed: Path, second_node: int, tmp_path: Path) -> None:
    with held(media) as hold:
        # More than the first node holds beside what Ray Data wants, so some live on the second.
        run = job.but(decoder=HELD, decode_actors=4, ran_actors=3).beside(tmp_path / "out")
        wait_for("a frame of b.mp4", lambda: waiting(media))
        there = actors("MapBatches", below=second_node)
        assert there, "the second node has no actor: its death would prove nothing"
        kill(second_node)
        wait_for("the end of its actors", lambda: not any(map(is_alive, there)))
        hold.unlink()
        assert run.result()["status"] == "done"
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))


def alive_nodes() -> list[dict[str, object]]:
    return [node for node in ray.nodes() if node["Alive"]]


def raylets(pid: int) -> list[psutil.Process]:
    return [process for process in psutil.Process(pid).children(recursive=True) if process.name() == "raylet"]
