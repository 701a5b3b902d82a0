"""Rows that don't hold any more, and how they leave the dataset: of files that changed or were mended, of failures that
are tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import planning
from pipeline.changed import ChangedFiles
from pipeline.failures import Failures, covered_segments, find_failures, find_overtaken
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import Replacing, drop_segments, drop_sources
from pipeline.ledger.runs import Run, other_runs, refuse_while_at_work
from pipeline.ledger.state import LogState
from pipeline.prepare import Prepared
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from pipeline.terminal import counted

LOOK_S = 1.0  # between looks for another run's heartbeat


class OutdatedRows:
    """Those that one run meets. Nothing leaves once the run is interrupted, and nothing that another run may need.

    failures: what gives way to new rows in the entry that commits these: all that failed, for `retry`; for `reprocess`
    what it has an error for and the base has not.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        log: CommitLog,
        run: Run,
        *,
        stop: threading.Event,
        progress: ProgressReporter,
    ) -> None:
        """Raises UsageError for a `retry` beside another run."""
        self._config, self._log, self._run, self._stop, self._progress = config, log, run, stop, progress
        self._store, self._extraction = prepared.dataset.store, prepared.dataset.extraction
        self._listing, self._model_id = prepared.listing, prepared.model_id
        self._base_model_id, self._retry_codes = prepared.base_model_id, prepared.retry_codes
        self.failures = self._failures()

    def refuse_beside_others(self, command: str) -> None:
        """Raises UsageError if another run is at work, and reads what one that has ended by now has committed."""
        stale_after_s = self._config.stale_after_s
        refuse_while_at_work(self._store, self._state, stale_after_s, command, but=self._run.run_id, wait=self._waited)
        self._log.refresh(write_checkpoints=True)

    def replace(
        self, changed: ChangedFiles, known: pa.Table, plan: planning.Plan, commit: Callable[[pa.Table], object]
    ) -> pa.Table:
        """`--on-changed replace`, once everything is checked: all rows of the old content leave, and the error rows
        that told of the change. Returns `known` with the new content for the old.

        commit: commits rows of `sources`. Raises UsageError beside another run, before anything leaves.
        """
        if self._stop.is_set():
            return known
        for note in changed.notes():
            self._progress.note(note)
        new = changed.readable
        if self._config.limit is not None:  # what this run does not begin with stays as it is
            new = new.filter(pc.is_in(new["source_id"], plan.todo["source_id"].combine_chunks()))
        if not new.num_rows:
            return known
        uris = new["source_uri"].combine_chunks()
        is_old = pc.is_in(known["source_uri"], uris)
        self._log.refresh(write_checkpoints=True)  # probing took its time: another run may be there by now
        self.refuse_beside_others("run")
        # one that begins now may still see the old rows, and tell of the change
        self.failures.replacing.awaited = changed.error_segments(self._extraction)
        told = planning.change_rows(self._store, self._state, uris)
        lost = self._drop({*known.filter(is_old)["source_id"].to_pylist(), *told}, known)
        commit(new)
        self._progress.note(f"the old rows of {counted(new.num_rows, 'changed file')} were taken out; new ones follow")
        others = [model_id for model_id in lost if model_id != self._model_id]
        if others:
            self._progress.note(
                f"their rows of other models ({', '.join(others)}) went too: "
                f"`reprocess {self._store.url} --model DIR` with each of them makes new ones"
            )
        return pa.concat_tables([known.filter(pc.invert(is_old)), new])

    def drop_unplanned(self, plan: planning.Plan) -> None:
        """Failed rows of segments that the sources don't have any more: they told of a probe that works now. Not those
        that have given way to new rows, of windows that only came to light while their video was read."""
        replacing = self.failures.replacing
        listed = {source.source_id for source in self._listing.sources}
        failed = {one for one, source_id in self.failures.rows.items() if source_id in listed}
        unplanned = _absent(failed & replacing.segments, plan.todo)
        if unplanned and not self._stop.is_set() and self._config.limit is None:
            drop_segments(self._store, self._log, self._run, self._model_id, replacing, unplanned)

    def drop_superseded(self, known: pa.Table) -> None:
        """Errors of files that were mended since leave, once the files' new content has its rows; so do good rows of an
        earlier content, with `--on-changed replace`.

        While another run is at work they stay: the next one takes them out.
        """
        is_whole_run = self._retry_codes is None and self._base_model_id is None and self._config.limit is None
        if not is_whole_run or self._stop.is_set():
            return
        self._log.refresh()
        gone = self._log.read(lambda state: planning.superseded(self._store, state, self._listing, known))
        if gone and not self._others_at_work():
            self._drop(gone, known, only_errors=True)
            self._progress.note(f"{counted(len(gone), 'error')} of files that have another content now were taken out")
        outlived = self._log.read(lambda state: planning.outlived(self._store, state, self._listing, known))
        told = f"rows of {counted(len(outlived), 'earlier content')} beside those of what the files hold now"
        if outlived and self._config.on_changed != "replace":
            self._progress.note(f"there are {told}; `--on-changed replace` takes them out")
        elif outlived and not self._others_at_work():
            self._drop(outlived, known)
            self._progress.note(f"{told} were taken out")

    def note_unread(self, known: pa.Table) -> None:
        """Tells what `reprocess` could not read of faces that the base has."""
        if self._base_model_id is None or self._stop.is_set():
            return
        unread = self._overtaken(self._base_model_id, lambda: known).segments
        if unread:
            self._progress.note(
                f"{counted(len(unread), 'segment')} that model {self._base_model_id} has could not be read again, and "
                f"views of model {self._model_id} lack them: repeat the command when their sources can be read"
            )

    @property
    def _state(self) -> LogState:
        return self._log.state

    def _waited(self, why: str) -> bool:
        """A moment; whether the run was interrupted in it."""
        if why not in self._progress.notes:
            self._progress.note(why)
        return self._stop.wait(LOOK_S)

    def _failures(self) -> Failures:
        known = partial(planning.known_sources, self._store, self._state)
        if self._base_model_id is not None:
            # beside another run, which may be replacing the same rows, nothing: the next `reprocess` has them
            is_alone = not self._others_at_work()
            return Failures(replacing=self._overtaken(self._base_model_id, known) if is_alone else Replacing())
        if self._retry_codes is None:
            return Failures()
        self.refuse_beside_others("retry")
        return find_failures(self._store, self._state, self._model_id, known(), self._extraction, self._retry_codes)

    def _overtaken(self, base_model_id: str, known: Callable[[], pa.Table]) -> Replacing:
        return self._log.read(
            lambda state: find_overtaken(self._store, state, self._model_id, base_model_id, known, self._extraction)
        )

    def _others_at_work(self) -> bool:
        live, _ = other_runs(self._store, self._state, self._run.run_id, self._config.stale_after_s)
        return bool(live)

    def _drop(self, source_ids: set[str], known: pa.Table, *, only_errors: bool = False) -> list[str]:
        """Takes all rows of these sources out; returns the models that had some."""
        old = known.filter(pc.is_in(known["source_id"], pa.array(sorted(source_ids), pa.string())))
        covered = covered_segments(self._state, old, self._extraction)
        return drop_sources(self._store, self._log, self._run, source_ids, covered, only_errors=only_errors)


def _absent(segment_ids: set[str], todo: pa.Table) -> set[str]:
    """Those that the plan has no row for. A plan may have millions: its ids never become Python objects."""
    ids = pa.array(sorted(segment_ids), pa.string())
    return set(ids.filter(pc.invert(pc.is_in(ids, todo["segment_id"]))).to_pylist()) if segment_ids else set()
