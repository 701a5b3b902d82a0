"""The commit log: numbered entries that are each written only if absent, and the state that they add up to.

`_ran/log/<12 digits>.json` holds an entry; `_ran/log/checkpoint-<12 digits>.parquet` the state before the entry of that
number. Both are read by name: listing a folder is slow, and on some stores late. Everybody who passes a multiple of
`checkpoint_every` makes sure of its checkpoint before going on, so checkpoints have no gaps and the newest is found by
doubling steps. Entries have no gaps either: n is written only by somebody who has read 0 … n-1.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.errors import DamageError
from pipeline.ledger import checkpoint
from pipeline.ledger.entry import Entry, parse_entry
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store

T = TypeVar("T")

__all__ = ["CHECKPOINT_EVERY", "LOG", "CommitLog", "LogState", "checkpoint_path", "entry_path"]

LOG = "_ran/log"
CHECKPOINT_EVERY = 1000
_READERS = 16  # entries fetched at once while catching up; an object store answers in tens of milliseconds


def entry_path(number: int) -> str:
    """Where entry `number` lies."""
    return f"{LOG}/{number:012d}.json"


def checkpoint_path(number: int) -> str:
    """Where the state before entry `number` lies, for multiples of the checkpoint interval."""
    return f"{LOG}/checkpoint-{number:012d}.parquet"


class CommitLog:
    """The log of one dataset as this process has read it. Not for use by several threads at once."""

    def __init__(self, store: Store, *, checkpoint_every: int = CHECKPOINT_EVERY) -> None:
        self.state = LogState()
        #: Public paths that entries read one by one have removed; publishers delete them before they publish anything.
        self.removals: set[str] = set()
        self._store = store
        self._checkpoint_every = checkpoint_every
        self._opened = False
        self._followed: str | None = None
        self._own: list[Entry] = []

    def follow(self, run_id: str) -> None:
        """Keeps this run's entries for `take_own`: those whose put seemed to fail but succeeded, too."""
        self._followed = run_id

    def take_own(self) -> list[Entry]:
        """The followed run's entries that were seen since the last call."""
        own, self._own = self._own, []
        return own

    def refresh(self, *, write_checkpoints: bool = False) -> list[Entry]:
        """Reads what was committed since the last call; returns the entries that were read one by one.

        The first call starts from the newest checkpoint. Drivers write missing checkpoints, readers never.
        Raises DamageError if an entry is malformed or missing, naming it; StoreError if the store fails.
        """
        if not self._opened:
            self._load_checkpoint()
        # The first look reaches ahead, so that a missing entry is noticed by the one after it.
        width = _READERS if not self._opened else 1
        self._opened = True
        seen: list[Entry] = []
        with ThreadPoolExecutor(_READERS) as pool:
            while True:
                first = self.state.next_entry
                numbers = range(first, first + width)
                found = list(pool.map(self._read, numbers)) if width > 1 else [self._read(first)]
                for number, entry in zip(numbers, found, strict=True):
                    if entry is None:
                        break
                    self._apply(entry, number, write_checkpoints)
                    seen.append(entry)
                if None not in found:
                    width = min(2 * width, _READERS)
                elif any(found[found.index(None) :]):
                    # Somebody may have written it just after we looked; what follows it is proof that it must exist.
                    missing = first + found.index(None)
                    if self._read(missing) is None:
                        raise DamageError(
                            f"log entry {self._store.url_of(entry_path(missing))} is missing: later ones exist"
                        )
                else:
                    return seen

    def read(self, look: Callable[[LogState], T]) -> T:
        """What `look` reads of the live files; once more by the newer state, whenever another run, such as a compaction
        that had begun before, has replaced one of them meanwhile. Raises what `look` raises."""
        while True:
            try:
                return look(self.state)
            except DamageError:
                if not self.refresh():
                    raise

    def append(self, build: Callable[[LogState], Entry | None]) -> Entry | None:
        """Commits the entry that `build` makes from the newest state; None if it makes none.

        `build` is called again, with the newer state, whenever somebody else's entry came first. It must drop what the
        state already has, and rebuild whatever removes a file that is no longer live. Raises RunClosedError if the
        entry's run was closed. After a StoreError the entry may have been written or not; `take_own` tells later.
        """
        self.refresh(write_checkpoints=True)
        while True:
            try:
                entry = build(self.state)
            except FileNotFoundError:  # a file that was live until somebody replaced it
                if not self.refresh(write_checkpoints=True):
                    raise
                continue
            if entry is None:
                return None
            self._check(entry)
            number = self.state.next_entry
            if self._store.put_if_absent(entry_path(number), entry.to_bytes()):
                self._apply(entry, number, True)
                return entry
            if any(seen.nonce == entry.nonce for seen in self.refresh(write_checkpoints=True)):
                return entry  # the put had succeeded and only its answer was lost

    def _check(self, entry: Entry) -> None:
        """Invariants of everything that is written; a violation is a bug of the caller."""
        self.state.refuse_if_closed(entry.run_id)
        removed, committed = set(entry.segments_removed), self.state.committed(entry.model_id)
        new = [segment_id for segment_id in entry.segments if segment_id not in removed]
        if len(set(new)) != len(new) or committed.contains(new).any():
            raise ValueError(f"an entry commits segments twice for model {entry.model_id}")
        gone = [path for path in entry.remove if path not in self.state.live]
        if gone:
            raise ValueError(f"{gone[0]} is to be removed but is not live")

    def _apply(self, entry: Entry, number: int, write_checkpoints: bool) -> None:
        assert number == self.state.next_entry
        self.state.apply(entry)
        self.removals.update(entry.remove)
        if entry.run_id == self._followed:
            self._own.append(entry)
        after = self.state.next_entry
        if write_checkpoints and after % self._checkpoint_every == 0 and not self._has_checkpoint(after):
            self._store.put_if_absent(checkpoint_path(after), checkpoint.to_parquet(self.state))

    def _read(self, number: int) -> Entry | None:
        try:
            data = self._store.read_bytes(entry_path(number))
        except FileNotFoundError:
            return None
        return parse_entry(data, self._store.url_of(entry_path(number)))

    def _load_checkpoint(self) -> None:
        every = self._checkpoint_every
        if not self._has_checkpoint(every):
            return
        low, step = 1, 1  # checkpoint number `low` exists; the newest lies below the first that does not
        while self._has_checkpoint((low + step) * every):
            low += step
            step *= 2
        while step > 1:
            step //= 2
            if self._has_checkpoint((low + step) * every):
                low += step
        path = checkpoint_path(low * every)
        self.state = checkpoint.from_parquet(self._store.read_bytes(path), self._store.url_of(path))
        if self.state.next_entry != low * every:
            raise DamageError(f"log checkpoint {self._store.url_of(path)} says {self.state.next_entry} entries")

    def _has_checkpoint(self, number: int) -> bool:
        return self._store.exists(checkpoint_path(number))
