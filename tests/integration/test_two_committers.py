"""Drivers in processes of their own commit overlapping segments to one folder at the same time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, face_ids, segment_id, stage

SEGMENTS = 24


def drive(root: str, unit: int) -> None:
    """Everything, in units of `unit`, a commit each."""
    store = Store(root)
    dataset = Dataset.open_or_create(store, Extraction())
    log = CommitLog(store, checkpoint_every=5)
    with Run.create(store) as run:
        committer = Committer(dataset, log, run, MODEL)
        committer.publish_missing()
        for first in range(0, SEGMENTS, unit):
            numbers = list(range(first, min(SEGMENTS, first + unit)))
            committer.add(stage(store, run.run_id, numbers, keep_crops=True, source_numbers=numbers))
            committer.commit()
        committer.finish()


def test_processes_that_commit_at_once_commit_each_segment_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=drive, args=(str(tmp_path), unit)) for unit in (2, 3, 5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    ids = [segment_id(number) for number in range(SEGMENTS)]
    columns = {"segments": ("segment_id", ids), "faces": ("face_id", sorted(face_ids(ids)))}
    columns["crops"] = columns["faces"]
    for table, (column, expected) in columns.items():
        rows = pq.read_table(tmp_path / table, partitioning=None)
        assert sorted(rows[column].to_pylist()) == expected
    assert pq.read_table(tmp_path / "sources", partitioning=None).num_rows == SEGMENTS
    assert Store(str(tmp_path)).list("_ran/staging") == []
