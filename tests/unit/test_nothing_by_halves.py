"""Rows that are replaced or taken out: after no change of the store, nor after a death there, is a segment public
without all of its faces."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import publish_missing
from pipeline.ledger.removal import Replacing, drop_segments, holders
from pipeline.ledger.runs import Run
from pipeline.storage.store import Store
from tests.faults.comparison import assert_no_half_segment
from tests.faulty_store import Died, FaultyStore, die, memory_url
from tests.staged_rows import MODEL, segment_id, stage

KEPT, AGAIN = [0, 1, 2], [3, 5, 7, 8]  # both have segments with one face and with two
LIVE = {segment_id(number) for number in KEPT + AGAIN}
CHOSEN = {segment_id(number) for number in AGAIN}


class OneByOne(FaultyStore):
    """Each deletion is a step of its own, as in a folder."""

    def delete_many(self, paths: Iterable[str]) -> None:
        for path in sorted(set(paths)):
            self.delete(path)


@pytest.fixture
def store() -> Store:
    """Two commits: in the first, segments that stay have their rows in the files of others that go."""
    store = Store(memory_url())
    dataset = Dataset.open_or_create(store, Extraction())
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, MODEL)
        for numbers in (KEPT + AGAIN[:2], AGAIN[2:]):
            committer.add(stage(store, run.run_id, numbers))
            committer.commit()
        committer.finish()
    return store


def old_rows(store: Store, log: CommitLog) -> Replacing:
    """Those of AGAIN, whatever files they are in."""
    files = holders(store, log.state.files(), CHOSEN, "segment_id")
    return Replacing(segments=set(CHOSEN), with_faces=set(CHOSEN), files=files)


def replaced(store: Store) -> None:
    """As `retry` does it, of segments that had faces before they broke."""
    log = CommitLog(store)
    log.refresh()
    replacing = old_rows(store, log)
    with Run.create(store) as run:
        committer = Committer(Dataset.open(store), log, run, MODEL, replacing=replacing)
        committer.add(stage(store, run.run_id, AGAIN))
        entry = committer.commit()
        assert entry is not None
        assert {path.split("/")[0] for path in entry.remove} == {"faces", "segments"}
        committer.finish()


def dropped(store: Store) -> None:
    log = CommitLog(store)
    log.refresh()
    with Run.create(store) as run:
        drop_segments(store, log, run, MODEL, old_rows(store, log), set(CHOSEN))


@pytest.mark.parametrize("act", [replaced, dropped])
def test_a_public_segment_has_all_of_its_faces_after_every_change(store: Store, act: Callable[[Store], None]) -> None:
    files = {path: store.read_bytes(path) for path in store.list("")}

    def copied(die_at: int) -> tuple[OneByOne, list[int]]:
        """A copy, which is looked at after each change; but before a death it is as it was without one."""
        copy, looks = OneByOne(memory_url()), list[int]()
        for path, data in files.items():
            copy.write_bytes(path, data)

        def look() -> None:
            looks.append(whole_segments(copy) if len(looks) >= die_at - 1 else 0)
            if len(looks) == die_at:
                die()

        copy.changed = look
        return copy, looks

    undisturbed, looks = copied(0)
    act(undisturbed)
    left = LIVE if act is replaced else LIVE - CHOSEN
    assert set(public(undisturbed, "segments")["segment_id"].to_pylist()) == left
    assert min(looks) < len(left), "no look fell between removal and publication"
    for change in range(1, len(looks) + 1):
        again, _ = copied(change)
        with pytest.raises(Died):
            act(again)
        publish_missing(again, CommitLog(again))


def whole_segments(store: FaultyStore) -> int:
    """How many segments a plain glob sees, each with all of its faces."""
    segments, faces = public(store, "segments"), public(store, "faces")
    assert_no_half_segment(segments, faces)
    return int(segments.num_rows)


def public(store: FaultyStore, table: str) -> pa.Table:
    """What a plain glob sees. The look itself is no step."""
    plain = Store(store.url)
    parts = [pq.read_table(pa.BufferReader(plain.read_bytes(path))) for path in plain.list(table)]
    return pa.concat_tables([schema.empty(table), *parts])
