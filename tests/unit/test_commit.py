from __future__ import annotations

import hashlib
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import RunClosedError, StoreError
from pipeline.ledger import merge
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import Entry
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import publish_entry
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.ledger.sweep import close_stale_runs
from pipeline.storage.store import Store
from tests.faulty_store import FaultyStore, lose_connection, memory_url
from tests.staged_rows import (
    MODEL,
    OTHER_MODEL,
    crops,
    face_ids,
    faces,
    segment_id,
    segments_table,
    source_id,
    stage,
)


class Driver:
    """Store, log, run and committer of one driver."""

    def __init__(self, url: str, model_id: str = MODEL) -> None:
        self.store = FaultyStore(url)
        self.log = CommitLog(self.store)
        self.run = Run.create(self.store)
        self.committer = Committer(Dataset.open_or_create(self.store, Extraction()), self.log, self.run, model_id)
        self.committer.publish_missing()
        self.committer.sweep()

    def stage(self, numbers: list[int], **given: object) -> None:
        self.committer.add(stage(self.store, self.run.run_id, numbers, **given))  # type: ignore[arg-type]


@pytest.fixture
def url() -> str:
    return memory_url()


def public(url: str, table: str) -> list[pa.Table]:
    store = Store(url)
    return [pq.read_table(pa.BufferReader(store.read_bytes(path))) for path in store.list(table)]


def values(url: str, table: str, column: str) -> list[str]:
    return sorted(value for rows in public(url, table) for value in rows[column].to_pylist())


def test_a_commit_merges_small_files_into_one_per_table(url: str) -> None:
    driver = Driver(url)
    for first in range(0, 9, 3):
        driver.stage([first, first + 1, first + 2], source_numbers=[first])
    entry = driver.committer.commit()
    assert entry is not None
    assert Counter(file.table for file in entry.add) == {"sources": 1, "faces": 1, "segments": 2}
    ids = [segment_id(n) for n in range(9)]
    assert values(url, "segments", "segment_id") == ids
    assert values(url, "faces", "face_id") == sorted(face_ids(ids))
    assert values(url, "sources", "source_id") == [source_id(n) for n in (0, 3, 6)]
    assert Store(url).list("_ran/staging") == []
    for file in entry.add:
        data = Store(url).read_bytes(file.path)
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.bytes)
        assert pq.read_metadata(pa.BufferReader(data)).num_rows == file.rows
        assert schema.file_version(pq.read_metadata(pa.BufferReader(data))) == schema.SCHEMA_VERSION


def test_error_rows_are_in_files_of_their_own(url: str) -> None:
    driver = Driver(url)
    driver.stage([3, 4, 9])
    driver.committer.commit()
    by_name = {path.endswith("-errors.parquet"): path for path in Store(url).list("segments")}
    rows = {errors: pq.read_table(pa.BufferReader(Store(url).read_bytes(path))) for errors, path in by_name.items()}
    assert rows[True]["segment_id"].to_pylist() == [segment_id(4), segment_id(9)]
    assert rows[False]["segment_id"].to_pylist() == [segment_id(3)]


def test_nothing_new_commits_nothing(url: str) -> None:
    driver = Driver(url)
    assert driver.committer.commit() is None
    driver.stage([1, 2])
    driver.committer.commit()
    driver.stage([2])
    driver.stage([1])
    assert driver.committer.commit() is None
    assert Store(url).list("_ran/log") == ["_ran/log/000000000000.json"]
    assert Store(url).list("_ran/staging") == []


def test_replays_and_other_groupings_commit_each_segment_once(url: str) -> None:
    first, second = Driver(url), Driver(url)
    first.stage([0, 1, 2])
    second.stage([1, 2, 3])
    second.stage([3, 5])
    second.stage([2, 5, 6])
    first.committer.commit()
    entry = second.committer.commit()
    assert entry is not None
    assert entry.segments == [segment_id(n) for n in (3, 5, 6)]
    assert values(url, "segments", "segment_id") == [segment_id(n) for n in (0, 1, 2, 3, 5, 6)]
    assert values(url, "faces", "face_id") == sorted(face_ids([segment_id(n) for n in (0, 1, 2, 3, 5, 6)]))


def test_driver_that_comes_second_while_committing_drops_its_share(url: str) -> None:
    """Somebody commits between this driver's look at the log and its own entry."""
    slow, quick = Driver(url), Driver(url)
    slow.stage([1, 2, 7])
    quick.stage([2, 3])
    put = next(
        n for n, operation in enumerate(_operations(url, lambda d: d.stage([8]))) if operation == "put_if_absent"
    )
    slow.store.at(put + 1, "before", lambda: quick.committer.commit() and None)
    entry = slow.committer.commit()
    assert entry is not None
    assert entry.segments == [segment_id(1), segment_id(7)]
    assert values(url, "segments", "segment_id") == [segment_id(n) for n in (1, 2, 3, 7)]


def _operations(url: str, prepare: object) -> list[str]:
    """The operations of one commit of a driver that is alone."""
    driver = Driver(memory_url())
    prepare(driver)  # type: ignore[operator]
    seen: list[str] = []
    attempt = driver.store._attempt
    driver.store._attempt = lambda op, path, act: (seen.append(op), attempt(op, path, act))[1]  # type: ignore[method-assign]
    driver.committer.commit()
    return seen


def test_two_models_commit_the_same_segments_and_crops_once(url: str) -> None:
    for model_id in (MODEL, OTHER_MODEL):
        driver = Driver(url, model_id)
        driver.stage([1, 2], model_id=model_id, keep_crops=True)
        driver.committer.commit()
    assert driver.log.state.models == [MODEL, OTHER_MODEL]
    assert values(url, "segments", "model_id") == [MODEL] * 2 + [OTHER_MODEL] * 2
    assert values(url, "crops", "face_id") == sorted(face_ids([segment_id(1), segment_id(2)]))
    assert list(driver.log.state.crops) == [segment_id(1), segment_id(2)]


def test_sources_are_committed_once(url: str) -> None:
    driver = Driver(url)
    driver.stage([], source_numbers=[1, 2, 1])
    driver.stage([], source_numbers=[2, 3])
    driver.committer.commit()
    driver.stage([], source_numbers=[3, 4])
    driver.committer.commit()
    assert values(url, "sources", "source_id") == [source_id(n) for n in (1, 2, 3, 4)]
    assert driver.log.state.models == []


def test_covered_segments_are_done_without_a_row(url: str) -> None:
    driver = Driver(url)
    driver.stage([1, 2, 3], covered=[2, 3])
    driver.stage([6, 7], covered=[6, 7], tails={source_id(1): 9})
    driver.committer.commit()
    state = driver.log.state
    assert state.count(MODEL) == 5
    assert list(state.covered(MODEL)) == [segment_id(n) for n in (2, 3, 6, 7)]
    assert values(url, "segments", "segment_id") == [segment_id(1)]
    assert state.tails == {source_id(1): 9}


def test_a_segment_without_a_row_is_done_only_beside_the_error_row_that_speaks_for_it(url: str) -> None:
    """Whichever driver has committed that, and also if the segment between is without a row itself."""
    other, driver = Driver(url), Driver(url)
    good, failed = 3, 4
    other.stage([good, failed])
    other.committer.commit()
    driver.stage([good, 5, 6], covered=[5, 6], tellers={5: good, 6: 5})
    driver.stage([failed, 7], covered=[7], tellers={7: failed})
    driver.stage([8], covered=[8], tellers={8: 7})
    driver.stage([9, 10], covered=[10], tellers={10: 9})
    driver.committer.commit()
    assert list(driver.log.state.covered(MODEL)) == [segment_id(n) for n in (7, 8, 10)]
    assert driver.committer.take_unspoken() == {segment_id(5), segment_id(6)}
    driver.stage([11], covered=[11], tellers={11: 10})
    driver.committer.commit()
    assert driver.committer.take_unspoken() == set()
    assert list(driver.log.state.committed(MODEL)) == [segment_id(n) for n in (3, 4, 7, 8, 9, 10, 11)]


def test_first_commit_without_a_face_still_leaves_a_file_to_glob(url: str) -> None:
    driver = Driver(url)
    driver.stage([3])
    driver.committer.commit()
    assert [rows.num_rows for rows in public(url, "faces")] == [0]
    driver.stage([6])
    driver.committer.commit()
    assert len(public(url, "faces")) == 1


def test_large_staged_file_is_taken_as_it_is_unless_rows_must_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "LARGE_BYTES", 1)
    driver = Driver(url)
    driver.stage([1, 2], keep_crops=True)
    driver.stage([2, 5], keep_crops=True)
    whole, cut = (files for staged in driver.committer._sets if (files := {f.table: f for f in staged.files}))
    entry = driver.committer.commit()
    assert entry is not None
    staged = {file.staged for file in entry.add}
    assert whole["faces"].path in staged
    assert whole["crops"].path in staged
    assert cut["faces"].path not in staged
    assert values(url, "faces", "face_id") == sorted(face_ids([segment_id(n) for n in (1, 2, 5)]))
    assert values(url, "crops", "face_id") == sorted(face_ids([segment_id(n) for n in (1, 2, 5)]))


def test_merged_rows_are_the_staged_ones_in_order(url: str) -> None:
    driver = Driver(url)
    for first in range(0, 30, 3):
        driver.stage([n for n in range(first, first + 3) if n % 5 != 4])
    driver.committer.commit()
    ids = [segment_id(n) for n in range(30) if n % 5 != 4]
    (rows,) = public(url, "faces")
    assert rows.equals(faces(ids, run_id=driver.run.run_id))
    (rows,) = public(url, "segments")
    assert rows.equals(segments_table(ids, run_id=driver.run.run_id))


def test_row_groups_are_coalesced_and_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "ROW_GROUP_ROWS", 5)
    driver = Driver(url)
    for number in range(0, 40, 10):
        driver.stage([number, number + 1, number + 2])
    entry = driver.committer.commit()
    assert entry is not None
    (path,) = Store(url).list("faces")
    metadata = pq.read_metadata(pa.BufferReader(Store(url).read_bytes(path)))
    sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert sum(sizes) == len(face_ids([segment_id(n + k) for n in range(0, 40, 10) for k in range(3)]))
    assert max(sizes) <= 5


def test_work_of_a_commit_grows_with_its_units_and_no_faster(tmp_path: Path) -> None:
    def calls(units: int) -> int:
        count = 0

        def count_call(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        driver = Driver(str(tmp_path / str(units)))
        for unit in range(units):
            driver.stage([2 * unit, 2 * unit + 1])
        sys.setprofile(count_call)
        driver.committer.commit()
        sys.setprofile(None)
        return count

    few, more, most = calls(10), calls(30), calls(50)
    assert most - more < 1.3 * (more - few)  # twenty more units cost the same whatever is there


def test_outage_while_committing_loses_nothing_and_the_call_may_be_repeated(url: str) -> None:
    for number in range(1, 30):
        driver = Driver(url)
        model_id = f"{number:012x}"
        driver.committer = Committer(Dataset.open(driver.store), driver.log, driver.run, model_id)
        driver.stage([1, 2], model_id=model_id)
        for attempt in range(3):
            driver.store.at(number + attempt, "after", lose_connection)
        try:
            driver.committer.commit()
        except StoreError:
            driver.store.disarm()
            driver.committer.commit()
        driver.store.disarm()
        assert driver.log.state.count(model_id) == 2
        assert len(Store(url).list(f"segments/{model_id}")) == 1
        driver.committer.finish()
        assert Store(url).list(f"_ran/staging/{driver.run.run_id}") == []


def test_damaged_staged_file_is_not_committed(url: str) -> None:
    driver = Driver(url)
    staged = stage(driver.store, driver.run.run_id, [1])
    driver.committer.add(staged)
    driver.store.write_bytes(staged.files[0].path, b"PAR1 something else")
    with pytest.raises(StoreError, match="is not what was staged"):
        driver.committer.commit()
    assert Store(url).list("_ran/log") == []


@pytest.mark.parametrize("ids", [[1], [1, 2, 3]])
def test_rows_that_their_set_does_not_account_for_are_a_bug(url: str, ids: list[int]) -> None:
    driver = Driver(url)
    rows = segments_table([segment_id(1), segment_id(2)])
    file = stage_table(driver.store, driver.run.run_id, "segments", rows)
    driver.committer.add(StagedSet(segment_ids=[segment_id(n) for n in ids], files=[file]))
    with pytest.raises(ValueError, match=r"does not name|are to be committed"):
        driver.committer.commit()
    assert Store(url).list("_ran/log") == []


def test_set_that_names_a_segment_twice_is_a_bug() -> None:
    with pytest.raises(ValueError, match="twice"):
        StagedSet(segment_ids=[segment_id(1), segment_id(1)])
    with pytest.raises(ValueError, match="covers"):
        StagedSet(segment_ids=[], covered=[segment_id(1)])


def test_closed_driver_commits_nothing_more_and_says_why(url: str) -> None:
    sleeper, other = Driver(url), Driver(url)
    sleeper.stage([1])
    other.run.stale_after_s = -1.0
    assert other.committer.sweep() > 0
    with pytest.raises(RunClosedError, match=f"run {sleeper.run.run_id} was closed"):
        sleeper.committer.commit()
    sleeper.run.stale_after_s = -1.0  # its heartbeat lapsed
    sleeper.committer._checked_at = -1e9
    with pytest.raises(RunClosedError):
        sleeper.committer.check_open()
    assert values(url, "segments", "segment_id") == []


def test_run_is_closed_once(url: str) -> None:
    dead, first, second = Driver(url), Driver(url), Driver(url)
    for driver in (first, second):
        driver.run.stale_after_s = -1.0
    assert close_stale_runs(first.store, first.log, first.run) == sorted([dead.run.run_id, second.run.run_id])
    with pytest.raises(RunClosedError):
        close_stale_runs(second.store, second.log, second.run)
    assert close_stale_runs(first.store, first.log, first.run) == []


def test_sweep_spares_live_runs_and_takes_finished_ones(url: str) -> None:
    finished, live, last = Driver(url), Driver(url), Driver(url)
    finished.stage([1])
    live.stage([2])
    finished.run.finish()
    assert last.committer.sweep() > 0
    staged = Store(url).list("_ran/staging")
    assert staged
    assert all(live.run.run_id in path for path in staged)
    live.committer.commit()
    assert values(url, "segments", "segment_id") == [segment_id(2)]


def test_old_temporary_files_are_swept(tmp_path: Path) -> None:
    import os

    driver = Driver(str(tmp_path))
    for name, age in (("old", 1e6), ("new", 0.0)):
        driver.store.write_bytes(f"_ran/tmp/{name}", b"")
        os.utime(tmp_path / "_ran/tmp" / name, (os.stat(tmp_path).st_mtime - age,) * 2)
    driver.committer.sweep()
    assert Store(str(tmp_path)).list("_ran/tmp") == ["_ran/tmp/new"]


def test_lost_committed_file_is_named(url: str) -> None:
    driver = Driver(url)
    driver.stage([1])
    entry = driver.committer.commit()
    assert entry is not None
    Store(url).delete(entry.add[-1].path)
    with pytest.raises(StoreError, match="neither it nor its staged file exists"):
        Driver(url)


def test_slow_publisher_takes_back_a_file_that_was_removed_meanwhile(url: str) -> None:
    """On an object store a copy may be under way while another driver removes its source and its target."""
    slow, other = Driver(url), Driver(url)
    slow.stage([1, 4])
    publish = slow.store.publish

    def publish_slowly(staged: str, final: str) -> bool:
        if final.endswith("-errors.parquet"):
            read_before = slow.store.read_bytes(staged)
            remove = Entry(run_id=other.run.run_id, model_id=MODEL, remove=[final], segments_removed=[segment_id(4)])
            publish_entry(other.store, other.log, other.log.append(lambda state: remove) or remove)
            assert not slow.store.exists(staged)
            slow.store.write_bytes(staged, read_before)
        return publish(staged, final)

    slow.store.publish = publish_slowly  # type: ignore[method-assign]
    slow.committer.commit()
    assert values(url, "segments", "segment_id") == [segment_id(1)]
    assert Store(url).list("_ran/staging") == []


def test_crops_without_faces_are_not_promised(url: str) -> None:
    driver = Driver(url)
    driver.stage([3], keep_crops=True)
    driver.committer.commit()
    assert list(driver.log.state.crops) == []
    assert crops([segment_id(3)]).num_rows == 0
