"""A hundred thousand sources and a million segments, all committed but seven: the plan has exactly those, and the
command that makes it stays small. How time and memory grow with the size is `benchmarks/ledger_scale.py`'s to measure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.ledger import Ledger, extraction, write_ledger
from pipeline import planning
from pipeline.ledger.log import CommitLog
from pipeline.media.sources import list_sources
from pipeline.prepare import load
from pipeline.storage.store import Store
from tests.conftest import ROOT

MISSING = 7
MOST_MIB = 700  # resident, of the whole command with what it imports

#: Runs a command, and says how much memory it had at most.
MEASURED = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr); sys.exit(done.returncode)"
)


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    """In memory where there is room: a disk makes thousands of small files wait for it, one by one."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30
    with tempfile.TemporaryDirectory(prefix="ran-million-", dir=memory if has_room else None) as folder:
        model_id = load("default")[1]
        yield write_ledger(Path(folder), sources=100_000, commits=1_000, model_id=model_id, uncommitted=MISSING)


def test_the_plan_is_what_is_not_committed(ledger: Ledger) -> None:
    store = Store(str(ledger.output))
    log = CommitLog(store)
    log.refresh()
    listing = list_sources([str(ledger.inputs)])
    known = planning.known_sources(store, log.state)
    assert planning.new_sources(store, log.state, listing, known) == ([], [])

    plan = planning.plan(listing, known, [], log.state, ledger.model_id, extraction())
    assert (plan.already_done, plan.todo.num_rows) == (ledger.segments, MISSING)
    everything = planning.plan(listing, known, [], log.state, "another-model", extraction()).todo
    ids = everything["segment_id"].combine_chunks()
    assert len(ids) == ledger.segments + MISSING > 990_000
    assert pc.count_distinct(ids).as_py() == len(ids)
    assert plan.todo["segment_id"].to_pylist() == ids[-MISSING:].to_pylist()
    rest = everything.slice(ledger.segments).cast(plan.todo.schema)
    assert plan.todo.drop_columns(["follows"]).equals(rest.drop_columns(["follows"]))
    assert plan.todo["follows"].to_pylist() == [False] + [True] * (
        MISSING - 1
    )  # the first one's neighbour is committed

    units = planning.dispatch_units(planning.Pass(segments=everything), actors=400)
    assert pa.chunked_array([unit["segment_id"].combine_chunks() for unit in units]).combine_chunks().equals(ids)


def test_a_command_over_all_of_it_stays_small(ledger: Ledger) -> None:
    plan = [sys.executable, "-m", "jobs.cli", "plan", str(ledger.inputs), "-o", str(ledger.output), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *plan], capture_output=True, text=True, cwd=ROOT, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["segments"] == ledger.segments + MISSING
    assert report["segments_already_done"] == ledger.segments
    assert report["sources_to_probe"] == 0
    assert int(done.stderr.split()[-1]) < MOST_MIB
