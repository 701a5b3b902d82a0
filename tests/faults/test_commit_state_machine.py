"""Any interleaving of two drivers that stage, commit, die, lose answers, sleep, resume, retry and compact.

After every single change of the store: nothing uncommitted and nothing twice is public, and, until rows are removed, no
segment without all of its faces. At the end: everything that is
committed is public exactly once.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pipeline.config import Extraction
from pipeline.errors import RunClosedError, StoreError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import CommittedFile, Entry, parse_entry
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import publish_entry
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import stage_table
from pipeline.ledger.state import LogState
from pipeline.ledger.sweep import close_stale_runs
from pipeline.storage.store import Store
from tests.faulty_store import Died, FaultyStore, die, lose_connection, memory_url
from tests.staged_rows import MODEL, OTHER_MODEL, face_ids, source_id, stage

Fault = tuple[str, int, str]  # what happens, at which operation, before or after it

SLOTS = st.integers(0, 1)
MODELS = st.sampled_from([MODEL, OTHER_MODEL])
KINDS = ("die", "lost", "outage", "other starts", "other works", "other compacts", "other drops errors")
FAULTS = st.none() | st.tuples(st.sampled_from(KINDS), st.integers(1, 30), st.sampled_from(["before", "after"]))


@st.composite
def block(draw: st.DrawFn) -> dict[str, Any]:
    """One dispatch unit, as arguments of `stage`."""
    numbers = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
    return {
        "numbers": numbers,
        "covered": draw(st.sampled_from([(), numbers[-1:]])),
        "keep_crops": draw(st.booleans()),
        "source_numbers": draw(st.sampled_from([(), numbers[:2]])),
        "tails": {source_id(numbers[0]): draw(st.integers(0, 3))},
    }


BLOCKS = st.lists(block(), min_size=1, max_size=3)
FIRED = Counter[str]()  # how many faults of each kind really happened
EVERY = 3  # entries per checkpoint, so that examples cross a few


class Driver:
    """One driver process: its own store object, log, run and committer."""

    def __init__(self, url: str, model_id: str, stale_after_s: float, changed: Callable[[], None]) -> None:
        self.store = FaultyStore(url)
        self.store.changed = changed
        self.model_id = model_id
        self.log = CommitLog(self.store, checkpoint_every=EVERY)
        self.run = Run.create(self.store, stale_after_s=stale_after_s)
        dataset = Dataset.open_or_create(self.store, Extraction())
        self.committer = Committer(dataset, self.log, self.run, model_id)
        self.committer.publish_missing()
        self.committer.sweep()

    def replace_files(self, model_id: str, table: str, *, errors_only: bool) -> None:
        """`retry` (drops error files and forgets their segments) or `compact` (two files into one)."""
        self.run.stale_after_s = -1.0  # everybody else counts as dead
        close_stale_runs(self.store, self.log, self.run)

        def build(state: LogState) -> Entry | None:
            files = state.files(table, model_id)
            if errors_only:
                chosen = [file for file in files if file.path.endswith("-errors.parquet")]
                gone = [i for file in chosen for i in self._rows(state, file)["segment_id"].to_pylist()]
                added = []
            else:
                chosen, gone = files[:2], []
                if len(chosen) < 2:
                    return None
                rows = pa.concat_tables([self._rows(state, file) for file in chosen])
                staged = stage_table(self.store, self.run.run_id, table, rows)
                name = staged.path.rpartition("/")[2]
                added = [
                    CommittedFile(
                        table=table, path=f"{table}/{model_id}/part-{name}", staged=staged.path, rows=staged.rows,
                        bytes=staged.bytes, sha256=staged.sha256, model_id=model_id,
                    )
                ]  # fmt: skip
            if not chosen:
                return None
            return Entry(
                run_id=self.run.run_id, model_id=model_id, add=added, segments_removed=gone,
                remove=[file.path for file in chosen],
            )  # fmt: skip

        entry = self.log.append(build)
        self.log.take_own()
        if entry is not None:
            publish_entry(self.store, self.log, entry)

    def _rows(self, state: LogState, file: CommittedFile) -> pa.Table:
        path = file.path if self.store.exists(file.path) else file.staged
        return pq.read_table(pa.BufferReader(self.store.read_bytes(path)))


class CommitMachine(RuleBasedStateMachine):
    """The rules; `url()` and `clean()` come from the two stores below."""

    def url(self) -> str:
        raise NotImplementedError

    def clean(self) -> None: ...

    @initialize()
    def begin(self) -> None:
        self.root = self.url()
        self.store = Store(self.root, backoff_s=0.0)
        self.reader = CommitLog(self.store, checkpoint_every=EVERY)
        self.ever: dict[str, set[str]] = {}
        self.parsed: dict[str, pa.Table] = {}
        self.drivers: list[Driver | None] = [None, None]

    # -- what drivers do ---------------------------------------------------------------------------------------------

    @rule(slot=SLOTS, model_id=MODELS, impatient=st.booleans())
    def restart(self, slot: int, model_id: str, impatient: bool) -> None:
        """Kills the driver of this slot and starts another. An impatient one takes everybody else for dead."""
        self.drivers[slot] = None
        self.drivers[slot] = self._new_driver(model_id, impatient)

    @rule(slot=SLOTS, blocks=BLOCKS, fault=FAULTS, times=st.integers(1, 2))
    def work(self, slot: int, blocks: list[dict[str, Any]], fault: Fault | None, times: int) -> None:
        """Blocks are staged and committed; a driver that survives a fault tries once more."""
        driver = self.drivers[slot] or self._new_driver(MODEL, False)
        self.drivers[slot] = driver
        for block in blocks:
            driver.committer.add(stage(driver.store, driver.run.run_id, model_id=driver.model_id, **block))
        for _ in range(times):
            self._drive(slot, lambda driver: driver.committer.commit(), fault)
            fault = None

    @rule(slot=SLOTS, model_id=MODELS, table=st.sampled_from(["faces", "segments"]), drop=st.booleans(), fault=FAULTS)
    def replace(self, slot: int, model_id: str, table: str, drop: bool, fault: Fault | None) -> None:
        """`retry` or `compact`."""
        chosen = "segments" if drop else table
        self._drive(slot, lambda driver: driver.replace_files(model_id, chosen, errors_only=drop), fault)

    @rule(slot=SLOTS, fault=FAULTS)
    def complete(self, slot: int, fault: Fault | None) -> None:
        self._drive(slot, lambda driver: driver.committer.publish_missing(), fault)

    @rule(slot=SLOTS, fault=FAULTS)
    def sweep(self, slot: int, fault: Fault | None) -> None:
        self._drive(slot, lambda driver: driver.committer.sweep(), fault)

    @rule(slot=SLOTS, fault=FAULTS)
    def finish(self, slot: int, fault: Fault | None) -> None:
        def finish(driver: Driver) -> None:
            driver.committer.finish()
            driver.run.finish()
            self.drivers[slot] = None

        self._drive(slot, finish, fault)

    def _new_driver(self, model_id: str, impatient: bool) -> Driver:
        return Driver(self.root, model_id, -1.0 if impatient else 1e9, self.check_public)

    def _drive(self, slot: int, act: Callable[[Driver], object], fault: Fault | None = None) -> None:
        """Lets the driver act; something may happen in the middle of it."""
        driver = self.drivers[slot]
        if driver is None:
            return
        if fault is not None:
            self._arm(driver, slot, fault)
        try:
            act(driver)
        except (Died, RunClosedError):
            if self.drivers[slot] is driver:
                self.drivers[slot] = None
        except StoreError as error:
            if not isinstance(error.__cause__, ConnectionResetError):  # that one was armed; the driver lives on
                raise
        finally:
            driver.store.disarm()

    def _arm(self, driver: Driver, slot: int, fault: Fault) -> None:
        def other(act: Callable[[Driver], object], *, new: bool = False) -> Callable[[], None]:
            def run() -> None:
                if new or self.drivers[1 - slot] is None:
                    self.drivers[1 - slot] = self._new_driver(driver.model_id, True)
                self._drive(1 - slot, act)

            return run

        def counted(act: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                FIRED[kind] += 1
                act()

            return run

        kind, number, when = fault
        if kind == "outage":  # longer than the retries
            for attempt in range(3):
                driver.store.at(number + attempt, when, counted(lose_connection))
            return
        acts = {
            "die": die,
            "lost": lose_connection,
            "other starts": other(lambda driver: None, new=True),
            "other works": other(lambda d: self._same_work(d)),
            "other compacts": other(lambda d: d.replace_files(d.model_id, "segments", errors_only=False)),
            "other drops errors": other(lambda d: d.replace_files(d.model_id, "segments", errors_only=True)),
        }
        driver.store.at(number, when, counted(acts[kind]))

    def _same_work(self, driver: Driver) -> None:
        """Every segment there is, grouped by twos."""
        for first in range(0, 10, 2):
            numbers = [first, first + 1]
            driver.committer.add(
                stage(driver.store, driver.run.run_id, numbers, model_id=driver.model_id, keep_crops=True)
            )
        driver.committer.commit()

    # -- what must hold ----------------------------------------------------------------------------------------------

    def _public(self, table: str) -> list[pa.Table]:
        paths = [path for path in self.store.list(table) if path.endswith(".parquet")]
        for path in paths:
            if path not in self.parsed:
                self.parsed[path] = pq.read_table(pa.BufferReader(self.store.read_bytes(path)))
        return [self.parsed[path] for path in paths]

    def check_public(self) -> None:
        """Nothing uncommitted, nothing twice, nothing by halves: called after every change of the store, in the middle
        of everything."""
        keys = {"faces": "face_id", "segments": "segment_id", "crops": "face_id", "sources": "source_id"}
        tables = {table: self._public(table) for table in keys}
        for entry in self.reader.refresh():
            # A row that was removed may stay for a moment: its file goes right after the entry.
            for kind, ids in ((entry.model_id, entry.segments), ("crops", entry.crops), ("sources", entry.sources)):
                self.ever.setdefault(kind, set()).update(ids)
        for table, key in keys.items():
            ids: Counter[tuple[str, str]] = Counter()
            for rows in tables[table]:
                models = rows["model_id"].to_pylist() if "model_id" in rows.column_names else [""] * rows.num_rows
                ids.update(zip(rows[key].to_pylist(), models, strict=True))
                for model_id in set(models):
                    owned = rows.filter(pc.equal(rows["model_id"], model_id)) if model_id else rows
                    column = "source_id" if table == "sources" else "segment_id"
                    strangers = set(owned[column].to_pylist()) - self.ever.get(model_id or table, set())
                    assert not strangers, f"uncommitted rows in {table}"
            assert not ids or max(ids.values()) == 1, f"doubled rows in {table}: {ids.most_common(1)}"
        if not self.reader.state.removed_files:  # else a glob may miss faces for a moment
            self._check_halves(tables["segments"], tables["faces"])

    def _check_halves(self, segments: list[pa.Table], faces: list[pa.Table]) -> None:
        """Every public segment has all of its faces."""
        there = Counter(owner for rows in faces for owner in _columns(rows, "segment_id", "model_id"))
        for rows in segments:
            for segment, model, kept in _columns(rows, "segment_id", "model_id", "faces_kept"):
                assert there[segment, model] == kept, f"{there[segment, model]} of {kept} faces of {segment}"

    @invariant()
    def log_commits_once(self) -> None:
        """Replayed by hand from the raw entries: a segment is never committed for a model that has it."""
        live: dict[str, set[str]] = {}
        for path in self.store.list("_ran/log"):
            if path.endswith(".json"):
                entry = parse_entry(self.store.read_bytes(path), path)
                have = live.setdefault(entry.model_id, set())
                have -= set(entry.segments_removed)
                assert not have & set(entry.segments)
                assert len(set(entry.segments)) == len(entry.segments)
                have |= set(entry.segments)
        self.check_public()
        for model_id in self.reader.state.models:
            assert set(self.reader.state.committed(model_id)) == live[model_id]

    def teardown(self) -> None:
        try:
            if hasattr(self, "root"):
                self._check_end()
        finally:
            self.clean()

    def _check_end(self) -> None:
        last = self._new_driver(MODEL, True)
        self.check_public()
        assert self.store.list("_ran/staging") == []
        state = last.log.state
        from_start = CommitLog(self.store, checkpoint_every=10**9)
        from_start.refresh()
        for model_id in state.models:
            assert set(from_start.state.committed(model_id)) == set(state.committed(model_id))
            rows = {i for table in self._public("segments") for i in table.filter(
                pc.equal(table["model_id"], model_id))["segment_id"].to_pylist()}  # fmt: skip
            assert rows == set(state.committed(model_id)) - set(state.covered(model_id))
            faces = {i for table in self._public("faces") for i in table.filter(
                pc.equal(table["model_id"], model_id))["face_id"].to_pylist()}  # fmt: skip
            assert faces == set(face_ids(sorted(rows)))
        crops = {i for table in self._public("crops") for i in table["segment_id"].to_pylist()}
        assert crops <= set(state.crops)
        assert {i for table in self._public("sources") for i in table["source_id"].to_pylist()} == set(state.sources)
        listed = {path for table in ("faces", "segments", "sources", "crops") for path in self.store.list(table)}
        assert listed == set(state.live)
        assert from_start.state.live == state.live


def _columns(rows: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in names), strict=True))


class InMemory(CommitMachine):
    """An object store: publication copies and deletes."""

    def url(self) -> str:
        return memory_url()

    def clean(self) -> None:
        if hasattr(self, "root"):
            self.store.delete_many(self.store.list(""))


class InFolder(CommitMachine):
    """A folder: publication renames."""

    def url(self) -> str:
        self.folder = tempfile.mkdtemp()
        return self.folder

    def clean(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


@pytest.mark.seeds(1)
@pytest.mark.parametrize(("machine", "examples"), [(InMemory, 20), (InFolder, 10)])
def test_any_interleaving_commits_exactly_once(
    machine: type[CommitMachine], examples: int, seed: int, record_property: Callable[[str, object], None]
) -> None:
    before = FIRED.total()
    run_state_machine_as_test(
        hypothesis.seed(seed)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            phases=[Phase.generate],  # shrinking takes longer than the test may; the blob reproduces a failure
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    assert FIRED.total() > before, "no fault fired"
    record_property("faults", FIRED.total() - before)
