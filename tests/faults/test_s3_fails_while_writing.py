"""503, silence, and connections that break before, after or in the middle, while the dataset is written to S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.storage.store import Store
from tests.faults.comparison import assert_same_tables, assert_sound
from tests.faults.faulty_proxy import at_random, between
from tests.faults.job import Job
from tests.faults.s3 import direct, new_bucket

SHARE = 0.15
MOST_RUNS = 10


@pytest.mark.seeds(1)
def test_s3_fails_while_writing(
    job: Job, undisturbed: Path, s3_server: str, seed: int, record_property: Callable[[str, object], None]
) -> None:
    output = f"s3://{new_bucket(s3_server)}/out"
    with between(s3_server, at_random(seed, SHARE)) as proxy:
        runs = until_done(job.but(storage_options=proxy.storage_options()), output)
    assert proxy.faults > 10, f"{proxy.fired}: the fault did not fire"
    record_property("faults", proxy.faults)
    print(f"{runs} runs, {proxy.fired}")
    assert_same_tables(undisturbed, Store(output, direct(s3_server)))


def until_done(job: Job, output: str) -> int:
    """Runs the same command until it ends in order; an unlucky one may end with exit code 5. How many it took."""
    for number in range(1, MOST_RUNS):
        try:
            job.run(output)
        except StoreError:
            continue
        return number
    pytest.fail(f"it never came to its end in {MOST_RUNS} runs")


def test_s3_gone_for_good_ends_the_run_and_the_next_goes_on(job: Job, undisturbed: Path, s3_server: str) -> None:
    output = f"s3://{new_bucket(s3_server)}/out"
    with between(s3_server) as proxy:
        stuck = job.but(storage_options=proxy.storage_options())
        proxy.rule = lambda request: "503" if proxy.forwarded > 120 else None
        with pytest.raises(StoreError, match="run the same command again to resume"):
            stuck.run(output)
        assert proxy.fired["503"] > 3
    store = Store(output, direct(s3_server))
    job.but(storage_options=direct(s3_server)).run(output)
    assert_sound(store)
    assert_same_tables(undisturbed, store)
