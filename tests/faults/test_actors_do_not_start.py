"""Actors that can't come up, on nodes that lack something: the run ends with the reason, and blames no input."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StoreError
from tests.faults.comparison import assert_same_tables
from tests.faults.job import Job


def test_actors_do_not_start(job: Job, undisturbed: Path, tmp_path: Path) -> None:
    """The detector's file is damaged where the actors are."""
    weights = tmp_path / "weights.onnx"
    weights.write_bytes(b"cut off")
    with pytest.raises(StoreError, match=r"actors don't start on the cluster: .*the decode process did not start"):
        job.but(detector_weights=str(weights)).run(tmp_path / "out")
    assert not list(tmp_path.glob("out/segments/**/*.parquet")), "no input is at fault"
    job.run(tmp_path / "out")
    assert_same_tables(undisturbed, tmp_path / "out")
