"""kill -9 of the actor that decodes in the middle of a segment, whether it has one stage or all of them: Ray starts it
anew and replays the unit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.comparison import assert_same_tables
from tests.faults.holding import held, waiting
from tests.faults.job import Job
from tests.faults.processes import is_alive, kill, wait_for
from tests.faults.stand_in_decoders import HELD


@pytest.mark.parametrize(("actors", "name"), [(1, "DecodeActor"), (None, "FusedActor")])
def test_decode_actor_killed(
    job: Job, media: Path, undisturbed: Path, tmp_path: Path, actors: int | None, name: str
) -> None:
    with held(media) as hold:
        run = job.but(decoder=HELD, device="cpu", ran_actors=actors).beside(tmp_path / "out")
        (child,) = wait_for("a frame of b.mp4", lambda: waiting(media))
        actor = child.parent()
        assert actor is not None
        assert name in " ".join(actor.cmdline())
        kill(actor)
        wait_for("the end of its decode process", lambda: not is_alive(child))
        wait_for("its successor", lambda: waiting(media))
        hold.unlink()
        answer = run.result()
    assert (answer["status"], answer["passes"]) == ("done", 1)
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))
