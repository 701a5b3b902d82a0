"""What `retry` finds: failed segments, what lies behind a break, and error rows that no plan has any more.

Kept crops belong to no model: `retry` of one replaces its own and leaves those of another alone.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.retry import CODES
from pipeline import planning, schema
from pipeline.errors import StoreError
from pipeline.failures import count_answers, error_rows, find_failures, find_overtaken
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import Entry
from pipeline.ledger.live import sound_rows
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import Replacing, drop_segments
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedFile, StagedSet, stage_table, to_commit
from pipeline.ledger.verify import verify
from pipeline.media.sources import Listing, Source
from pipeline.segments import plan_table
from pipeline.storage.store import Store
from pipeline.stored import best_base
from tests.faulty_store import FaultyStore, memory_url
from tests.staged_rows import table
from tests.unit.test_planning import EXTRACTION, probed, row, segment_row, source

FILM, ARCHIVE = source(1), source(2)


def ids_of(*sources: dict[str, Any]) -> list[str]:
    locations = {one["source_id"]: one["source_uri"] for one in sources}
    plan = plan_table(probed(*sources), locations=locations, extraction=EXTRACTION)
    return [str(one) for one in plan["segment_id"].to_pylist()]


def commit(
    store: Store,
    of: Source,
    known: pa.Table | None,
    statuses: dict[str, str],
    covered: tuple[str, ...] = (),
    code: str = "unsupported",
    model_id: str = "m",
    replacing: Replacing | None = None,
) -> None:
    """known: rows of `sources` to commit. statuses: of segments to commit."""
    log = CommitLog(store)
    with Run.create(store) as run:
        committer = Committer(
            Dataset.open_or_create(store, EXTRACTION), log, run, model_id, replacing=replacing or Replacing()
        )
        files = [] if known is None else [stage_table(store, run.run_id, "sources", known)]
        rows = [
            segment_row(of, status)
            | {"segment_id": one, "run_id": run.run_id, "model_id": model_id}
            | {"error_code": None if status == "ok" else code}
            for one, status in statuses.items()
        ]
        if rows:
            table = pa.Table.from_pylist(rows, schema=schema.SEGMENTS)
            files.append(stage_table(store, run.run_id, "segments", table))
        committer.add(StagedSet(segment_ids=[*statuses, *covered], covered=list(covered), files=files))
        committer.commit()


KEPT = "00" * 10


def keep(
    store: Store,
    model_id: str,
    status: str,
    faces: int,
    *,
    retried: bool = False,
    beside: bool = False,
) -> Entry:
    """Commits the segment KEPT for a model, with so many faces and their crops. beside: together with another segment
    that has some. retried: in the place of what the model had of it."""
    log = CommitLog(store)
    log.refresh()
    counts = {KEPT: (status, faces)} | ({"11" * 10: ("ok", 1)} if beside else {})
    owners = [one for one, (_, count) in counts.items() for _ in range(count)]
    face_ids = [f"{one}-{index}" for one, (_, count) in counts.items() for index in range(count)]
    with Run.create(store) as run:
        replacing = Replacing()
        if retried:
            known = planning.known_sources(store, log.state)
            replacing = find_failures(store, log.state, model_id, known, EXTRACTION).replacing
            assert replacing.segments == {KEPT}
        committer = Committer(Dataset.open_or_create(store, EXTRACTION), log, run, model_id, replacing=replacing)
        tables = {
            "segments": table(
                "segments", len(counts), segment_id=list(counts), model_id=[model_id] * len(counts),
                status=[one for one, _ in counts.values()], faces_kept=[count for _, count in counts.values()],
                error_code=[None if one == "ok" else "corrupt" for one, _ in counts.values()],
            ),
            "faces": table(
                "faces", len(owners), face_id=face_ids, segment_id=owners, model_id=[model_id] * len(owners)
            ),
            "crops": table("crops", len(owners), face_id=face_ids, segment_id=owners),
        }  # fmt: skip
        files = [stage_table(store, run.run_id, name, rows) for name, rows in tables.items() if rows.num_rows]
        committer.add(StagedSet(segment_ids=list(counts), files=files))
        entry = committer.commit()
        assert entry is not None
        committer.finish()
    return entry


def crops_of(store: Store) -> list[str]:
    """Faces of KEPT whose crops a plain glob sees."""
    files = [pq.read_table(pa.BufferReader(store.read_bytes(path))) for path in store.list("crops")]
    rows = [row for rows in files for row in rows.to_pylist()]
    return sorted(row["face_id"] for row in rows if row["segment_id"] == KEPT)


def check_crops(store: Store, faces: int) -> None:
    assert crops_of(store) == [f"{KEPT}-{index}" for index in range(faces)]
    assert verify(store).findings == []


@pytest.mark.parametrize("first", [("error", 0), ("partial", 1)])
@pytest.mark.parametrize("again", [("ok", 2), ("error", 0), ("partial", 1)])
@pytest.mark.parametrize("beside", [False, True])
def test_crops_of_another_model_stay_as_they_are(first: tuple[str, int], again: tuple[str, int], beside: bool) -> None:
    store = Store(memory_url())
    keep(store, "a" * 12, "ok", 2)
    keep(store, "b" * 12, *first)
    entry = keep(store, "b" * 12, *again, retried=True, beside=beside)
    assert (entry.segments_removed, entry.crops_removed) == ([KEPT], [])
    check_crops(store, 2)


@pytest.mark.parametrize(("first", "again"), [
    (("partial", 1), ("ok", 2)), (("partial", 2), ("partial", 1)), (("partial", 1), ("error", 0)),
    (("error", 0), ("ok", 2)), (("error", 0), ("partial", 1)), (("error", 0), ("error", 0)),
])  # fmt: skip
@pytest.mark.parametrize("beside", [False, True])
def test_crops_of_the_model_give_way_to_what_the_retry_found(
    first: tuple[str, int], again: tuple[str, int], beside: bool
) -> None:
    store = Store(memory_url())
    keep(store, "a" * 12, *first, beside=beside)
    keep(store, "a" * 12, *again, retried=True)
    check_crops(store, again[1])


@pytest.mark.parametrize(("again", "left"), [(("ok", 2), 2), (("partial", 1), 1), (("error", 0), 1)])
@pytest.mark.parametrize("beside", [False, True])
def test_crops_that_two_models_have_broken_off_grow_with_either(
    again: tuple[str, int], left: int, beside: bool
) -> None:
    """The second model's rows are the first one's, scored again: its crops are the same."""
    store = Store(memory_url())
    for model_id in ("a" * 12, "b" * 12):
        keep(store, model_id, "partial", 1)
    keep(store, "a" * 12, *again, retried=True, beside=beside)
    check_crops(store, left)


def test_a_failed_segment_has_no_crops_for_another_model_to_find_there() -> None:
    store = Store(memory_url())
    assert keep(store, "a" * 12, "error", 0, beside=True).crops == ["11" * 10]
    keep(store, "b" * 12, "ok", 2)
    check_crops(store, 2)


def test_with_a_break_go_the_windows_behind_it() -> None:
    store, known = Store(memory_url()), row(FILM)
    ok, failed, *behind = ids_of(known)
    commit(store, FILM, probed(known), {ok: "ok", failed: "error"}, tuple(behind))
    log = CommitLog(store)
    log.refresh()
    kept = to_commit(
        stage_table(store, "r", "crops", table("crops", 1, segment_id=[behind[0]])), run_id="r", model_id=""
    )
    log.append(lambda state: Entry(run_id="r", add=[kept], crops=behind[:2]))  # the first is another model's
    found = find_failures(store, log.state, "m", planning.known_sources(store, log.state), EXTRACTION)
    assert found.replacing.crops == {behind[1]}, "there is nothing of it, but the log says that there was"
    assert found.rows == {failed: FILM.source_id}
    assert found.replacing.segments == {failed, *behind}
    assert found.replacing.followers == {failed: frozenset(behind)}
    assert planning.count_failed(store, log.state, "m", Listing(sources=[FILM, ARCHIVE])) == 1


@pytest.mark.parametrize("codes", [(), ("source_changed",), ("corrupt",)])
def test_what_changed_under_a_reader_is_tried_again_and_a_new_content_is_not(codes: tuple[str, ...]) -> None:
    """The one is a row of a source that the dataset knows. For the other there is `run --on-changed replace`."""
    store, changed = Store(memory_url()), source(1, "22:22")
    (failed, *_), (told, *_) = ids_of(row(FILM)), ids_of(row(changed))
    commit(store, FILM, probed(row(FILM)), {failed: "error"}, code="source_changed")
    commit(store, changed, None, {told: "error"}, code="source_changed")
    log = CommitLog(store)
    log.refresh()
    found = find_failures(store, log.state, "m", planning.known_sources(store, log.state), EXTRACTION, codes)
    assert found.rows == ({} if "corrupt" in codes else {failed: FILM.source_id})
    assert set(codes) <= set(CODES)


def test_of_failures_in_one_file_those_without_the_code_stay() -> None:
    store = Store(memory_url())
    dataset, log = Dataset.open_or_create(store, EXTRACTION), CommitLog(store)
    (slow, *_), (broken, *_) = ids_of(row(FILM)), ids_of(row(ARCHIVE))
    failed = [
        segment_row(of, "error") | {"segment_id": one, "run_id": "r", "error_code": code}
        for of, one, code in ((FILM, slow, "timeout"), (ARCHIVE, broken, "corrupt"))
    ]

    def put(rows: list[dict[str, Any]], files: list[StagedFile], replacing: Replacing) -> None:
        with Run.create(store) as run:
            committer = Committer(dataset, log, run, "m", replacing=replacing)
            staged = stage_table(store, run.run_id, "segments", pa.Table.from_pylist(rows, schema=schema.SEGMENTS))
            committer.add(StagedSet(segment_ids=[one["segment_id"] for one in rows], files=[*files, staged]))
            committer.commit()
            committer.finish()

    put(failed, [stage_table(store, "r", "sources", probed(row(FILM), row(ARCHIVE)))], Replacing())
    assert len(log.state.files("segments")) == 1
    found = find_failures(store, log.state, "m", planning.known_sources(store, log.state), EXTRACTION, ("timeout",))
    assert found.rows == {slow: FILM.source_id}
    put([segment_row(FILM, "ok") | {"segment_id": slow, "run_id": "r"}], [], found.replacing)
    left = error_rows(store, log.state, ["segment_id", "error_code", "run_id"]).to_pylist()
    assert left == [{"segment_id": broken, "error_code": "corrupt", "run_id": "r"}]
    assert log.state.count("m") == 2
    assert verify(store).findings == []


def test_a_partial_row_makes_its_source_a_failed_one() -> None:
    store = Store(memory_url())
    commit(store, FILM, probed(row(FILM)), {ids_of(row(FILM))[0]: "partial"})
    log = CommitLog(store)
    log.refresh()
    assert planning.count_failed(store, log.state, "m", Listing(sources=[FILM, ARCHIVE])) == 1


def test_the_error_row_of_a_probe_is_found_when_a_killed_retry_has_probed_already() -> None:
    """An archive of videos alone has no segment like the one that told of the failed probe."""
    store = Store(memory_url())
    failed = row(ARCHIVE, kind="archive", error_code="unreachable", error_message="no")
    index = [{"ordinal": 0, "name": "a.mp4", "offset": 512, "size": 9}]
    mended = row(ARCHIVE, kind="archive", index=index)
    (told,) = ids_of(failed)
    assert told not in ids_of(mended)
    commit(store, ARCHIVE, probed(failed), {told: "error"})
    log = CommitLog(store)
    log.refresh()
    first = find_failures(store, log.state, "m", planning.known_sources(store, log.state), EXTRACTION)
    assert (first.rows, first.probe) == ({told: ARCHIVE.source_id}, {ARCHIVE.source_id})
    with Run.create(store) as run:
        committer = Committer(Dataset.open(store), log, run, "m", replacing=first.replacing)
        again = stage_table(store, run.run_id, "sources", probed(mended))
        committer.add(StagedSet(segment_ids=[], files=[again]))
        committer.commit()  # and there it was killed
    known = planning.known_sources(store, log.state)
    second = find_failures(store, log.state, "m", known, EXTRACTION)
    assert (second.rows, second.probe) == ({told: ARCHIVE.source_id}, set())
    with Run.create(store) as run:
        drop_segments(store, log, run, "m", second.replacing, set(second.rows))
    assert planning.count_failed(store, log.state, "m", Listing(sources=[ARCHIVE])) == 0
    assert verify(store).is_sound


def statuses(store: Store, model_id: str) -> dict[str, str]:
    """Of the model's live rows; each segment has one."""
    log = CommitLog(store)
    log.refresh()
    assert verify(store).is_sound
    rows = [row for file in log.state.files("segments", model_id) for row in sound_rows(store, file).to_pylist()]
    found = {row["segment_id"]: row["status"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_what_the_base_has_an_answer_for_by_now_is_scored_again() -> None:
    """A window that failed goes with those that have no row because of it; what failed for both models stays."""
    store = Store(memory_url())
    (first, broken, *behind), (lost, *_) = ids_of(row(FILM)), ids_of(row(ARCHIVE))
    commit(store, FILM, probed(row(FILM), row(ARCHIVE)), dict.fromkeys((first, broken, *behind), "ok"), model_id="a")
    commit(store, ARCHIVE, None, {lost: "error"}, model_id="a")
    commit(store, FILM, None, {first: "ok", broken: "error"}, tuple(behind), model_id="b")
    commit(store, ARCHIVE, None, {lost: "error"}, model_id="b")
    log = CommitLog(store)
    log.refresh()
    known = planning.known_sources(store, log.state)
    assert (count_answers(store, log.state, "a"), count_answers(store, log.state, "b")) == (2 + len(behind), 1)
    assert best_base(store, log.state, "c") == "a"
    assert find_overtaken(store, log.state, "a", "b", lambda: known, EXTRACTION).segments == set()
    replacing = find_overtaken(store, log.state, "b", "a", lambda: known, EXTRACTION)
    assert replacing.segments == {broken, *behind}
    assert replacing.must_wait([broken], [broken])
    commit(store, FILM, None, dict.fromkeys((broken, *behind), "ok"), model_id="b", replacing=replacing)
    assert statuses(store, "b") == {**dict.fromkeys((first, broken, *behind), "ok"), lost: "error"}
    assert statuses(store, "a") == statuses(store, "b")
    log.refresh()
    assert best_base(store, log.state, "c") == "b", "the newest among equals"


@pytest.mark.parametrize("code", ["source_changed", "timeout"])
def test_a_row_that_tells_of_a_change_gives_way_to_one_of_the_new_content(code: str) -> None:
    """Another run saw the old rows just before they left. What it has read of the new content itself stays."""
    store = Store(memory_url())
    (first, second, *_) = ids_of(row(FILM))
    replacing = Replacing(awaited={first})
    commit(store, FILM, None, {first: "error", second: "error"}, code=code)
    commit(store, FILM, probed(row(FILM)), dict.fromkeys(ids_of(row(FILM)), "ok"), replacing=replacing)
    there = statuses(store, "m")
    assert there.pop(first) == ("ok" if code == "source_changed" else "error")
    assert there.pop(second) == "error"
    assert set(there.values()) == {"ok"}


@pytest.mark.parametrize("answer", ["arrived", "lost"])
def test_a_commit_that_is_called_again_replaces_once(answer: str) -> None:
    """Its put seemed to fail; the entry may have been written or not."""
    store = FaultyStore(memory_url())
    (first, *rest) = ids_of(row(FILM))
    commit(store, FILM, probed(row(FILM)), {first: "error", **dict.fromkeys(rest, "ok")})
    log = CommitLog(store)
    log.refresh()
    replacing = find_failures(store, log.state, "m", planning.known_sources(store, log.state), EXTRACTION).replacing
    with Run.create(store) as run:
        committer = Committer(Dataset.open(store), log, run, "m", replacing=replacing)
        again = segment_row(FILM, "ok") | {"segment_id": first, "run_id": run.run_id}
        file = stage_table(store, run.run_id, "segments", pa.Table.from_pylist([again], schema=schema.SEGMENTS))
        committer.add(StagedSet(segment_ids=[first], files=[file]))

        put = store.put_if_absent

        def unanswered(path: str, data: bytes) -> bool:
            if answer == "arrived":
                put(path, data)
            raise StoreError("connection reset by peer")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "put_if_absent", unanswered)
            with pytest.raises(StoreError):
                committer.commit()
        committer.commit()
        committer.finish()
    assert statuses(store, "m") == dict.fromkeys((first, *rest), "ok")
