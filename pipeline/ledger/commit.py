"""The driver's side of the guarantee: exactly one committed answer per (segment, model), whatever ran twice or died.

add ──> commit: select what the log lacks ──> merge into one file per table ──> append one entry ──> publish
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipeline.errors import StoreError
from pipeline.ledger import sweep
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.id_set import IdSet
from pipeline.ledger.log import CommitLog
from pipeline.ledger.merge import Merged, merge
from pipeline.ledger.publish import publish_entry, publish_missing
from pipeline.ledger.removal import Replacement, Replacing
from pipeline.ledger.runs import Run
from pipeline.ledger.selection import Batch, select, speaking
from pipeline.ledger.staging import StagedFile, StagedSet, stage_table, to_commit
from pipeline.ledger.state import SOURCE_DIGITS, LogState
from pipeline.schema import empty

__all__ = ["Committer", "StagedSet"]

_CHECK_INTERVAL_S = 5.0


class Committer:
    """Collects staged sets and commits them. One per run and model; not for use by several threads at once.

    Every method raises StoreError when the store fails, and RunClosedError once another driver has closed the run.
    After a StoreError nothing is lost: the call may be repeated, or the next run resumes.
    replacing: committed segments and sources whose new rows take the place of the old ones, in one entry (`retry`).
    """

    def __init__(
        self, dataset: Dataset, log: CommitLog, run: Run, model_id: str, *, replacing: Replacing | None = None
    ) -> None:
        self._store = dataset.store
        self._log = log
        self._run = run
        self._model_id = model_id
        self._replacing = replacing or Replacing()
        self._sets: list[StagedSet] = []
        self._waiting: list[StagedSet] = []  # for others, see Replacing.must_wait
        self._failed: _Builder | None = None  # of a commit that raised; what it made may have arrived
        self._unspoken = set[str]()
        self._published = 0
        self._unpublished: list[Entry] = []
        self._leftovers: set[str] = set()
        self._checked_at = time.monotonic()
        log.follow(run.run_id)

    @property
    def pending_segments(self) -> int:
        """Segments that were added since the last commit."""
        return sum(len(staged.segment_ids) for staged in self._sets)

    @property
    def pending_bytes(self) -> int:
        """Bytes of their staged files."""
        return sum(file.bytes for staged in self._sets for file in staged.files)

    def add(self, staged: StagedSet) -> None:
        """Takes a set into the next commit. A set without segments and files is ignored."""
        if staged.segment_ids or staged.files or staged.tails:
            self._sets.append(staged)

    def commit(self) -> Entry | None:
        """Commits and publishes what was added; None if the log has all of it already."""
        if self._failed is not None:
            self._log.refresh(write_checkpoints=True)
            self._note_own(self._failed)
        sets, waiting = self._ready()
        builder = _Builder(self, sets)
        try:
            entry = self._log.append(builder.build) if sets else None
        except StoreError as error:
            self._failed = builder
            if isinstance(error.__cause__, FileNotFoundError):
                self._refuse_if_closed()  # that is why the staged files are gone
            raise
        self._note_own(builder)
        self._unspoken |= builder.unspoken
        committed = {file.staged for own in self._unpublished for file in own.add}
        self._leftovers |= {file.path for staged in sets for file in staged.files} - committed
        self._sets, self._waiting = [], waiting
        self._publish()
        return entry

    def take_unspoken(self) -> set[str]:
        """Windows without a row that were not committed since the last call, because nothing speaks for them: another
        driver has read the window before them well. They are to be read again."""
        unspoken, self._unspoken = self._unspoken, set()
        return unspoken

    def _note_own(self, builder: _Builder) -> None:
        """Takes note of entries that have arrived, though the put may have seemed to fail in an earlier call. builder:
        of the last one."""
        own = self._log.take_own()
        self._unpublished += own
        for one in own:
            self._replacing.settle(one, builder.rest)
        self._failed = None

    def _ready(self) -> tuple[list[StagedSet], list[StagedSet]]:
        """What can be committed now, and what must wait."""
        ready, waiting = self._waiting + self._sets, list[StagedSet]()
        while True:
            ids = {segment_id for staged in ready for segment_id in staged.segment_ids}
            late = [staged for staged in ready if self._replacing.must_wait(staged.segment_ids, ids)]
            if not late:
                return ready, waiting
            waiting += late
            ready = [staged for staged in ready if staged not in late]

    def publish_missing(self) -> None:
        """Completes the publication of every committed entry, whoever committed it. Call at each start."""
        self._published = publish_missing(self._store, self._log)

    def sweep(self) -> int:
        """Closes dead runs and deletes what they and finished runs left in staging; returns how many files."""
        return sweep.sweep(self._store, self._log, self._run, published=self._published)

    def check_open(self) -> None:
        """Raises RunClosedError if this run's heartbeat lapsed and another driver closed it. Cheap: call it often."""
        if self._run.lapsed and time.monotonic() - self._checked_at >= _CHECK_INTERVAL_S:
            self._checked_at = time.monotonic()
            self._refuse_if_closed()

    def finish(self) -> None:
        """Deletes what this run staged and did not commit. Call it after the last commit, when no worker stages."""
        self._publish()
        sweep.sweep_own(self._store, self._log, self._run)

    def _refuse_if_closed(self) -> None:
        self._log.refresh(write_checkpoints=True)
        self._log.state.refuse_if_closed(self._run.run_id)

    def _publish(self) -> None:
        while self._unpublished:
            publish_entry(self._store, self._log, self._unpublished[0])
            self._unpublished.pop(0)
        self._store.delete_many(self._leftovers)
        self._leftovers = set()


class _Builder:
    """Makes the entry of one commit, again and again until no other driver comes first."""

    def __init__(self, committer: Committer, sets: Sequence[StagedSet]) -> None:
        self._of = committer
        self._sets = sets
        self._batch: Batch | None = None
        self._merged = Merged()
        self.rest = Replacement()

    @property
    def unspoken(self) -> set[str]:
        """Of the last batch."""
        return self._batch.unspoken if self._batch else set()

    def build(self, state: LogState) -> Entry | None:
        """The entry for what `state` lacks; None if it lacks nothing. Merges again only if somebody took a part."""
        of = self._of
        state.refuse_if_closed(of._run.run_id)  # even with nothing left to commit: a closed driver stops
        ids = {segment_id for staged in self._sets for segment_id in staged.segment_ids}
        of._replacing.meet(of._store, state, of._model_id, ids)
        told = speaking(of._store, state, of._model_id, self._sets)
        batch = select(self._sets, state, of._model_id, of._replacing.segments, of._replacing.crops, told)
        taken = state.sources.contains(self._merged.sources).any()
        if self._batch is None or taken or batch.selections != self._batch.selections:
            of._store.delete_many(self._merged.written)
            self._merged = merge(of._store, of._run.run_id, batch, self._known_sources(state))
        self._batch = batch
        return self._entry(batch, state)

    def _entry(self, batch: Batch, state: LogState) -> Entry | None:
        merged, of = self._merged, self._of
        if not (batch.segments or merged.sources or batch.tails):
            return None
        if (
            batch.segments
            and not state.files("faces", of._model_id)
            and not any(file.table == "faces" for file in merged.files)
        ):
            # Without a file at all, a glob over faces is an error in some readers.
            nobody = stage_table(of._store, of._run.run_id, "faces", empty("faces"))
            merged.files.insert(0, nobody)
            merged.written.append(nobody.path)
        gone = sorted(of._replacing.segments.intersection(batch.segments))
        gone_sources = sorted(of._replacing.sources.intersection(merged.sources))
        crops = [one for one in batch.crops if one in merged.with_faces]
        gone_crops = of._replacing.crops_without(state, of._model_id, gone, crops)
        self.rest = of._replacing.replaced(
            of._store, of._run.run_id, state, of._model_id, gone, sources=gone_sources, crops=gone_crops
        )
        return Entry(
            run_id=of._run.run_id,
            model_id=of._model_id if batch.segments else "",
            segments=batch.segments,
            covered=batch.covered,
            sources=merged.sources,
            crops=crops,
            tails=batch.tails,
            add=[self._committed(file) for file in merged.files] + self.rest.add,
            remove=self.rest.remove,
            segments_removed=gone,
            sources_removed=gone_sources,
            crops_removed=gone_crops,
        )

    def _known_sources(self, state: LogState) -> IdSet:
        replaced = self._of._replacing.sources
        if not replaced:
            return state.sources
        known = IdSet.from_packed(SOURCE_DIGITS, state.sources.packed())
        known.remove(replaced)
        return known

    def _committed(self, file: StagedFile) -> CommittedFile:
        of, is_errors = self._of, file.path in self._merged.errors
        return to_commit(file, run_id=of._run.run_id, model_id=of._model_id, only_errors=is_errors)
