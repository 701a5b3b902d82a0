"""kill -9 at every single change that a driver makes to its folder; the next process completes the tables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.log import CommitLog
from pipeline.storage.store import Store
from tests.faults.commit_process import COVERED, SEGMENTS
from tests.staged_rows import MODEL, face_ids, segment_id

KEYS = {"faces": "face_id", "segments": "segment_id", "crops": "face_id", "sources": "source_id"}
ROOT = Path(__file__).parents[2]


def tables(root: Path) -> dict[str, pa.Table]:
    """What a glob over each table sees, without the run's own column."""
    found = {}
    for table, key in KEYS.items():
        parts = [pq.read_table(path) for path in sorted((root / table).rglob("*.parquet"))]
        if parts:
            found[table] = pa.concat_tables(parts).sort_by(key).drop_columns(["run_id"])
    return found


def assert_no_half_segment(found: dict[str, pa.Table], when: str) -> None:
    """Every segment that a glob sees has all of its faces, and their crops."""
    if "segments" not in found:
        return
    kept = dict(zip(*found["segments"].select(["segment_id", "faces_kept"]).to_pydict().values(), strict=True))
    for name in ("faces", "crops"):
        there = Counter(found[name]["segment_id"].to_pylist() if name in found else ())
        assert {one: there[one] for one in kept} == kept, f"a segment without all of its {name} {when}"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a folder: hundreds of fsyncs, and no power cut to survive."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as name:
        yield Path(name)


@pytest.mark.timeout(900)  # some 150 processes: 20 s on two idle cores
def test_commit_killed_at_every_step_ends_in_the_same_tables(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.commit_process", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=800)
    codes = [line.split() for line in (folder / "codes").read_text().splitlines()]
    assert len(codes) > 50
    assert codes == [[str(-signal.SIGKILL), "0"]] * (len(codes) - 1) + [["0", "0"]]

    undisturbed = tables(folder / f"killed-{len(codes)}")
    with_rows = [segment_id(n) for n in range(SEGMENTS) if n != COVERED]
    assert undisturbed["segments"]["segment_id"].to_pylist() == with_rows
    assert undisturbed["faces"]["face_id"].to_pylist() == sorted(face_ids(with_rows))
    assert undisturbed["crops"]["face_id"].to_pylist() == sorted(face_ids(with_rows))
    for die_at in range(1, len(codes) + 1):
        killed = tables(folder / f"killed-{die_at}")
        for name, rows in killed.items():
            ids = rows[KEYS[name]].to_pylist()
            assert len(set(ids)) == len(ids), f"doubled rows in {name} after a kill at step {die_at}"
            assert set(ids) <= set(undisturbed[name][KEYS[name]].to_pylist())
        assert_no_half_segment(killed, f"after a kill at step {die_at}")
        resumed = tables(folder / f"resumed-{die_at}")
        assert all(resumed[name].equals(undisturbed[name]) for name in KEYS), f"after a kill at step {die_at}"
        store = Store(str(folder / f"resumed-{die_at}"))
        log = CommitLog(store)
        log.refresh()
        assert log.state.count(MODEL) == SEGMENTS
        assert store.list("_ran/staging") == []
