"""Changed files: nothing of the old content leaves for one that can't be read, and a death in between loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import planning
from pipeline.changed import ChangedFiles
from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import Entry
from pipeline.ledger.log import CommitLog, LogState
from pipeline.ledger.publish import publish_missing
from pipeline.ledger.removal import drop_sources
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.ledger.verify import verify
from pipeline.media.sources import Listing, Source
from pipeline.outdated import OutdatedRows
from pipeline.planning import Plan
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from pipeline.segments import PLAN, segment_id
from pipeline.storage.store import Store
from tests.faulty_store import Died, FaultyStore, die, memory_url
from tests.scripted_processing import prepared_for
from tests.staged_rows import OTHER_MODEL, table
from tests.unit.test_planning import probed, row, source

EXTRACTION = Extraction()
OLD, NEW = source(1), source(1, "22:22")
SOON_S = 0.02  # until a run that died counts as dead


def test_only_what_can_be_read_takes_the_place_of_old_rows() -> None:
    broken, other = source(2, "22:22"), source(3)
    failure = {"error_code": "truncated", "error_message": "half of it"}
    changed = ChangedFiles([NEW, broken], replaces=True)
    assert (changed.to_probe, changed.staying, changed.notes()) == ([NEW, broken], [], [])
    rest = changed.take(probed(row(other), row(NEW), row(broken, **failure)))
    assert rest["source_id"].to_pylist() == [other.source_id]
    assert changed.readable["source_id"].to_pylist() == [NEW.source_id]
    assert changed.staying == [broken]
    (note,) = changed.notes()
    assert note.endswith("their old rows stay: /2 (truncated)")


def test_a_run_that_began_meanwhile_is_not_pulled_from_under(tiny_model: Path) -> None:
    """Probing may take hours after the first look for other runs."""
    store = Store(memory_url())
    made = prepared_for(tiny_model, store, EXTRACTION)
    _made(made.dataset, made.model_id)
    before = set(store.list("segments"))
    living = Run.create(store, interval_s=0.05)
    with living as other, pytest.raises(UsageError, match=f"{other.run_id} is at work"):
        _replaced(tiny_model, FaultyStore(store.url))
    assert set(store.list("segments")) == before
    _replaced(tiny_model, FaultyStore(store.url))
    assert _rows(store) == []


def test_a_run_that_tells_of_the_change_meanwhile_does_not_keep_the_new_content_out(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began after the last look for others, and saw the old rows before they left."""
    made = prepared_for(tiny_model, Store(memory_url()), EXTRACTION)
    _made(made.dataset, made.model_id)
    store = FaultyStore(made.dataset.store.url)

    def drop(*arguments: Any, **options: Any) -> list[str]:
        lost = drop_sources(*arguments, **options)
        _commit(made.dataset, made.model_id, [_segment(NEW, made.model_id, "error")])
        return lost

    monkeypatch.setattr("pipeline.outdated.drop_sources", drop)
    with _begun(tiny_model, store) as begun:
        begun.replace()
        begun.commit("segments", _segment(NEW, made.model_id, "ok"))
        begun.committer.finish()
    assert _rows(store) == [NEW.source_id]
    assert verify(store).is_sound


@pytest.mark.parametrize("on_changed", ["error", "replace"])
def test_rows_of_a_content_that_was_committed_too_late_leave_with_the_next_replacing_run(
    tiny_model: Path, on_changed: str
) -> None:
    """The run that had read it was slower than one that took the new content for a new file."""
    made = prepared_for(tiny_model, Store(memory_url()), EXTRACTION)
    other = source(3)
    for one, status in ((NEW, "ok"), (OLD, "ok"), (other, "ok"), (source(3, "22:22"), "error")):
        _commit(made.dataset, made.model_id, [probed(row(one)), _segment(one, made.model_id, status)])
    _commit(made.dataset, OTHER_MODEL, [_segment(OLD, OTHER_MODEL, "ok")])
    store = FaultyStore(made.dataset.store.url)
    listing = Listing(sources=[NEW, source(3, "22:22")])
    with _begun(tiny_model, store, on_changed=on_changed, listing=listing) as begun:
        begun.outdated.drop_superseded(planning.known_sources(store, begun.log.state))
    (note,) = begun.progress.notes
    assert "rows of 1 earlier content beside those of what the files hold now" in note
    assert ("`--on-changed replace` takes them out" in note) == (on_changed == "error")
    old = [OLD.source_id] * 2 if on_changed == "error" else []
    assert sorted(_rows(store)) == sorted([NEW.source_id, other.source_id, *old]), "the other's new content has no row"
    assert verify(store).is_sound


def test_all_stay_where_nothing_is_to_be_replaced() -> None:
    changed = ChangedFiles([NEW])
    assert (changed.to_probe, changed.staying) == ([], [NEW])


def test_the_row_that_told_of_the_change_does_not_speak_for_the_new_content() -> None:
    changed, listing, state = ChangedFiles([NEW], replaces=True), Listing(sources=[NEW]), LogState()
    told = planning.plan(listing, probed(), [NEW], state, "m", EXTRACTION).todo["segment_id"].to_pylist()
    state.apply(Entry(run_id="r", model_id="m", segments=told))
    changed.take(probed(row(NEW)))
    again = changed.error_segments(EXTRACTION)
    plan = planning.plan(listing, changed.readable, changed.staying, state, "m", EXTRACTION, again)
    assert plan.todo["window"].to_pylist() == [0, 1]  # 9.7 s at five a second, 32 to a window
    assert plan.todo["segment_id"][0].as_py() in told


def test_death_at_any_step_of_a_replacement_leaves_it_to_the_next_run(tiny_model: Path) -> None:
    url = memory_url()
    made = prepared_for(tiny_model, Store(url), EXTRACTION)
    _made(made.dataset, made.model_id)
    counting = _copied(Store(url))
    steps = _replaced(tiny_model, counting)
    assert _rows(counting) == []
    died = 0
    for step in range(1, steps + 1):
        store = _copied(Store(url))
        store.at(step, "after", die)
        try:
            _replaced(tiny_model, store)
        except Died:
            died += 1
        else:
            continue  # a look ahead that nobody waited for
        store = FaultyStore(store.url)
        publish_missing(store, CommitLog(store))
        state, known = _known(store)
        unknown, changed = planning.new_sources(store, state, _listing(), known)
        assert len(unknown + changed) + known["source_id"].to_pylist().count(NEW.source_id) == 1, step
        if changed:
            time.sleep(3 * SOON_S)
            _replaced(tiny_model, store, stale_after_s=SOON_S)
            state, known = _known(store)
        left = set(known["source_id"].to_pylist()) - {NEW.source_id}
        assert left <= planning.superseded(store, state, _listing(), known), step
        assert _rows(Store(store.url)) == [], step
        if left or Store(store.url).list("crops"):
            time.sleep(3 * SOON_S)
            with _begun(tiny_model, store, SOON_S) as begun:
                begun.outdated.drop_superseded(known)
        assert list(Store(store.url).list("crops")) == [], step  # pictures of people's faces
        assert step % 5 or verify(Store(store.url)).is_sound, step
    assert died > 20


def _made(dataset: Dataset, model_id: str) -> None:
    """Two models' rows of the old content, and a row of the first that tells of the new one."""
    _commit(dataset, model_id, [probed(row(OLD)), _crop(OLD), _segment(OLD, model_id, "ok")])
    _commit(dataset, OTHER_MODEL, [_segment(OLD, OTHER_MODEL, "ok")])
    _commit(dataset, model_id, [_segment(NEW, model_id, "error")])


def _commit(dataset: Dataset, model_id: str, tables: Sequence[pa.Table]) -> None:
    """By a run of its own. The last of the tables are rows of `segments`."""
    with Run.create(dataset.store) as run:
        committer = Committer(dataset, CommitLog(dataset.store), run, model_id)
        names = [one.schema.metadata[b"ran_table"].decode() for one in tables]
        files = [stage_table(dataset.store, run.run_id, name, one) for name, one in zip(names, tables, strict=True)]
        committer.add(StagedSet(segment_ids=tables[-1]["segment_id"].to_pylist(), files=files))
        committer.commit()
        committer.finish()


def _segment(of: Source, model_id: str, status: str) -> pa.Table:
    return table(
        "segments",
        1,
        segment_id=[segment_id(of.source_id, 0, EXTRACTION.id)],
        source_id=[of.source_id],
        source_uri=[of.uri],
        model_id=[model_id],
        status=[status],
        error_code=["source_changed" if status == "error" else None],
        faces_kept=[0],
    )


def _crop(of: Source) -> pa.Table:
    return table("crops", 1, segment_id=[segment_id(of.source_id, 0, EXTRACTION.id)], source_id=[of.source_id])


def test_a_window_that_came_to_light_while_its_video_was_tried_again_keeps_its_new_row(tiny_model: Path) -> None:
    """The log does not say that the video goes on: the entry that said so was lost, and stands repaired."""
    store = FaultyStore(memory_url())
    late = segment_id(NEW.source_id, 7, EXTRACTION.id)
    with _begun(tiny_model, store) as begun:
        begun.commit("sources", probed(row(NEW)))
        begun.commit("segments", _late_row(late, "error", begun))
    with _begun(tiny_model, store, retry_codes=()) as begun:
        assert set(begun.outdated.failures.rows) == {late}
        begun.commit("segments", _late_row(late, "ok", begun))
        begun.outdated.drop_unplanned(Plan(todo=PLAN.empty_table(), total=0))
    assert begun.log.state.models
    for model_id in begun.log.state.models:
        assert list(begun.log.state.committed(model_id)) == [late]
    found = verify(store)
    assert found.is_sound, found.findings


def _late_row(segment: str, status: str, begun: Begun) -> pa.Table:
    return table(
        "segments",
        1,
        segment_id=[segment],
        source_id=[NEW.source_id],
        model_id=[begun.committer._model_id],
        status=[status],
        error_code=["timeout" if status == "error" else None],
        faces_kept=[0],
    )


@dataclass(kw_only=True)
class Begun:
    """A run whose inputs are listed and whose Ray has not started."""

    store: FaultyStore
    log: CommitLog
    committer: Committer
    outdated: OutdatedRows
    progress: ProgressReporter
    run_id: str

    def commit(self, name: str, rows: pa.Table) -> None:
        """Rows of `sources`, or of `segments`."""
        file = stage_table(self.store, self.run_id, name, rows)
        ids = rows["segment_id"].to_pylist() if name == "segments" else []
        self.committer.add(StagedSet(segment_ids=ids, files=[file]))
        self.committer.commit()

    def replace(self) -> int:
        """What it does with the new content once it is probed and everything is checked; how many operations of the
        store that takes."""
        changed = ChangedFiles([NEW], replaces=True)
        changed.take(probed(row(NEW)))
        plan, known = Plan(todo=PLAN.empty_table(), total=0), planning.known_sources(self.store, self.log.state)
        self.store.count = 0
        known = self.outdated.replace(changed, known, plan, lambda rows: self.commit("sources", rows))
        assert known["source_id"].to_pylist() == [NEW.source_id]
        return self.store.count


@contextmanager
def _begun(
    model: Path,
    store: FaultyStore,
    stale_after_s: float = 60.0,
    on_changed: str = "error",
    listing: Listing | None = None,
    retry_codes: tuple[str, ...] | None = None,
) -> Iterator[Begun]:
    made = prepared_for(model, Store(store.url), EXTRACTION)
    prepared = replace(made, listing=listing or _listing(), dataset=replace(made.dataset, store=store))
    prepared = replace(prepared, retry_codes=retry_codes)
    config = RunConfig(
        inputs=("a",),
        output=store.url,
        heartbeat_s=stale_after_s / 2,
        stale_after_s=stale_after_s,
        on_changed=on_changed,
    )
    log, progress = CommitLog(store), ProgressReporter(quiet=True)
    log.refresh(write_checkpoints=True)
    with Run.create(store) as run:
        outdated = OutdatedRows(config, prepared, log, run, stop=threading.Event(), progress=progress)
        replacing = outdated.failures.replacing
        committer = Committer(Dataset.open(store), log, run, prepared.model_id, replacing=replacing)
        committer.publish_missing()
        yield Begun(store=store, log=log, committer=committer, outdated=outdated, progress=progress, run_id=run.run_id)


def _replaced(model: Path, store: FaultyStore, *, stale_after_s: float = 60.0) -> int:
    with _begun(model, store, stale_after_s) as begun:
        return begun.replace()


def _listing() -> Listing:
    return Listing(sources=[NEW])


def _known(store: Store) -> tuple[LogState, pa.Table]:
    log = CommitLog(store)
    log.refresh()
    return log.state, planning.known_sources(store, log.state)


def _rows(store: Store) -> list[str]:
    """Sources of the good rows that a plain glob sees."""
    tables = [pq.read_table(pa.BufferReader(store.read_bytes(path))) for path in store.list("segments")]
    return [one["source_id"] for rows in tables for one in rows.to_pylist() if one["status"] == "ok"]


def _copied(store: Store) -> FaultyStore:
    copy = FaultyStore(memory_url())
    for folder in ("faces", "segments", "sources", "crops", "_ran"):
        for path in store.list(folder):
            copy.write_bytes(path, store.read_bytes(path))
    copy.write_bytes("dataset.json", store.read_bytes("dataset.json"))
    return copy
