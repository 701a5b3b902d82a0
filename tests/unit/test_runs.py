from __future__ import annotations

import json
import threading
import time

import pytest

from pipeline.errors import NoClusterError, StoreError, UsageError
from pipeline.ledger.runs import Run, finished_runs, new_run_id, other_runs, refuse_while_at_work, without_secrets
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store
from tests.faulty_store import FaultyStore, lose_connection, memory_url


@pytest.fixture
def store() -> Store:
    return Store(memory_url(), backoff_s=0.0)


def test_run_ids_sort_by_time_and_differ() -> None:
    ids = [new_run_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert [i[:15] for i in ids] == sorted(i[:15] for i in ids)


def test_heartbeat_is_renewed_and_the_end_is_marked(store: Store) -> None:
    renewed = threading.Event()

    class Watched(Store):
        def write_bytes(self, path: str, data: bytes) -> None:
            super().write_bytes(path, data)
            if "heartbeat" in path and threading.current_thread().name.startswith("heartbeat-"):
                renewed.set()

    watched = Watched(store.url)
    with Run.create(watched, interval_s=0.01) as run:
        assert renewed.wait(20)
        assert finished_runs(store) == set()
        assert not run.lapsed
    assert finished_runs(store) == {run.run_id}


def test_other_runs_are_live_stale_finished_or_closed(store: Store) -> None:
    mine, live, finished, closed = (Run.create(store) for _ in range(4))
    finished.finish()
    store.write_bytes("_ran/runs/no-heartbeat/config.json", b"{}")
    state = LogState()
    state.closed_runs.add(closed.run_id)
    assert other_runs(store, state, mine.run_id, 60.0) == ([live.run_id], ["no-heartbeat"])
    assert other_runs(store, state, mine.run_id, -1.0) == ([], sorted([live.run_id, "no-heartbeat"]))


def test_run_that_could_not_renew_knows_it() -> None:
    store = FaultyStore(memory_url())
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        lose_connection()

    run = Run.create(store, interval_s=0.01, stale_after_s=0.0)
    for attempt in range(1, 200):
        store.at(attempt, "before", fail)
    run.__enter__()
    assert failed.wait(20)
    while run.failure is None:
        pass
    assert "connection reset" in str(run.failure)
    assert run.lapsed
    run.stop()


def test_run_that_ends_with_a_store_error_is_left_to_be_closed(store: Store) -> None:
    with pytest.raises(StoreError), Run.create(store):
        raise StoreError("an entry may still be on its way")
    assert finished_runs(store) == set()
    with pytest.raises(KeyError), Run.create(store) as run:
        raise KeyError("ours")
    assert finished_runs(store) == {run.run_id}


def test_a_run_that_finds_no_cluster_has_ended(store: Store) -> None:
    """It began nothing, and `compact` or `retry` need not wait for it."""
    with pytest.raises(NoClusterError), Run.create(store) as run:
        raise NoClusterError("Ray can't be reached")
    assert finished_runs(store) == {run.run_id}


def test_saved_files_hold_no_secret(store: Store) -> None:
    run = Run.create(store)
    run.save_config(
        {
            "storage_options": {"secret": "hush"},
            "inputs": ("s3://key:hush@bucket/a.mp4?X-Amz-Signature=hush", "plain.mp4"),
            "nested": [{"aws_secret_access_key": "hush", "SessionToken": "hush", "fps": 5}],
        }
    )
    saved = store.read_bytes(f"_ran/runs/{run.run_id}/config.json").decode()
    assert "hush" not in saved
    assert json.loads(saved) == {"inputs": ["s3://bucket/a.mp4", "plain.mp4"], "nested": [{"fps": 5}]}
    run.save_summary({"faces": 3})
    assert json.loads(store.read_bytes(f"_ran/runs/{run.run_id}/summary.json")) == {"faces": 3}


def test_without_secrets_leaves_the_rest() -> None:
    assert without_secrets({"keep_crops": True, "max_faces": 3}) == {"keep_crops": True, "max_faces": 3}


class Waiting:
    """Waits a moment each time. most: looks until it gives up."""

    def __init__(self, most: int = 10_000) -> None:
        self.reasons: list[str] = []
        self._most = most

    def __call__(self, why: str) -> bool:
        self.reasons.append(why)
        time.sleep(0.01)
        return len(self.reasons) > self._most


def test_a_run_that_was_killed_a_moment_ago_is_waited_for(store: Store) -> None:
    killed, wait = Run.create(store), Waiting()
    refuse_while_at_work(store, LogState(), 0.2, "retry", wait=wait)
    assert wait.reasons[0].startswith(f"run {killed.run_id} is at work or was killed")


def test_a_run_that_ends_meanwhile_is_waited_for(store: Store) -> None:
    run = Run.create(store)

    def ends(why: str) -> bool:
        run.finish()
        return False

    refuse_while_at_work(store, LogState(), 60.0, "retry", wait=ends)


@pytest.mark.parametrize("beats", [True, False])
def test_a_run_at_work_is_refused_once_it_shows_itself_or_nobody_has_patience(store: Store, beats: bool) -> None:
    wait = Waiting() if beats else Waiting(most=1)
    with Run.create(store, interval_s=0.05 if beats else 60.0) as run:
        with pytest.raises(UsageError, match=f"run {run.run_id} is at work"):
            refuse_while_at_work(store, LogState(), 60.0, "retry", wait=wait)
        with pytest.raises(UsageError, match=f"run {run.run_id} is at work"):
            refuse_while_at_work(store, LogState(), 60.0, "retry")
