"""kill -9 of an inference actor that has work in hand: it is stopped before its first unit comes, and killed after."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.faults.comparison import assert_same_tables
from tests.faults.holding import held, waiting
from tests.faults.job import Job, committed_segments
from tests.faults.processes import actors, kill, wait_for
from tests.faults.stand_in_decoders import HELD


def test_inference_actor_killed(job: Job, media: Path, undisturbed: Path, tmp_path: Path) -> None:
    with held(media, "a") as first, held(media, "b") as second:
        run = job.but(decoder=HELD).beside(tmp_path / "out")
        wait_for("a frame of a.mp4", lambda: waiting(media, "a"))
        (victim,) = actors("RanActor")
        victim.send_signal(signal.SIGSTOP)
        first.unlink()
        wait_for("a frame of b.mp4", lambda: waiting(media, "b"))  # so the units before it are decoded
        assert not committed_segments(tmp_path / "out")
        kill(victim)
        second.unlink()
        assert run.result()["status"] == "done"
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))
