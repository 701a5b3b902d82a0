"""Segments that kill their actor, again and again, until the cluster itself looks broken: they become rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import graph, passes
from tests.faults.job import Job
from tests.faults.stand_in_decoders import DEADLY
from tests.media import write_video


def test_inputs_that_kill_their_actors(job: Job, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graph.BOUNDED, "max_task_retries", 0)
    monkeypatch.setattr(passes, "MOST_FRUITLESS", 1)
    folder = tmp_path / "media"
    folder.mkdir()
    write_video(folder / "deadly.mp4", frames=4)
    shutil.copy(media / "face.png", folder)
    summary = job.but(folder, decoder=DEADLY, root=str(folder)).run(tmp_path / "out")
    assert summary["status"] == "done"
    rows = pq.read_table(tmp_path / "out" / "segments").to_pylist()
    assert sorted((row["source_uri"], row["status"], row["error_code"]) for row in rows) == [
        ("deadly.mp4", "error", "internal"),
        ("face.png", "ok", None),
    ]
    assert "alone failed twice" in str([row["error_message"] for row in rows])
