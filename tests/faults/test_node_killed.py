"""kill -9 of a Ray node, with its actors and its part of the object store, in the middle of a run."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import ray

from pipeline import execution
from pipeline.errors import StoreError
from pipeline.passes import Pass, PassQueue
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
        summary = run.result()
    assert (summary["status"], summary["passes"]) == ("done", 1)
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))


def test_actors_that_wait_for_a_node_that_is_gone(
    job: Job, media: Path, undisturbed: Path, second_node: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those on the first node leave them no room: the run ends that pass and divides the cluster as it is now."""
    ended, again = threading.Event(), PassQueue.again

    def noticed(passes: PassQueue, attempted: Pass, missing: pa.Table) -> None:
        ended.set()
        again(passes, attempted, missing)

    monkeypatch.setattr(PassQueue, "again", noticed)
    monkeypatch.setattr(execution, "LOST_NODES_S", 1.0)
    with held(media) as hold:
        run = job.but(decoder=HELD, decode_actors=None, ran_actors=None).beside(tmp_path / "out")
        wait_for("frames of b.mp4 on both nodes", lambda: are_on_both(waiting(media), second_node))
        kill(second_node)
        wait_for("the end of the pass", lambda: ended.is_set() or run.done())
        hold.unlink()
        summary = run.result(timeout=120)
    assert (summary["status"], summary["passes"]) == ("done", 2)
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))


def test_only_node_that_can_hold_the_actors_killed(
    job: Job, media: Path, undisturbed: Path, second_node: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for a place that nobody has: the run says so, and the next one needs no more than what is left."""
    monkeypatch.setattr(execution, "LOST_NODES_S", 3.0)
    with held(media) as hold:
        run = job.but(decoder=HELD, ran_actors=None, decode_cpus=3.2).beside(tmp_path / "out")
        wait_for("a frame of b.mp4", lambda: waiting(media))
        there = actors("MapBatches", below=second_node)
        assert len(there) == 1
        kill(second_node)
        wait_for("its end", lambda: not any(map(is_alive, there)))
        hold.unlink()
        with pytest.raises(StoreError, match=r"lost nodes, and the rest can't hold the job: .* lower --decode-cpus,"):
            run.result(timeout=120)
    assert job.but(decoder=HELD).run(tmp_path / "out")["status"] == "done"
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))


def are_on_both(processes: list[psutil.Process], node: int) -> bool:
    """Whether some are below this node and some are not."""
    below = {process.pid for process in psutil.Process(node).children(recursive=True)}
    return {process.pid in below for process in processes} == {True, False}


def alive_nodes() -> list[dict[str, object]]:
    return [node for node in ray.nodes() if node["Alive"]]


def raylets(pid: int) -> list[psutil.Process]:
    return [process for process in psutil.Process(pid).children(recursive=True) if process.name() == "raylet"]
