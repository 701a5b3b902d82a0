"""Actors that can't come up, on nodes that lack something: the run ends with the reason, and blames no input."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.detect import MOBILENET_PATH
from pipeline.errors import StoreError
from tests.faults.comparison import assert_same_tables
from tests.faults.holding import held, waiting
from tests.faults.job import Job
from tests.faults.processes import kill, wait_for
from tests.faults.stand_in_decoders import HELD


def test_actors_do_not_start(job: Job, undisturbed: Path, tmp_path: Path) -> None:
    """The detector's file is damaged where the actors are."""
    weights = tmp_path / "weights.onnx"
    weights.write_bytes(b"cut off")
    with pytest.raises(StoreError, match=r"actors don't start on the cluster: .*the decode process did not start"):
        job.but(detector_weights=str(weights)).run(tmp_path / "out")
    assert not list(tmp_path.glob("out/segments/**/*.parquet")), "no input is at fault"
    job.run(tmp_path / "out")
    assert_same_tables(undisturbed, tmp_path / "out")


def test_a_decode_process_does_not_come_up_again(job: Job, media: Path, undisturbed: Path, tmp_path: Path) -> None:
    """It dies under way, and by then the detector's file is damaged where its actor is."""
    weights = tmp_path / "weights.onnx"
    shutil.copy(MOBILENET_PATH, weights)
    disturbed = job.but(decoder=HELD, detector_weights=str(weights))
    with held(media):
        run = disturbed.beside(tmp_path / "out")
        (victim,) = wait_for("a frame of b.mp4", lambda: waiting(media))
        weights.write_bytes(b"cut off")
        kill(victim)
        with pytest.raises(
            StoreError, match=r"the decode process did not start on .*run the same command again"
        ) as told:
            run.result()
    assert told.value.exit_code == 5
    shutil.copy(MOBILENET_PATH, weights)
    disturbed.run(tmp_path / "out")
    assert_same_tables(undisturbed, tmp_path / "out", without=("decoder",))
