"""What the log says, replayed: which segments are committed for which model, and which files are live."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipeline.errors import DamageError, RunClosedError
from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.id_set import IdSet

SEGMENT_DIGITS, SOURCE_DIGITS = 20, 16


class LogState:
    """The state after entries 0 … next_entry - 1. It needs about 10 bytes per committed segment and model.

    models: in the order of their first commit.
    sources: source ids with a row in `sources`. crops: segment ids whose crops are kept.
    tails: source_id -> number of windows that the source is known to have.
    closed_runs: runs that may commit nothing more. removed_files: public path that was live once -> its staged path.
    last_nonces: run_id -> nonce of its newest entry, in the order of the runs' first.
    live: public path -> file, oldest first.
    """

    def __init__(self) -> None:
        self.next_entry = 0
        self.models: list[str] = []
        self.sources = IdSet(SOURCE_DIGITS)
        self.crops = IdSet(SEGMENT_DIGITS)
        self.tails: dict[str, int] = {}
        self.closed_runs: set[str] = set()
        self.removed_files: dict[str, str] = {}
        self.last_nonces: dict[str, str] = {}
        self.live: dict[str, CommittedFile] = {}
        self._committed: dict[str, IdSet] = {}
        self._covered: dict[str, IdSet] = {}

    @property
    def runs(self) -> list[str]:
        """Runs that have written an entry, in the order of their first."""
        return list(self.last_nonces)

    def committed(self, model_id: str) -> IdSet:
        """Segment ids that are committed for the model. Not to be changed by the caller."""
        return self._committed.get(model_id) or IdSet(SEGMENT_DIGITS)

    def covered(self, model_id: str) -> IdSet:
        """Those of them that have no row: windows behind a break that an earlier window reports."""
        return self._covered.get(model_id) or IdSet(SEGMENT_DIGITS)

    def count(self, model_id: str) -> int:
        """How many segments are committed for the model."""
        return len(self.committed(model_id))

    def filter_uncommitted(self, model_id: str, segment_ids: Sequence[str] | pa.Array | pa.ChunkedArray) -> pa.Array:
        """A boolean Arrow mask: true for segments that the model has no committed answer for."""
        return pa.array(~self.committed(model_id).contains(segment_ids))

    def files(self, table: str | None = None, model_id: str | None = None) -> list[CommittedFile]:
        """Live files, oldest first; of one table and one model if given."""
        return [
            file
            for file in self.live.values()
            if (table is None or file.table == table) and (model_id is None or file.model_id == model_id)
        ]

    def live_files(self, table: str, model_id: str | None = None) -> list[str]:
        """Public paths of the live files of a table, oldest first; of one model if given."""
        return [file.path for file in self.files(table, model_id)]

    def set_committed(self, model_id: str, committed: IdSet, covered: IdSet) -> None:
        """Takes over a model's sets from a checkpoint."""
        self.models.append(model_id)
        self._committed[model_id], self._covered[model_id] = committed, covered

    def refuse_if_closed(self, run_id: str) -> None:
        """Raises RunClosedError if the run was closed."""
        if run_id in self.closed_runs:
            raise RunClosedError(
                f"run {run_id} was closed by another driver, which found its heartbeat stale; "
                "run the same command again to resume"
            )

    def apply(self, entry: Entry) -> None:
        """The effect of the next entry. Raises DamageError if it removes a file that is not live."""
        for path in entry.remove:
            file = self.live.pop(path, None)
            if file is None:
                raise DamageError(f"log entry {self.next_entry} removes {path}, which is not live: the log is damaged")
            self.removed_files[path] = file.staged
        if entry.segments_removed and entry.model_id in self._committed:
            self._committed[entry.model_id].remove(entry.segments_removed)
            self._covered[entry.model_id].remove(entry.segments_removed)
        self.sources.remove(entry.sources_removed)
        self.crops.remove(entry.crops_removed)
        for file in entry.add:
            self.live[file.path] = file
        if entry.segments:
            if entry.model_id not in self._committed:
                self.set_committed(entry.model_id, IdSet(SEGMENT_DIGITS), IdSet(SEGMENT_DIGITS))
            self._committed[entry.model_id].add(entry.segments)
            self._covered[entry.model_id].add(entry.covered)
        self.sources.add(entry.sources)
        self.crops.add(entry.crops)
        for source_id, windows in entry.tails.items():
            self.tails[source_id] = max(windows, self.tails.get(source_id, 0))
        if entry.close is not None:
            self.closed_runs.add(entry.close)
        self.last_nonces[entry.run_id] = entry.nonce
        self.next_entry += 1
