"""kill -9 of a decode actor and of each successor, until Ray gives the whole execution up: another pass does the rest,
and does not wait for what the broken one left behind."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import ray

from pipeline import execution, graph
from tests.faults.comparison import assert_same_tables
from tests.faults.holding import held, waiting
from tests.faults.job import Job
from tests.faults.processes import actors, is_alive, kill, wait_for
from tests.faults.stand_in_decoders import HELD


@pytest.fixture
def no_collector() -> Iterator[None]:
    """As in a driver that waits, and so makes no garbage."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_actor_killed_until_the_pass_breaks(
    job: Job, media: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(graph.BOUNDED, "max_task_retries", 2)
    with held(media) as hold:
        run = job.but(decoder=HELD, decode_actors=2, ran_actors=2).beside(tmp_path / "out")
        wait_for("a frame of b.mp4", lambda: waiting(media))  # perhaps in both decode actors
        others = actors("RanActor") + actors("StageWriter")
        assert len(others) == 3
        while not fresh(others):
            for child in waiting(media):
                actor = child.parent()
                assert actor is not None
                kill(actor)
                wait_for("the end of its decode process", lambda child=child: not is_alive(child))
            time.sleep(0.1)
        wait_for("the end of the broken pass' actors while the next one runs", lambda: not any(map(is_alive, others)))
        hold.unlink()
        assert run.result()["passes"] > 1
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))


@pytest.mark.usefixtures("no_collector", "ray_address")
def test_the_next_execution_lets_go_of_what_a_broken_one_holds() -> None:
    """Nobody has the exception any more, but it and the frames that hold the actors have each other. Ray itself would
    collect them, later, and only if a node had actors to start and no room."""

    class FailsAtThree:
        def __call__(self, rows: pa.Table) -> pa.Table:
            if rows["number"][0].as_py() == 3:
                raise ValueError("three")
            return rows

    def numbers(count: int) -> list[int]:
        pool = ray.data.ActorPoolStrategy(min_size=2, max_size=2)
        rows = ray.data.from_blocks([pa.table({"number": [number]}) for number in range(count)])
        dataset = rows.map_batches(FailsAtThree, compute=pool, num_cpus=0.1, batch_format="pyarrow", max_restarts=-1)
        return sorted(block["number"][0].as_py() for block in execution.blocks(dataset))

    def breaks() -> None:
        with pytest.raises(ValueError, match="three"):
            numbers(8)

    execution.configure_ray_data()
    breaks()
    time.sleep(2)
    broken = actors("FailsAtThree")
    assert broken, "nothing holds them: the collection is not needed any more"
    assert numbers(3) == [0, 1, 2]
    assert not psutil.wait_procs(broken, timeout=60)[1]


def fresh(others: list[psutil.Process]) -> list[psutil.Process]:
    """The next pass' inference actors."""
    return [actor for actor in actors("RanActor") if actor not in others]
