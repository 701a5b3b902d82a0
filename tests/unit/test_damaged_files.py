"""A damaged file of the dataset is never read as if it were whole, nor written again under a sha256 that fits it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import planning
from pipeline.config import Extraction
from pipeline.errors import StoreError
from pipeline.failures import find_failures
from pipeline.ledger.commit import Committer
from pipeline.ledger.compact import compact
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.live import read_live_columns
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import Replacing, drop_sources, without
from pipeline.ledger.runs import Run
from pipeline.ledger.state import LogState
from pipeline.ledger.verify import verify
from pipeline.media.sources import Listing
from pipeline.segments import PLAN
from pipeline.storage.store import Store
from pipeline.stored import StoredSegments
from ran_model.config import ModelConfig
from tests.staged_rows import MODEL, segment_id, stage

TABLES = ("faces", "segments", "sources", "crops")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A dataset of two commits, with an error row in each."""
    store = Store(str(tmp_path / "out"))
    dataset = Dataset.open_or_create(store, Extraction())
    with Run.create(store, stale_after_s=0.0) as run:
        committer = Committer(dataset, CommitLog(store), run, MODEL)
        for start in (0, 5):
            committer.add(stage(store, run.run_id, range(start, start + 5), keep_crops=True, source_numbers=[start]))
            committer.commit()
    return store


def log_of(store: Store) -> CommitLog:
    log = CommitLog(store)
    log.refresh()
    return log


def flip(file: Path) -> None:
    """Changes one bit so that the file can still be read, with another value in it; none of a key."""
    whole = file.read_bytes()
    rows = pq.read_table(pa.BufferReader(whole))
    keys = [name for name in ("segment_id", "source_id") if name in rows.column_names]
    for at in range(4, len(whole)):
        data = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        try:
            changed = pq.read_table(pa.BufferReader(data))
            if changed.select(keys).equals(rows.select(keys)) and not changed.equals(rows):
                file.write_bytes(data)
                return
        except (OSError, ValueError, KeyError, pa.ArrowException):
            continue
    raise AssertionError(f"no bit of {file} changes a value")


def newest(store: Store, table: str, *, errors: bool = False) -> Path:
    paths = log_of(store).state.live_files(table)
    return Path(store.url_of([path for path in paths if path.endswith("-errors.parquet") == errors][-1]))


def look_up(store: Store, state: LogState) -> None:
    plan = pa.Table.from_pylist(
        [{**dict.fromkeys(PLAN.names, ""), "segment_id": segment_id(6), "members": None, "size_bytes": 0, "window": 0,
          "is_last": True, "follows": False, "attempts": 0}],
        schema=PLAN,
    )  # fmt: skip
    state.live = {path: file for path, file in state.live.items() if file.table != "crops"}
    StoredSegments(store, state, MODEL, ModelConfig(name="any")).attach(plan)


def take_out(store: Store, table: str) -> None:
    state = log_of(store).state
    column, gone = ("source_id", f"{0:016x}") if table == "sources" else ("segment_id", segment_id(7))
    without(store, "r", state.files(table), [gone], column=column)
    without(store, "r", state.files(table), [f"{5:016x}"], column=column)


def holders(store: Store) -> None:
    Replacing(segments={segment_id(4)}).find_files(store, log_of(store).state, MODEL)


def drop(store: Store) -> None:
    with Run.create(store) as run:
        drop_sources(store, log_of(store), run, ["x"], [])


def failures(store: Store) -> None:
    state = log_of(store).state
    find_failures(store, state, MODEL, planning.known_sources(store, state), Extraction())


READERS: list[tuple[str, str, bool, Callable[[Store], Any]]] = [
    *((f"compact, {table}", table, False, lambda store: compact(store, stale_after_s=0.0)) for table in TABLES),
    *((f"without, {table}", table, False, lambda store, table=table: take_out(store, table)) for table in TABLES),
    ("drop_sources", "faces", False, drop),
    ("find_failures", "segments", True, failures),
    ("known_sources", "sources", False, lambda store: planning.known_sources(store, log_of(store).state)),
    ("stored", "segments", False, lambda store: look_up(store, log_of(store).state)),
    ("stored", "faces", False, lambda store: look_up(store, log_of(store).state)),
    ("count_failed", "segments", True,
     lambda store: planning.count_failed(store, log_of(store).state, MODEL, Listing(sources=[]))),
    ("change_rows", "segments", True,
     lambda store: planning.change_rows(store, log_of(store).state, pa.array(["/x"]))),
]  # fmt: skip


@pytest.mark.parametrize(("table", "errors", "act"), [one[1:] for one in READERS], ids=[one[0] for one in READERS])
def test_a_changed_bit_stays_a_damaged_file(
    store: Store, table: str, errors: bool, act: Callable[[Store], Any]
) -> None:
    file = newest(store, table, errors=errors)
    flip(file)
    relative = file.relative_to(store.url).as_posix()
    with pytest.raises(StoreError, match=f"{relative} is not what was committed.*verify {store.url} --repair"):
        act(store)
    assert [(finding.kind, finding.path) for finding in verify(store).findings if finding.kind == "damaged_file"] == [
        ("damaged_file", relative)
    ]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_columns_that_can_not_be_read_are_damage_that_is_named(store: Store, damage: str) -> None:
    file = newest(store, "faces")
    whole = file.read_bytes()
    (committed,) = [one for one in log_of(store).state.files("faces") if one.path.endswith(file.name)]
    columns = [name for name in pq.read_schema(file).names if name != "attention_other"]
    told = []
    for at in range(4, len(whole), 211):
        file.write_bytes(whole[:at] if damage == "cut" else whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read_live_columns(store, committed, columns)
        except StoreError as error:
            told.append(str(error))
    assert len(told) > 5
    assert all(committed.path in line and f"verify {store.url} --repair" in line for line in told)
