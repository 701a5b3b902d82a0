"""What `retry` finds: failed segments, what lies behind a break, and error rows that no plan has any more."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline import planning, schema
from pipeline.failures import find_failures
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import drop_segments
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.ledger.verify import verify
from pipeline.media.sources import Listing, Source
from pipeline.segments import plan_table
from pipeline.storage.store import Store
from tests.faulty_store import memory_url
from tests.unit.test_planning import EXTRACTION, probed, row, segment_row, source

FILM, ARCHIVE = source(1), source(2)


def ids_of(*sources: dict[str, Any]) -> list[str]:
    locations = {one["source_id"]: one["source_uri"] for one in sources}
    plan = plan_table(probed(*sources), locations=locations, extraction=EXTRACTION)
    return [str(one) for one in plan["segment_id"].to_pylist()]


def commit(
    store: Store, of: Source, known: pa.Table | None, statuses: dict[str, str], covered: tuple[str, ...] = ()
) -> None:
    """known: rows of `sources` to commit. statuses: of segments to commit."""
    log = CommitLog(store)
    with Run.create(store) as run:
        committer = Committer(Dataset.open_or_create(store, EXTRACTION), log, run, "m")
        files = [] if known is None else [stage_table(store, run.run_id, "sources", known)]
        rows = [
            segment_row(of, status) | {"segment_id": one, "run_id": run.run_id, "error_code": "unsupported"}
            for one, status in statuses.items()
        ]
        if rows:
            table = pa.Table.from_pylist(rows, schema=schema.SEGMENTS)
            files.append(stage_table(store, run.run_id, "segments", table))
        committer.add(StagedSet(segment_ids=[*statuses, *covered], covered=list(covered), files=files))
        committer.commit()


def test_with_a_break_go_the_windows_behind_it() -> None:
    store, known = Store(memory_url()), row(FILM)
    ok, failed, *behind = ids_of(known)
    commit(store, FILM, probed(known), {ok: "ok", failed: "error"}, tuple(behind))
    log = CommitLog(store)
    log.refresh()
    found = find_failures(store, log.state, "m", planning.known_sources(store, log.state), EXTRACTION)
    assert found.rows == {failed: FILM.source_id}
    assert found.replacing.segments == {failed, *behind}
    assert found.replacing.followers == {failed: frozenset(behind)}
    assert planning.count_failed(store, log.state, "m", Listing(sources=[FILM, ARCHIVE])) == 1


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
