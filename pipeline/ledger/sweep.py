"""Leftovers of dead runs: closed through the log first, so that a driver that only slept can't commit them later."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.ledger.entry import Entry
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import publish_missing
from pipeline.ledger.runs import Run, finished_runs, other_runs
from pipeline.ledger.staging import STAGING, staging_run
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store

#: Temporary files of a killed writer are deleted at this age; a living one needs seconds.
TEMPORARY_AGE_S = 3600.0


def close_stale_runs(store: Store, log: CommitLog, run: Run) -> list[str]:
    """Closes every other unfinished run whose heartbeat is stale; returns their ids.

    Raises RunClosedError and StoreError.
    """
    log.refresh(write_checkpoints=True)
    _, stale = other_runs(store, log.state, run.run_id, run.stale_after_s)
    for other in stale:

        def build(state: LogState, other: str = other) -> Entry | None:
            return None if other in state.closed_runs else Entry(run_id=run.run_id, close=other)

        log.append(build)
    return stale


def sweep(store: Store, log: CommitLog, run: Run, *, published: int = 0) -> int:
    """Deletes what finished and dead runs left in staging, and old temporary files; returns how many files.

    Nothing that a committed entry still needs is deleted: no such run can commit any more, and all that they have
    committed is published first. published: so many entries are known to be public.
    """
    ended = finished_runs(store)  # read before the log, which then has all that they committed
    closed = close_stale_runs(store, log, run)
    if log.state.next_entry - len(closed) > published:
        publish_missing(store, log)
    ended |= log.state.closed_runs
    leftovers = [path for path in store.list(STAGING) if staging_run(path) in ended - {run.run_id}]
    temporary = store.list_info("_ran/tmp")
    if temporary:
        now = store.now()
        leftovers += [path for path, info in temporary.items() if now - info.modified > TEMPORARY_AGE_S]
    store.delete_many(_unneeded(store, log, leftovers))
    return len(leftovers)


def sweep_own(store: Store, log: CommitLog, run: Run) -> int:
    """Deletes what the run itself staged and did not commit, at its end; returns how many files."""
    leftovers = store.list(f"{STAGING}/{run.run_id}")
    store.delete_many(_unneeded(store, log, leftovers))
    return len(leftovers)


def _unneeded(store: Store, log: CommitLog, paths: Iterable[str]) -> list[str]:
    """Without files that are committed but, against all order, not public yet."""
    public = {file.staged: file.path for file in log.state.live.values()}
    return [path for path in paths if path not in public or store.exists(public[path])]
