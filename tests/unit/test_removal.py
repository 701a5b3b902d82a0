"""Entries that take files away: a death at any step doubles no row, and the next start completes what was begun."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import planning
from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.failures import error_rows
from pipeline.ledger import compact as compaction
from pipeline.ledger import removal
from pipeline.ledger.commit import Committer
from pipeline.ledger.compact import compact
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.id_set import WantedIds
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import Replacing, drop_sources
from pipeline.ledger.runs import RUNS, Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.ledger.state import LogState
from pipeline.ledger.verify import verify
from pipeline.schema import TABLES
from pipeline.storage.ranged_file import RangedFile
from pipeline.storage.store import Store
from tests.faulty_store import Died, FaultyStore, die, memory_url
from tests.staged_rows import MODEL, OTHER_MODEL, crops, faces, segment_id, segments_table, source_id, sources, stage

SEGMENTS = 10
FAILED = [segment_id(number) for number in range(SEGMENTS) if number % 5 == 4]


def _made(url: str) -> None:
    store = Store(url)
    dataset = Dataset.open_or_create(store, Extraction())
    with Run.create(store) as run:
        for model in (MODEL, OTHER_MODEL):
            committer = Committer(dataset, CommitLog(store), run, model)
            for start in range(0, SEGMENTS, 5):
                committer.add(
                    stage(store, run.run_id, range(start, start + 5), model_id=model, keep_crops=True,
                          source_numbers=[start] if model == MODEL else [])
                )  # fmt: skip
                committer.commit()


def _copied(store: Store) -> FaultyStore:
    copy = FaultyStore(memory_url())
    for folder in ("faces", "segments", "sources", "crops", "_ran"):
        for path in store.list(folder):
            copy.write_bytes(path, store.read_bytes(path))
    copy.write_bytes("dataset.json", store.read_bytes("dataset.json"))
    return copy


def _ids(store: Store, table: str, key: str) -> list[tuple[str, str]]:
    """What a plain glob sees."""
    found: list[tuple[str, str]] = []
    for path in store.list(table):
        rows = pq.read_table(pa.BufferReader(store.read_bytes(path)))
        models = rows["model_id"].to_pylist() if "model_id" in rows.column_names else [""] * rows.num_rows
        found += zip(rows[key].to_pylist(), models, strict=True)
    return sorted(found)


def _all(store: Store) -> dict[str, list[tuple[str, str]]]:
    keys = {"faces": "face_id", "segments": "segment_id", "sources": "source_id", "crops": "face_id"}
    return {table: _ids(store, table, key) for table, key in keys.items()}


def _compact(store: Store) -> None:
    compact(store, stale_after_s=0.0)


def _retrying(store: Store, run: Run) -> Committer:
    log = CommitLog(store)
    log.refresh()
    replacing = Replacing(segments=set(FAILED))
    replacing.find_files(store, log.state, MODEL)
    return Committer(Dataset.open(store), log, run, MODEL, replacing=replacing)


def _retry(store: Store) -> None:
    """New rows for what failed (they fail again: which rows a segment has depends on its id alone)."""
    with Run.create(store) as run:
        committer = _retrying(store, run)
        committer.publish_missing()
        committer.add(stage(store, run.run_id, [int(one, 16) for one in FAILED]))
        entry = committer.commit()
        assert entry is not None
        assert entry.segments_removed == entry.segments == FAILED  # the same rows as before, so only this tells
        committer.finish()


@pytest.mark.parametrize("act", [_compact, _retry])
def test_death_at_any_step_doubles_nothing_and_loses_nothing(act: Callable[[Store], None]) -> None:
    made = Store(memory_url())
    _made(made.url)
    before = _all(made)
    counting = _copied(made)
    counting.count = 0
    act(counting)
    steps = counting.count
    assert _all(counting) == before
    assert verify(counting).is_sound
    died = 0
    for step in range(1, steps + 1):
        store = _copied(made)
        store.at(step, "after", die)
        try:
            act(store)
        except Died:
            died += 1
        else:
            continue  # a look ahead that nobody waited for
        for table, ids in _all(Store(store.url)).items():
            assert len(set(ids)) == len(ids), (step, table)
            assert set(ids) <= set(before[table]), (step, table)
        act(Store(store.url))
        assert _all(store) == before, step
        assert step % 10 or verify(Store(store.url)).is_sound, step
    assert died > 20


def test_compact_is_refused_while_a_run_is_at_work(tmp_path: Path) -> None:
    _made(str(tmp_path / "out"))
    store = Store(str(tmp_path / "out"))
    with Run.create(store) as run, pytest.raises(UsageError, match=f"run {run.run_id} is at work"):
        compact(store)


def test_of_two_commands_that_take_files_away_one_sees_the_other(tmp_path: Path) -> None:
    _made(str(tmp_path / "out"))
    store = Store(str(tmp_path / "out"))
    with Run.create(store) as run, pytest.raises(UsageError):
        compact(store)
    runs = {path.split("/")[2] for path in store.list(RUNS)} - {run.run_id}
    assert len(runs) == 2  # the one that made the dataset, and the compaction: it showed itself before it looked


def test_a_compaction_that_began_before_a_retry_showed_itself_doubles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(memory_url())
    _made(store.url)
    before = _all(store)
    with Run.create(store) as run:
        committer = _retrying(store, run)
        with monkeypatch.context() as patch:
            patch.setattr(compaction, "refuse_while_at_work", lambda *_, **__: None)  # it looked earlier
            compact(store)
        for failed in FAILED:
            committer.add(stage(store, run.run_id, [int(failed, 16)]))
            committer.commit()
        committer.finish()
    assert _all(store) == before
    assert verify(store).is_sound


def test_a_break_goes_on_standing_for_what_lies_behind_it_until_all_of_that_is_done_again() -> None:
    store, (ok, failed, *behind) = Store(memory_url()), [3, 4, 5, 6, 7]
    dataset = Dataset.open_or_create(store, Extraction())
    log = CommitLog(store)
    with Run.create(store) as run:
        committer = Committer(dataset, log, run, MODEL)
        committer.add(stage(store, run.run_id, [ok, failed, *behind], covered=behind))
        committer.commit()
    old = log.state.live_files("segments")
    followers = {segment_id(failed): frozenset(map(segment_id, behind))}
    with Run.create(store) as run:
        replacing = Replacing(segments=set(map(segment_id, [failed, *behind])), followers=followers)
        replacing.find_files(store, log.state, MODEL)
        committer = Committer(dataset, log, run, MODEL, replacing=replacing)
        committer.add(stage(store, run.run_id, [failed, behind[0]]))
        assert committer.commit() is None
        assert (log.state.live_files("segments"), committer.pending_bytes) == (old, 0)
        committer.add(stage(store, run.run_id, [behind[1]]))
        assert committer.commit() is not None  # it waits for nobody
        assert _ids(store, "segments", "segment_id") == sorted((segment_id(n), MODEL) for n in (ok, failed, behind[1]))
        committer.add(stage(store, run.run_id, [behind[2]]))
        committer.commit()
        committer.finish()
    assert _ids(store, "segments", "segment_id") == sorted((segment_id(n), MODEL) for n in (ok, failed, *behind))
    assert verify(store).is_sound


def test_rows_of_a_partial_segment_give_way_with_their_faces_and_crops() -> None:
    store = Store(memory_url())
    _made(store.url)
    log = CommitLog(store)
    log.refresh()
    old = dict(_runs(store))
    with Run.create(store) as run:
        gone = frozenset([segment_id(2)])
        files = {path: gone for path, file in log.state.live.items() if file.model_id in ("", MODEL)}
        replacing = Replacing(segments=set(gone), crops=set(gone), files=files)
        committer = Committer(Dataset.open(store), log, run, MODEL, replacing=replacing)
        committer.add(stage(store, run.run_id, [2], keep_crops=True))
        committer.commit()
        committer.finish()
        new = dict(_runs(store))
    changed = {face for face in new if new[face] != old[face]}
    assert old.keys() == new.keys()
    assert {face[0].split("-")[2] for face in changed} == {"2"}
    assert verify(store).is_sound


class ReadStore(Store):
    """Remembers what is read: `whole` files, those of which it was a `part`, and `touched`, either."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.whole: list[str] = []
        self.part: list[str] = []
        self.touched: set[str] = set()

    def read_bytes(self, path: str) -> bytes:
        self.whole.append(path)
        return super().read_bytes(path)

    def open_ranges(self, path: str) -> RangedFile:
        self.part.append(path)
        return super().open_ranges(path)

    def _attempt(self, operation: str, path: str, act: Callable[[], Any]) -> Any:
        if operation == "read":
            self.touched.add(path)
        return super()._attempt(operation, path, act)

    def tables(self) -> list[str]:
        """The files of the tables that were read whole."""
        return sorted(path for path in self.whole if path.split("/")[0] in TABLES)


def _of_sources(store: Store, numbers: range) -> None:
    """A commit per source: ten segments, of which each fifth failed, with their crops."""
    dataset = Dataset.open_or_create(store, Extraction())
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, MODEL)
        for number in numbers:
            segments = [segment_id(10 * number + index) for index in range(10)]
            tables = {"segments": segments_table(segments), "faces": faces(segments), "crops": crops(segments)}
            files = [stage_table(store, run.run_id, "sources", sources([number]))]
            for name, rows in tables.items():
                owner = pa.repeat(source_id(number), rows.num_rows)
                rows = rows.set_column(rows.schema.get_field_index("source_id"), rows.schema.field("source_id"), owner)
                files.append(stage_table(store, run.run_id, name, rows))
            committer.add(StagedSet(segment_ids=segments, files=files))
            committer.commit()


def test_of_files_without_the_sources_that_leave_one_column_is_read() -> None:
    store = ReadStore(memory_url())
    _of_sources(store, range(3))
    log = CommitLog(store)
    log.refresh()
    (with_it,) = [[path for path in log.state.live if _has(store, path, source_id(1))]]
    assert len(with_it) == 5
    store.whole, store.part, live = [], [], list(log.state.live)
    with Run.create(store) as run:
        drop_sources(store, log, run, [source_id(1)], [])
    assert set(store.tables()) == set(with_it)
    assert sorted(store.part) == sorted(live), "each once"
    assert verify(store).is_sound
    assert source_id(1) not in log.state.sources
    assert _ids(store, "segments", "segment_id") == sorted(
        (segment_id(number), MODEL) for number in range(30) if not 10 <= number < 20
    )


def test_for_sources_that_have_only_errors_no_good_row_is_read() -> None:
    store = ReadStore(memory_url())
    _of_sources(store, range(2))
    dataset, log = Dataset.open(store), CommitLog(store)
    with Run.create(store) as run:
        committer = Committer(dataset, log, run, MODEL)
        rows = segments_table([segment_id(34)])
        owner = pa.array([source_id(3)])
        rows = rows.set_column(rows.schema.get_field_index("source_id"), rows.schema.field("source_id"), owner)
        files = [stage_table(store, run.run_id, "sources", sources([3]))]
        files.append(stage_table(store, run.run_id, "segments", rows))
        committer.add(StagedSet(segment_ids=[segment_id(34)], files=files))
        committer.commit()
    store.touched = set()
    with Run.create(store) as run:
        drop_sources(store, log, run, [source_id(3)], [], only_errors=True)
    tables = {path for path in store.touched if path.split("/")[0] in TABLES}
    assert {path.split("/")[0] for path in tables} == {"segments", "sources", "crops"}
    assert all("-errors" in path for path in tables if path.startswith("segments"))
    assert source_id(3) not in log.state.sources
    assert segment_id(34) not in log.state.committed(MODEL)
    assert verify(store).is_sound


def test_a_commit_of_a_retry_reads_the_files_that_hold_its_segments_and_no_others() -> None:
    store = ReadStore(memory_url())
    _of_sources(store, range(3))
    log = CommitLog(store)
    log.refresh()
    failed = [segment_id(number) for number in range(30) if number % 5 == 4]
    with Run.create(store) as run:
        replacing = Replacing(segments=set(failed))
        replacing.find_files(store, log.state, MODEL)
        committer = Committer(Dataset.open(store), log, run, MODEL, replacing=replacing)
        for number in (4, 9, 14):
            (holder,) = [path for path in log.state.live if "-errors" in path and _has(store, path, segment_id(number))]
            store.whole, store.part, store.touched = [], [], set()
            committer.add(stage(store, run.run_id, [number]))
            committer.commit()
            assert (store.tables(), store.part) == ([holder], []), "what it holds is known"
            assert {path for path in store.touched if path.split("/")[0] in TABLES} == {holder}


class TogetherStore(Store):
    """Nobody reads a file of a table alone: the first waits for a second one who does."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._pair, self._read = threading.Barrier(2, timeout=20), set[str]()

    def _attempt(self, operation: str, path: str, act: Callable[[], Any]) -> Any:
        if operation == "read" and path.split("/")[0] in TABLES and path not in self._read:
            self._read.add(path)
            self._pair.wait()
        return super()._attempt(operation, path, act)


@pytest.mark.parametrize(
    "look",
    [
        lambda store, state: Replacing(segments=set(FAILED), with_faces=set(FAILED)).find_files(store, state, MODEL),
        lambda store, state: error_rows(store, state, ["source_id"]),
        lambda store, state: planning._without_only_errors(store, state, pa.array([source_id(1)])),
        lambda store, state: planning.known_sources(store, state),
    ],
)
def test_many_files_are_looked_through_at_once(look: Callable[[Store, LogState], Any]) -> None:
    store = TogetherStore(memory_url())
    _of_sources(store, range(4))
    log = CommitLog(store)
    log.refresh()
    look(store, log.state)


def test_what_is_looked_for_is_made_ready_once_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(memory_url())
    _of_sources(store, range(4))
    log = CommitLog(store)
    log.refresh()
    made: list[WantedIds] = []
    monkeypatch.setattr(removal, "WantedIds", lambda ids: (made.append(WantedIds(ids)), made[-1])[1])
    replacing = Replacing(segments=set(FAILED), with_faces={segment_id(1)})
    replacing.find_files(store, log.state, MODEL)
    assert len(made) == len(TABLES)
    assert sorted(path.split("/")[0] for path in replacing.files) == ["faces", "segments"]


def _has(store: Store, path: str, one: str) -> bool:
    rows = pq.read_table(pa.BufferReader(store.read_bytes(path)))
    return any(one in rows[name].to_pylist() for name in ("segment_id", "source_id") if name in rows.column_names)


def _runs(store: Store) -> list[tuple[tuple[str, str], str]]:
    files = [pq.read_table(pa.BufferReader(store.read_bytes(path))) for path in store.list("faces")]
    rows = pa.concat_tables(files).to_pylist()
    return [((row["face_id"], row["model_id"]), row["run_id"]) for row in rows]
