from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import NewerVersionError, RunClosedError, StoreError
from pipeline.ledger import checkpoint
from pipeline.ledger.entry import CommittedFile, Entry, parse_entry
from pipeline.ledger.log import CommitLog, checkpoint_path, entry_path
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store
from tests.faulty_store import FaultyStore, lose_connection, memory_url
from tests.staged_rows import MODEL, OTHER_MODEL, segment_id, source_id


@pytest.fixture
def url() -> str:
    return memory_url()


def file(name: str, *, table: str = "faces", model_id: str = MODEL) -> CommittedFile:
    return CommittedFile(
        table=table, path=f"{table}/{model_id}/{name}", staged=f"_ran/staging/r/{name}", rows=1, bytes=2,
        sha256="ab", model_id=model_id,
    )  # fmt: skip


def entry(number: int, **values: object) -> Entry:
    return Entry(**{"run_id": "r", "model_id": MODEL, "segments": [segment_id(number)], **values})  # type: ignore[arg-type]


def state_of(log: CommitLog) -> bytes:
    return checkpoint.to_parquet(log.state)


def test_entries_add_up(url: str) -> None:
    log = CommitLog(Store(url))
    log.append(lambda state: entry(0, add=[file("a"), file("b", table="segments")], tails={source_id(1): 3}))
    log.append(lambda state: entry(1, model_id=OTHER_MODEL, run_id="s", add=[file("c", model_id=OTHER_MODEL)]))
    log.append(lambda state: entry(2, covered=[segment_id(2)], sources=[source_id(1)], tails={source_id(1): 2}))
    log.append(lambda state: Entry(run_id="s", close="dead"))
    fresh = CommitLog(Store(url))
    assert len(fresh.refresh()) == 4
    assert fresh.refresh() == []
    state = fresh.state
    assert state.models == [MODEL, OTHER_MODEL]
    assert state.runs == ["r", "s"]
    assert state.count(MODEL) == 2
    assert list(state.covered(MODEL)) == [segment_id(2)]
    mask = state.filter_uncommitted(OTHER_MODEL, pa.chunked_array([[segment_id(0)], [segment_id(1)]]))
    assert mask.to_pylist() == [True, False]
    assert state.live_files("faces") == [f"faces/{MODEL}/a", f"faces/{OTHER_MODEL}/c"]
    assert state.live_files("faces", OTHER_MODEL) == [f"faces/{OTHER_MODEL}/c"]
    assert state.tails == {source_id(1): 3}
    assert state.closed_runs == {"dead"}
    assert list(state.sources) == [source_id(1)]


def test_removal_takes_back_segments_files_and_covered(url: str) -> None:
    log = CommitLog(Store(url))
    log.append(lambda state: entry(0, covered=[segment_id(0)], add=[file("a")]))
    log.append(
        lambda state: Entry(run_id="r", model_id=MODEL, remove=[file("a").path], segments_removed=[segment_id(0)])
    )
    assert log.state.count(MODEL) == len(log.state.covered(MODEL)) == 0
    assert log.state.live_files("faces") == []
    assert log.state.removed_files == {file("a").path: file("a").staged}
    assert log.append(lambda state: entry(0)) is not None


def test_segment_committed_twice_is_refused_before_anything_is_written(url: str) -> None:
    log = CommitLog(Store(url))
    log.append(lambda state: entry(0))
    with pytest.raises(ValueError, match="commits segments twice"):
        log.append(lambda state: entry(0))
    with pytest.raises(ValueError, match="not live"):
        log.append(lambda state: Entry(run_id="r", remove=["faces/x"]))
    assert Store(url).list("_ran/log") == [entry_path(0)]


def test_builder_sees_what_came_first(url: str) -> None:
    mine, theirs = CommitLog(Store(url)), CommitLog(Store(url))
    seen: list[int] = []

    def build(state: LogState) -> Entry:
        if not seen:
            theirs.append(lambda state: entry(7, run_id="other"))
        seen.append(state.count(MODEL))
        return entry(8)

    mine.append(build)
    assert seen == [0, 1]
    assert mine.state.next_entry == 2


def test_own_entry_is_known_by_its_nonce_when_the_answer_is_lost(url: str) -> None:
    store = FaultyStore(url)
    log = CommitLog(store)
    log.refresh()
    store.at(2, "after", lose_connection)  # the first operation reads the tip, the second puts
    assert log.append(lambda state: entry(0)) is not None
    assert Store(url).list("_ran/log") == [entry_path(0)]


def test_entry_whose_put_failed_for_good_but_arrived_is_found_later(url: str) -> None:
    store = FaultyStore(url)
    log = CommitLog(store)
    log.refresh()
    log.follow("r")
    for attempt in (2, 3, 4):
        store.at(attempt, "after", lose_connection)
    with pytest.raises(StoreError):
        log.append(lambda state: entry(0))
    assert log.take_own() == []
    log.refresh()
    assert [own.segments for own in log.take_own()] == [[segment_id(0)]]


def test_closed_run_can_commit_nothing(url: str) -> None:
    sleeper, other = CommitLog(Store(url)), CommitLog(Store(url))
    sleeper.refresh()
    other.append(lambda state: Entry(run_id="other", close="r"))
    with pytest.raises(RunClosedError, match="run r was closed"):
        sleeper.append(lambda state: entry(0))


@pytest.mark.parametrize("count", [0, 2, 3, 5, 6, 9, 14, 31])
def test_checkpoint_and_replay_agree(url: str, count: int) -> None:
    log = CommitLog(Store(url), checkpoint_every=3)
    for number in range(count):
        log.append(
            lambda state, n=number: entry(
                n,
                run_id=f"run{n % 2}",
                model_id=[MODEL, OTHER_MODEL][n % 2],
                add=[file(f"{n}")],
                crops=[segment_id(n)],
                remove=[file(f"{n - 4}").path] if n >= 4 else [],
                tails={source_id(n): n},
                close=f"dead{n}",
            )
        )
    by_checkpoint, by_replay = CommitLog(Store(url), checkpoint_every=3), CommitLog(Store(url))
    assert len(by_checkpoint.refresh()) == count % 3
    assert len(by_replay.refresh()) == count
    assert state_of(by_checkpoint) == state_of(by_replay) == state_of(log)
    assert by_checkpoint.state.live == by_replay.state.live
    assert len([p for p in Store(url).list("_ran/log") if "checkpoint" in p]) == count // 3


def test_checkpoint_that_a_dead_driver_owed_is_written_by_the_next(url: str) -> None:
    log = CommitLog(Store(url), checkpoint_every=2)
    for number in range(5):
        log.append(lambda state, n=number: entry(n))
    for number in (2, 4):
        Store(url).delete(checkpoint_path(number))
    CommitLog(Store(url), checkpoint_every=2).refresh()
    assert not Store(url).exists(checkpoint_path(2))  # readers never write
    CommitLog(Store(url), checkpoint_every=2).refresh(write_checkpoints=True)
    assert Store(url).exists(checkpoint_path(2))
    assert Store(url).exists(checkpoint_path(4))


def test_missing_entry_is_damage(url: str) -> None:
    log = CommitLog(Store(url))
    for number in range(4):
        log.append(lambda state, n=number: entry(n))
    Store(url).delete(entry_path(2))
    with pytest.raises(StoreError, match=rf"{entry_path(2)} is missing"):
        CommitLog(Store(url)).refresh()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"{}", b'{"version": 1}', b'{"version": 1, "run_id": "r", "nonce": "n", "unheard": 1}',
        b'{"version": 1, "run_id": "r", "nonce": "n", "segments": "x"}', b'{"version": 1, "run_id": 3, "nonce": "n"}',
        b'{"version": 1, "run_id": "r", "nonce": "n", "add": [{"table": "faces"}]}', b"\xff",
    ],
)  # fmt: skip
def test_malformed_entry_is_named(url: str, data: bytes) -> None:
    Store(url).write_bytes(entry_path(0), data)
    with pytest.raises(StoreError, match=rf"{entry_path(0)} is malformed"):
        CommitLog(Store(url)).refresh()


def test_entry_of_a_newer_version_is_refused(url: str) -> None:
    Store(url).write_bytes(entry_path(0), json.dumps({"version": 99}).encode())
    with pytest.raises(NewerVersionError, match="newer version"):
        CommitLog(Store(url)).refresh()


@pytest.mark.parametrize("data", [b"", b"PAR1", b"junk" * 100])
def test_damaged_checkpoint_is_named(url: str, data: bytes) -> None:
    Store(url).write_bytes(checkpoint_path(2), data)
    with pytest.raises(StoreError, match=r"checkpoint-000000000002\.parquet is damaged"):
        CommitLog(Store(url), checkpoint_every=2).refresh()


def test_no_byte_of_a_checkpoint_ends_the_process(tmp_path: Path) -> None:
    """Arrow does that when it is asked for the statistics of a column whose type was changed."""
    state = LogState()
    state.apply(entry(1, add=[file("a")]))
    whole = checkpoint.to_parquet(state)
    (tmp_path / "whole").write_bytes(whole)
    code = (
        "import sys; from pipeline.ledger.checkpoint import from_parquet; from pipeline.errors import RanError\n"
        "whole = open(sys.argv[1], 'rb').read()\n"
        "for at in range(len(whole) - int.from_bytes(whole[-8:-4], 'little') - 8, len(whole) - 8):\n"
        "    for bits in (1, 2, 12, 255):\n"
        "        try: from_parquet(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1:], 'x')\n"
        "        except RanError: pass\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "whole")], check=True)


def test_entry_survives_its_own_json(tmp_path: Path) -> None:
    full = entry(1, add=[file("a")], close="x", tails={"s": 1}, remove=["p"], crops_removed=["c"])
    assert parse_entry(full.to_bytes(), "x") == full
