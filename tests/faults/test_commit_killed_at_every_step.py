"""kill -9 at every single change that a driver makes to its folder; the next process completes the tables."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.log import CommitLog
from pipeline.store import Store
from tests.faults.commit_process import SEGMENTS, work
from tests.staged_rows import MODEL, face_ids, segment_id

KEYS = {"faces": "face_id", "segments": "segment_id", "crops": "face_id", "sources": "source_id"}


def in_process(act: Callable[..., None], *arguments: object) -> int | None:
    """Runs `act` in a process of its own; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.commit_process"])
    process = context.Process(target=act, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def tables(root: Path) -> dict[str, pa.Table]:
    """What a glob over each table sees, without the run's own columns."""
    found = {}
    for table, key in KEYS.items():
        parts = [pq.read_table(path) for path in sorted((root / table).rglob("*.parquet"))]
        if parts:
            rows = pa.concat_tables(parts).sort_by(key)
            found[table] = rows.drop_columns(["run_id"])
    return found


def test_commit_killed_at_every_step_ends_in_the_same_tables(tmp_path: Path) -> None:
    assert in_process(work, str(tmp_path / "undisturbed")) == 0
    expected = tables(tmp_path / "undisturbed")
    with_rows = [segment_id(n) for n in range(SEGMENTS) if n != 5]
    assert expected["segments"]["segment_id"].to_pylist() == with_rows
    assert expected["faces"]["face_id"].to_pylist() == sorted(face_ids(with_rows))
    for die_at in itertools.count(1):
        root = tmp_path / f"killed-{die_at}"
        code = in_process(work, str(root), die_at)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        for name, rows in tables(root).items():
            ids = rows[KEYS[name]].to_pylist()
            assert len(set(ids)) == len(ids), f"doubled rows in {name} after a kill at step {die_at}"
            assert set(ids) <= set(expected[name][KEYS[name]].to_pylist())
        assert in_process(work, str(root), 0, -1.0) == 0
        resumed = tables(root)
        assert all(resumed[name].equals(expected[name]) for name in KEYS), f"after a kill at step {die_at}"
        store = Store(str(root))
        log = CommitLog(store)
        log.refresh()
        assert log.state.count(MODEL) == SEGMENTS
        assert store.list("_ran/staging") == []
    assert die_at > 80
