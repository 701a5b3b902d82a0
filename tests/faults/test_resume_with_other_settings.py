"""A run is killed half way; the next has other numbers of actors, other units and batches, and lists the other way."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.comparison import assert_same_tables, table
from tests.faults.job import Job, committed_segments
from tests.faults.processes import kill, wait_for


@pytest.mark.seeds(1)
def test_resume_with_other_settings(
    job: Job,
    media: Path,
    undisturbed: Path,
    tmp_path: Path,
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    choices = random.Random(seed)
    output = tmp_path / "out"
    inputs = sorted(media.iterdir())
    first = job.but(*inputs, decode_actors=1, ran_actors=1)
    driver = first.start(output, tmp_path)
    wait_for("commits", lambda: committed_segments(output) >= 3)
    kill(psutil.Process(driver.pid))
    driver.communicate()
    half = table(output, "segments")["segment_id"].to_pylist()
    assert 0 < len(half) < table(undisturbed, "segments").num_rows
    record_property("faults", 1)

    choices.shuffle(inputs)
    decode, ran = choices.choice([(2, 2), (3, 1)])
    others = first.but(
        *reversed(inputs) if seed == 0 else inputs,
        decode_actors=decode,  # with them, the size of the dispatch units changes
        ran_actors=ran,
        batch_size=choices.choice([1, 3, 5]),
        commit_interval_s=choices.choice([0.01, 1.0, 60.0]),
        keep_crops=choices.random() < 0.3,
    )
    assert others.run(output)["segments_already_done"] >= len(half)
    rows = table(output, "segments")
    kept = [row for row in rows.to_pylist() if row["segment_id"] in half]
    assert len({row["run_id"] for row in kept}) == 1, "what was done stayed as it was"
    assert_same_tables(undisturbed, output)
