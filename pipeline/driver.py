"""One run, from its inputs to committed rows. The driver's process is the only committer; Ray's stages only stage
files. What it plans, `pipeline.processing` carries out."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import capacity, execution, planning, resources
from pipeline.changed import ChangedFiles
from pipeline.cluster import check_output_is_shared, connected
from pipeline.config import Extraction
from pipeline.failures import Failures, covered_segments, find_failures, find_overtaken
from pipeline.ledger.commit import Committer
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import Replacing, drop_segments, drop_sources
from pipeline.ledger.runs import Run, other_runs, refuse_while_at_work
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.ledger.state import LogState
from pipeline.media.sources import Source
from pipeline.prepare import Prepared, model_config
from pipeline.probing import Probing
from pipeline.processing import Processing, worker_config
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from pipeline.segments import plan_table
from pipeline.stored import StoredSegments
from pipeline.summary import Summary
from pipeline.terminal import counted
from pipeline.urls import without_credentials


@dataclass(kw_only=True)
class Ledger:
    """How a run reads and changes its dataset. failures: what of it gives way to the run's new rows."""

    log: CommitLog
    run: Run
    committer: Committer
    failures: Failures

    @property
    def state(self) -> LogState:
        return self.log.state


class Driver:
    """Carries out one run. `run()` may be called once."""

    def __init__(self, config: RunConfig, prepared: Prepared) -> None:
        self._config, self._prepared = config, prepared
        self._dataset = prepared.dataset
        self._store = prepared.dataset.store
        self._extraction: Extraction = prepared.dataset.extraction
        self._listing = prepared.listing
        self._model = prepared.model
        self._model_id = prepared.model_id
        self._base_model_id = prepared.base_model_id
        self._retry_codes = prepared.retry_codes
        self._stored: StoredSegments | None = None
        self._stop = threading.Event()
        self.summary = Summary(model_id=prepared.model_id, output=without_credentials(config.output))

    def run(self, progress: ProgressReporter) -> Summary:
        """Everything that this command's inputs still need for this model. Raises the errors of DESIGN's exit codes."""
        summary, listing = self.summary, self._listing
        log = CommitLog(self._store)
        log.refresh(write_checkpoints=True)
        run = Run.create(self._store, interval_s=self._config.heartbeat_s, stale_after_s=self._config.stale_after_s)
        summary.run_id = run.run_id
        summary.skipped_files, summary.unmatched_inputs = listing.skipped.total(), listing.unmatched
        for note in (*listing.notes(), *self._prepared.notes):
            progress.note(note)
        with run, self._interruptible(progress):
            run.save_config(
                {
                    "run": self._config.to_json(),
                    "extraction": self._extraction.to_json(),
                    "root": self._dataset.root,
                }
            )
            failures = self._failures(log)
            committer = Committer(self._dataset, log, run, self._model_id, replacing=failures.replacing)
            committer.publish_missing()
            committer.sweep()
            ledger = Ledger(log=log, run=run, committer=committer, failures=failures)
            known, unknown, changed = self._look_up(ledger)
            summary.sources = len(listing.sources)
            plan = self._plan(known, changed, ledger)
            to_probe = unknown + changed.to_probe
            if to_probe or plan.todo.num_rows:
                if to_probe:
                    progress.phase(f"probing {counted(len(to_probe), 'source')}")
                worker = worker_config(self._config, self._prepared)
                probing = Probing(to_probe, worker, deadline_s=self._config.deadline_s, run_id=summary.run_id)
                with probing, connected(self._config.address) as size:
                    check_output_is_shared(self._store)
                    summary.resources = resources.share(size, **self._config.placement)
                    execution.configure_ray_data(wait_for_nodes_s=self._config.wait_for_nodes_s)
                    if to_probe:
                        known = pa.concat_tables([known, *self._probe(probing, committer, changed)])
                        plan = self._plan(known, changed, ledger)
                    self._begin(plan, failures, progress)
                    self._check_capacity(plan, size)
                    known = self._replace(changed, known, plan, ledger, progress)
                    processing = Processing(
                        self._config, self._prepared, summary, stop=self._stop, size=size, stored=self._stored
                    )
                    processing.run(plan, committer, progress)
            else:
                self._begin(plan, failures, progress)
            self._drop_unplanned(plan, ledger)
            self._drop_superseded(known, ledger, progress)
            self._note_unread(known, ledger, progress)
            summary.failed_sources = planning.count_failed(self._store, log.state, self._model_id, listing)
            summary.models = len(log.state.models)
            summary.notes = progress.notes
            summary.finish("interrupted" if self._stop.is_set() else "done")
            run.save_summary(summary.to_json())
        return summary

    def _failures(self, log: CommitLog) -> Failures:
        """What `retry` replaces, and `reprocess` where the base knows better by now; nothing for `run`."""
        if self._base_model_id is not None:
            return Failures(replacing=self._overtaken(log.state, self._base_model_id))
        if self._retry_codes is None:
            return Failures()
        refuse_while_at_work(self._store, log.state, self._config.stale_after_s, "retry", but=self.summary.run_id)
        known = planning.known_sources(self._store, log.state)
        return find_failures(self._store, log.state, self._model_id, known, self._extraction, self._retry_codes)

    def _overtaken(self, state: LogState, base_model_id: str) -> Replacing:
        """Nothing beside another run, which may be replacing the same rows; the next `reprocess` has them."""
        if self._others_at_work(state):
            return Replacing()
        known = partial(planning.known_sources, self._store, state)
        return find_overtaken(self._store, state, self._model_id, base_model_id, known, self._extraction)

    def _look_up(self, ledger: Ledger) -> tuple[pa.Table, list[Source], ChangedFiles]:
        """Rows of `sources` that the dataset has, inputs to probe, and those that changed since. `retry` keeps of the
        inputs what failed, and probes what could not be."""
        listing, failures = self._listing, ledger.failures
        known = planning.known_sources(self._store, ledger.state)
        if self._retry_codes is not None:
            listing.sources = [one for one in listing.sources if one.source_id in failures.source_ids]
            again = [one for one in listing.sources if one.source_id in failures.probe]
            probed = pa.array(sorted(failures.probe), pa.string())
            return known.filter(pc.invert(pc.is_in(known["source_id"], probed))), again, ChangedFiles()
        unknown, changed = planning.new_sources(self._store, ledger.state, listing, known)
        replaces = self._config.on_changed == "replace"
        if changed and replaces:
            self._refuse_beside_others("run", ledger)
        return known, unknown, ChangedFiles(changed, replaces=replaces)

    def _replace(
        self,
        changed: ChangedFiles,
        known: pa.Table,
        plan: planning.Plan,
        ledger: Ledger,
        progress: ProgressReporter,
    ) -> pa.Table:
        """`--on-changed replace`, once everything is checked: all rows of the old content leave, and the error rows
        that told of the change. Returns `known` with the new content for the old."""
        if self._stop.is_set():
            return known
        for note in changed.notes():
            progress.note(note)
        new = changed.readable
        if self._config.limit is not None:  # what this run does not begin with stays as it is
            new = new.filter(pc.is_in(new["source_id"], plan.todo["source_id"].combine_chunks()))
        if not new.num_rows:
            return known
        uris = new["source_uri"].combine_chunks()
        is_old = pc.is_in(known["source_uri"], uris)
        old = known.filter(is_old)
        ledger.log.refresh(write_checkpoints=True)  # probing took its time: another run may be there by now
        self._refuse_beside_others("run", ledger)
        # one that begins now may still see the old rows, and tell of the change
        ledger.failures.replacing.awaited = changed.error_segments(self._extraction)
        ids = {*old["source_id"].to_pylist(), *planning.change_rows(self._store, ledger.state, uris)}
        covered = covered_segments(ledger.state, old, self._extraction)
        lost = drop_sources(self._store, ledger.log, ledger.run, ids, covered)
        self._commit_sources([new], ledger.committer)
        progress.note(f"the old rows of {counted(new.num_rows, 'changed file')} were taken out; new ones follow")
        others = [model_id for model_id in lost if model_id != self._model_id]
        if others:
            progress.note(
                f"their rows of other models ({', '.join(others)}) went too: "
                f"`reprocess {self.summary.output} --model DIR` with each of them makes new ones"
            )
        return pa.concat_tables([known.filter(pc.invert(is_old)), new])

    def _drop_unplanned(self, plan: planning.Plan, ledger: Ledger) -> None:
        """Failed rows of segments that the sources don't have any more: they told of a probe that works now."""
        failures, listed = ledger.failures, {source.source_id for source in self._listing.sources}
        failed = {segment_id for segment_id, source_id in failures.rows.items() if source_id in listed}
        unplanned = _absent(failed, plan.todo)
        if unplanned and not self._stop.is_set() and self._config.limit is None:
            drop_segments(self._store, ledger.log, ledger.run, self._model_id, failures.replacing, unplanned)

    def _drop_superseded(self, known: pa.Table, ledger: Ledger, progress: ProgressReporter) -> None:
        """Errors of files that were mended since leave, once the files' new content has its rows; so do good rows of an
        earlier content, with `--on-changed replace`.

        While another run is at work they stay: the next one takes them out.
        """
        is_whole_run = self._retry_codes is None and self._base_model_id is None and self._config.limit is None
        if not is_whole_run or self._stop.is_set():
            return
        ledger.log.refresh()
        gone = planning.superseded(self._store, ledger.state, self._listing, known)
        if gone and not self._others_at_work(ledger.state):
            self._drop(gone, known, ledger, only_errors=True)
            progress.note(f"{counted(len(gone), 'error')} of files that have another content now were taken out")
        outlived = planning.outlived(self._store, ledger.state, self._listing, known)
        told = f"rows of {counted(len(outlived), 'earlier content')} beside those of what the files hold now"
        if outlived and self._config.on_changed != "replace":
            progress.note(f"there are {told}; `--on-changed replace` takes them out")
        elif outlived and not self._others_at_work(ledger.state):
            self._drop(outlived, known, ledger)
            progress.note(f"{told} were taken out")

    def _drop(self, source_ids: set[str], known: pa.Table, ledger: Ledger, *, only_errors: bool = False) -> None:
        old = known.filter(pc.is_in(known["source_id"], pa.array(sorted(source_ids), pa.string())))
        covered = covered_segments(ledger.state, old, self._extraction)
        drop_sources(self._store, ledger.log, ledger.run, source_ids, covered, only_errors=only_errors)

    def _note_unread(self, known: pa.Table, ledger: Ledger, progress: ProgressReporter) -> None:
        """What `reprocess` could not read of faces that the base has."""
        if self._base_model_id is None or self._stop.is_set():
            return
        state, base = ledger.state, self._base_model_id
        unread = find_overtaken(self._store, state, self._model_id, base, lambda: known, self._extraction).segments
        if unread:
            progress.note(
                f"{counted(len(unread), 'segment')} that model {base} has could not be read again, and views of model "
                f"{self._model_id} lack them: repeat the command when their sources can be read"
            )

    def _others_at_work(self, state: LogState) -> bool:
        return bool(other_runs(self._store, state, self.summary.run_id, self._config.stale_after_s)[0])

    def _refuse_beside_others(self, command: str, ledger: Ledger) -> None:
        """Raises UsageError if another run is at work."""
        stale_after_s = self._config.stale_after_s
        refuse_while_at_work(self._store, ledger.state, stale_after_s, command, but=self.summary.run_id)

    def _plan(self, known: pa.Table, changed: ChangedFiles, ledger: Ledger) -> planning.Plan:
        state, replaced = ledger.state, ledger.failures.replacing.segments
        if self._base_model_id is not None:
            return self._plan_stored(known, state, self._base_model_id, replaced)
        again = replaced | changed.error_segments(self._extraction)
        return planning.plan(
            self._listing,
            pa.concat_tables([known, changed.readable]),
            changed.staying,
            state,
            self._model_id,
            self._extraction,
            again,
            failed=lambda: planning.failed_segments(self._store, state, self._model_id),
        )

    def _plan_stored(
        self, known: pa.Table, state: LogState, base_model_id: str, again: Collection[str]
    ) -> planning.Plan:
        """What the base model has of the dataset and this model lacks, or is to have again."""
        locations = {source.source_id: source.location for source in self._listing.sources}
        planned = plan_table(known, locations=locations, extraction=self._extraction, tails=state.tails)
        self._stored = StoredSegments(self._store, state, base_model_id, model_config(self._model))
        todo = self._stored.plan(planned, self._model_id, again)
        total = state.count(base_model_id) - self._stored.left_out
        return planning.Plan(todo=todo, total=total, notes=self._stored.notes(self._model_id))

    def _begin(self, plan: planning.Plan, failures: Failures, progress: ProgressReporter) -> None:
        for note in plan.notes:
            progress.note(note)
        already_done = plan.already_done
        if self._config.limit is not None:
            plan.cut(self._config.limit, failures.replacing.followers)
            self.summary.segments_left = plan.left
        self.summary.segments_planned = plan.todo.num_rows
        self.summary.segments_already_done = already_done
        if already_done:
            progress.note(f"{counted(already_done, 'segment')} done already, which stay as they are")

    def _check_capacity(self, plan: planning.Plan, size: resources.Cluster) -> None:
        if self._stop.is_set():
            return  # nothing more is written, and the plan may lack what was not probed
        model = model_config(self._model)
        decoded = None if self._stored is None else self._stored.to_decode(plan.todo)
        need = capacity.estimate(plan.todo, self._extraction, model, self._config, size, self._resources, decoded)
        capacity.check(need, self._store, self._config, size)

    def _probe(self, probing: Probing, committer: Committer, changed: ChangedFiles) -> Iterator[pa.Table]:
        """Rows of `sources`, one table per commit, so that a killed run keeps what it had probed. Those of changed
        files wait."""
        probed: list[pa.Table] = []
        last_commit = time.monotonic()
        for rows in probing.tables(self._resources, self._stop):
            self.summary.sources_probed += rows.num_rows
            new = changed.take(rows)
            if new.num_rows:
                probed.append(new)
            if probed and time.monotonic() - last_commit >= self._config.commit_interval_s:
                yield self._commit_sources(probed, committer)
                probed, last_commit = [], time.monotonic()
            if self._stop.is_set():
                break
        if probed:
            yield self._commit_sources(probed, committer)

    def _commit_sources(self, probed: list[pa.Table], committer: Committer) -> pa.Table:
        rows = pa.concat_tables(probed).combine_chunks()  # a copy: the blocks would stay in the object store
        staged = stage_table(self._store, self.summary.run_id, "sources", rows)
        committer.add(StagedSet(segment_ids=[], files=[staged]))
        committer.commit()
        return rows

    @property
    def _resources(self) -> resources.Resources:
        assert self.summary.resources is not None
        return self.summary.resources

    @contextmanager
    def _interruptible(self, progress: ProgressReporter) -> Iterator[None]:
        """First Ctrl-C (or SIGTERM): stop dispatch and commit what is staged. Second: leave at once."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                sys.stderr.write("left at once; run the same command again to resume\n")
                os._exit(130)
            self._stop.set()
            progress.note("stopping: committing what is staged; press Ctrl-C again to leave at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _absent(segment_ids: set[str], todo: pa.Table) -> set[str]:
    """Those that the plan has no row for. A plan may have millions: its ids never become Python objects."""
    ids = pa.array(sorted(segment_ids), pa.string())
    return set(ids.filter(pc.invert(pc.is_in(ids, todo["segment_id"]))).to_pylist()) if segment_ids else set()
