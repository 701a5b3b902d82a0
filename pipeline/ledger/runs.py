"""A run's folder `_ran/runs/<run_id>/`: its heartbeat, its end, what it was asked for and what it did.

    heartbeat      renewed every 10 s; older than 60 s by the store's clock, the run counts as dead
    finished       it ended in order and will commit nothing more
    config.json, summary.json    without secrets

A dead run may only sleep. Before anybody acts on its death, it is closed by an entry of the log, and a driver that
reads its own run closed can commit nothing more (`pipeline.ledger.log`).
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from pipeline.errors import NoClusterError, StoreError, UsageError
from pipeline.ledger.state import LogState
from pipeline.storage.backend import FileInfo
from pipeline.storage.store import Store
from pipeline.urls import without_credentials

RUNS = "_ran/runs"
INTERVAL_S, STALE_AFTER_S = 10.0, 60.0
_READERS = 16

_SECRET = re.compile(r"secret|password|passwd|token|credential|storage_options?$|access_key|api_key", re.I)


class Run:
    """One driver's run. As a context it keeps the heartbeat alive, and marks the run finished at its end.

    interval_s, stale_after_s: how often the heartbeat is renewed, and the age at which others count the run as dead.
    """

    def __init__(
        self, store: Store, run_id: str, *, interval_s: float = INTERVAL_S, stale_after_s: float = STALE_AFTER_S
    ) -> None:
        self.run_id = run_id
        self.stale_after_s = stale_after_s
        self._store = store
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewed_at = _clock()
        self._lapsed = False
        self._failure: StoreError | None = None

    @classmethod
    def create(cls, store: Store, *, interval_s: float = INTERVAL_S, stale_after_s: float = STALE_AFTER_S) -> Run:
        """A run with a new id and a first heartbeat. Raises StoreError."""
        run = cls(store, new_run_id(), interval_s=interval_s, stale_after_s=stale_after_s)
        run.renew()
        return run

    def __enter__(self) -> Run:
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{self.run_id}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the run, after an error too: whatever it was, this run commits nothing more.

        After a StoreError an entry may still be on its way to the store, so the run must be closed by a later one;
        not so where it never got as far as a cluster.
        """
        self.stop()
        if kind is not None and issubclass(kind, StoreError) and not issubclass(kind, NoClusterError):
            return
        try:
            self.finish()
        except StoreError:
            if kind is None:
                raise

    @property
    def lapsed(self) -> bool:
        """Whether the heartbeat ever went without renewal for so long that others may have closed this run."""
        return self._lapsed or _clock() - self._renewed_at > self.stale_after_s

    @property
    def failure(self) -> StoreError | None:
        """Why the last renewal failed; None if it did not."""
        return self._failure

    def renew(self) -> None:
        """Writes the heartbeat. Raises StoreError."""
        self._store.write_bytes(f"{RUNS}/{self.run_id}/heartbeat", datetime.now(UTC).isoformat().encode())
        if _clock() - self._renewed_at > self.stale_after_s:
            self._lapsed = True
        self._renewed_at = _clock()

    def stop(self) -> None:
        """Stops the heartbeat without ending the run: as if the driver had died."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Declares that this run commits nothing more, so that its leftovers may be swept at once."""
        self._store.write_bytes(f"{RUNS}/{self.run_id}/finished", datetime.now(UTC).isoformat().encode())

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.json, without storage options and anything that looks like a secret."""
        self._save("config.json", config)

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json."""
        self._save("summary.json", summary)

    def _save(self, name: str, values: Mapping[str, Any]) -> None:
        data = json.dumps(without_secrets(values), indent=2, default=str) + "\n"
        self._store.write_bytes(f"{RUNS}/{self.run_id}/{name}", data.encode())

    def _beat(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.renew()
                self._failure = None
            except StoreError as error:
                self._failure = error  # the next renewal may succeed; `lapsed` tells if it came too late


def other_runs(store: Store, state: LogState, run_id: str, stale_after_s: float) -> tuple[list[str], list[str]]:
    """Runs besides `run_id` that have neither finished nor been closed: (live, stale), by the store's clock."""
    beats = _open_runs(store, state, run_id)
    return _by_age(beats, store.now() - stale_after_s) if beats else ([], [])


def unfinished_runs(store: Store, state: LogState, stale_after_s: float = STALE_AFTER_S) -> tuple[list[str], list[str]]:
    """Runs that have neither finished nor been closed: (live, stale). To be shown, not to act on: nothing is written
    to ask for the store's time, and this machine's clock may differ."""
    beats = _open_runs(store, state)
    newest = max((beat.modified for beat in beats.values() if beat is not None), default=0.0)
    return _by_age(beats, max(time.time(), newest) - stale_after_s)


def _open_runs(store: Store, state: LogState, but: str = "") -> dict[str, FileInfo | None]:
    """The heartbeats of runs that have neither finished nor been closed, by run id."""
    infos = store.list_info(RUNS)
    known = sorted({path.split("/")[2] for path in infos} - {but} - state.closed_runs)
    return {
        run_id: infos.get(f"{RUNS}/{run_id}/heartbeat") for run_id in known if f"{RUNS}/{run_id}/finished" not in infos
    }


def _by_age(beats: Mapping[str, FileInfo | None], oldest: float) -> tuple[list[str], list[str]]:
    """(live, stale): whose heartbeat is of `oldest`, in seconds since the epoch, or later, and the others."""
    live = [run_id for run_id, beat in beats.items() if beat is not None and beat.modified >= oldest]
    return live, [run_id for run_id in beats if run_id not in live]


def refuse_while_at_work(
    store: Store,
    state: LogState,
    stale_after_s: float,
    command: str,
    *,
    but: str = "",
    wait: Callable[[str], bool] | None = None,
) -> None:
    """Raises UsageError if any run but `but` is at work: it has not ended, and its heartbeat is fresh.

    wait: where somebody has the patience. A run that was killed a moment ago has a fresh heartbeat too, so it is waited
    for another one, or for the age at which it counts as dead; `wait` is called with the reason before each look, and
    with true it gives up.
    """
    live, _ = other_runs(store, state, but, stale_after_s)
    first = {run_id: _beat_of(store, run_id) for run_id in live}
    while live and wait is not None and all(_beat_of(store, run_id) == first.get(run_id) for run_id in live):
        if wait(f"run {live[0]} is at work or was killed; waiting for a sign of it, at most {stale_after_s:g} s"):
            break
        live, _ = other_runs(store, state, but, stale_after_s)
    if live:
        raise UsageError(
            f"run {live[0]} is at work in {store.url}; `{command}` when it has ended. If it was killed, or lost the "
            f"store, it counts as ended {stale_after_s:g} s after that"
        )


def _beat_of(store: Store, run_id: str) -> float | None:
    """When the heartbeat was renewed last, in seconds since the epoch by the store's clock."""
    info = store.info(f"{RUNS}/{run_id}/heartbeat")
    return None if info is None else info.modified


def finished_runs(store: Store) -> set[str]:
    """Runs that declared their end."""
    return {path.split("/")[2] for path in store.list(RUNS) if path.endswith("/finished")}


def any_run_kept_crops(store: Store) -> bool:
    """Whether any run was asked to keep crops, whatever became of it. Raises StoreError if the store fails."""
    paths = [path for path in store.list(RUNS) if path.endswith("/config.json")]
    with ThreadPoolExecutor(_READERS) as pool:
        return any(pool.map(lambda path: _was_to_keep_crops(store, path), paths))


def _was_to_keep_crops(store: Store, path: str) -> bool:
    try:
        return json.loads(store.read_bytes(path))["run"]["keep_crops"] is True
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # a command without crops, or a file of somebody else
        return False


def new_run_id() -> str:
    """A run id that sorts by time: 20261123T190501-abcdef (UTC)."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def without_secrets(value: Any) -> Any:
    """`value` without keys that name secrets or storage options, and without user info and queries in its URLs."""
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items() if not _SECRET.search(str(key))}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return without_credentials(value) if isinstance(value, str) else value


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
