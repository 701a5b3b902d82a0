"""kill -9 of the decode process in the middle of a segment, as the kernel does it when memory runs out elsewhere."""

from __future__ import annotations

from pathlib import Path

from tests.faults.comparison import assert_same_tables
from tests.faults.holding import held, waiting
from tests.faults.job import Job
from tests.faults.processes import kill, wait_for
from tests.faults.stand_in_decoders import HELD


def test_decode_child_killed(job: Job, media: Path, undisturbed: Path, tmp_path: Path) -> None:
    with held(media) as hold:
        run = job.but(decoder=HELD).beside(tmp_path / "out")
        (victim,) = wait_for("a frame of b.mp4", lambda: waiting(media))
        kill(victim)
        wait_for("its successor", lambda: waiting(media))
        hold.unlink()
        assert run.result()["passes"] == 1, "the actor itself mends this"
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))
