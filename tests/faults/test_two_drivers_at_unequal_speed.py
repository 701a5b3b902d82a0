"""Two real drivers with overlapping inputs on one output, one of them slow at every change of the store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.storage.store import Store
from tests.faults.comparison import assert_same_tables, table
from tests.faults.job import Job, ended
from tests.faults.s3 import direct, new_bucket


@pytest.mark.seeds(1)
@pytest.mark.parametrize("where", ["local", "s3"])
def test_two_drivers_at_unequal_speed(
    job: Job,
    media: Path,
    undisturbed: Path,
    s3_server: str,
    tmp_path: Path,
    where: str,
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    choices = random.Random(seed)
    output, options = str(tmp_path / "out"), {}
    if where == "s3":
        output, options = f"s3://{new_bucket(s3_server)}/out", direct(s3_server)
    job = job.but(storage_options=options)
    slow = job.but(media / "b.mp4", media / "portraits.tar", batch_size=3)
    fast = job.but(commit_interval_s=choices.choice([0.01, 1.5]))
    drivers = [
        slow.start(output, tmp_path, "slow", f"{choices.uniform(0.02, 0.15):.3f}"),
        fast.start(output, tmp_path),
    ]
    for driver in drivers:
        ended(driver)
    store = Store(output, options)
    planned = [
        json.loads(store.read_bytes(path))["segments_planned"]
        for path in store.list("_ran/runs")
        if path.endswith("summary.json")
    ]
    twice = sum(planned) - table(undisturbed, "segments").num_rows
    assert len(planned) == 2
    assert twice > 0, "they never had the same segment to do"
    record_property("faults", twice)
    assert_same_tables(undisturbed, store)
