"""A driver is stopped (a laptop's lid, a frozen machine), another closes its run, and then it wakes up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run, other_runs
from pipeline.storage.store import Store
from tests.faults.comparison import assert_same_tables, entries
from tests.faults.job import Job, ended
from tests.faults.processes import is_stopped, wait_for
from tests.faults.sleeping_driver import STALE_AFTER_S
from tests.staged_rows import MODEL, segment_id, stage

ROOT = Path(__file__).parents[2]


@contextmanager
def sleeper(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The driver process once it has staged, and its run_id."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.sleeping_driver", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_driver_asleep_past_its_heartbeat_commits_nothing_more(tmp_path: Path) -> None:
    with sleeper(tmp_path) as (process, asleep):
        process.send_signal(signal.SIGSTOP)
        store = Store(str(tmp_path))
        log = CommitLog(store)
        with Run.create(store, stale_after_s=STALE_AFTER_S) as run:
            while asleep not in other_runs(store, log.state, run.run_id, STALE_AFTER_S)[1]:
                time.sleep(0.1)
            committer = Committer(Dataset.open(store), log, run, MODEL)
            committer.publish_missing()
            assert committer.sweep() == 2  # the sleeper's segments and faces
            committer.add(stage(store, run.run_id, [1, 2, 3]))
            committer.commit()
            process.send_signal(signal.SIGCONT)
            output, _ = process.communicate("go on\n", timeout=120)
        assert process.returncode == 5
        assert output.startswith(f"RunClosedError: run {asleep} was closed by another driver")
    rows = pq.read_table(tmp_path / "segments", partitioning=None)
    assert sorted(rows["segment_id"].to_pylist()) == [segment_id(n) for n in (1, 2, 3)]
    assert rows["run_id"].unique().to_pylist() == [run.run_id]


def test_driver_that_only_waits_keeps_its_run(tmp_path: Path) -> None:
    with sleeper(tmp_path) as (process, waiting):
        store = Store(str(tmp_path))
        log = CommitLog(store)
        with Run.create(store, stale_after_s=60.0) as run:
            assert other_runs(store, log.state, run.run_id, 60.0) == ([waiting], [])
            assert Committer(Dataset.open(store), log, run, MODEL).sweep() == 0
        process.communicate("go on\n", timeout=120)
        assert process.returncode == 0
    assert pq.read_table(tmp_path / "segments", partitioning=None).num_rows == 3


@pytest.mark.seeds(1)
def test_whole_run_asleep_past_its_heartbeat(
    job: Job, undisturbed: Path, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """A real run sleeps with segments in hand: entry 1 of the log has the sources, the later ones have segments."""
    output = tmp_path / "out"
    entry = 2 + seed % max(1, entries(undisturbed) - 2)  # two units may come into one entry: there are fewer then
    driver = job.start(output, tmp_path, "stop", str(entry), "before", "_ran/log/")
    try:
        wait_for("the driver's stop", lambda: driver.poll() is not None or is_stopped(driver.pid))
        if driver.poll() == 0 and seed:
            pytest.skip(f"this run had fewer than {entry} entries")
        wait_for("a stale heartbeat", lambda: heartbeat_age_s(output) > 2 * job.settings(output)["stale_after_s"])
        assert job.run(output)["status"] == "done"
        assert_same_tables(undisturbed, output)
        os.kill(driver.pid, signal.SIGCONT)
        assert "closed" in ended(driver, 5)
        record_property("faults", 1)
        assert_same_tables(undisturbed, output)
    finally:
        driver.kill()


def heartbeat_age_s(output: Path) -> float:
    (heartbeat,) = output.glob("_ran/runs/*/heartbeat")
    return time.time() - heartbeat.stat().st_mtime
