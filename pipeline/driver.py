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
from types import FrameType

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import capacity, execution, planning, resources
from pipeline.changed import ChangedFiles
from pipeline.cluster import check_output_is_shared, connected
from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import Replacing
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.ledger.state import LogState
from pipeline.media.sources import Source
from pipeline.outdated import OutdatedRows
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
            outdated = OutdatedRows(self._config, self._prepared, log, run, stop=self._stop, progress=progress)
            replacing = outdated.failures.replacing
            committer = Committer(self._dataset, log, run, self._model_id, replacing=replacing)
            committer.publish_missing()
            committer.sweep()
            known, unknown, changed = self._look_up(log, outdated)
            summary.sources = len(listing.sources)
            plan = self._plan(known, changed, log, replacing)
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
                        plan = self._plan(known, changed, log, replacing)
                    self._begin(plan, replacing, progress)
                    self._check_capacity(plan, size)
                    known = outdated.replace(changed, known, plan, lambda rows: self._commit_sources([rows], committer))
                    processing = Processing(
                        self._config, self._prepared, summary, stop=self._stop, size=size, stored=self._stored
                    )
                    processing.run(plan, committer, progress)
            else:
                self._begin(plan, replacing, progress)
            outdated.drop_unplanned(plan)
            outdated.drop_superseded(known)
            outdated.note_unread(known)
            summary.failed_sources = log.read(
                lambda state: planning.count_failed(self._store, state, self._model_id, listing)
            )
            summary.models = len(log.state.models)
            summary.notes = progress.notes
            summary.finish("interrupted" if self._stop.is_set() else "done")
            run.save_summary(summary.to_json())
        return summary

    def _look_up(self, log: CommitLog, outdated: OutdatedRows) -> tuple[pa.Table, list[Source], ChangedFiles]:
        """Rows of `sources` that the dataset has, inputs to probe, and those that changed since. `retry` keeps of the
        inputs what failed, and probes what could not be."""
        listing, failures = self._listing, outdated.failures
        known = log.read(lambda state: planning.known_sources(self._store, state))
        if self._retry_codes is not None:
            listing.sources = [one for one in listing.sources if one.source_id in failures.source_ids]
            again = [one for one in listing.sources if one.source_id in failures.probe]
            probed = pa.array(sorted(failures.probe), pa.string())
            return known.filter(pc.invert(pc.is_in(known["source_id"], probed))), again, ChangedFiles()
        unknown, changed = log.read(lambda state: planning.new_sources(self._store, state, listing, known))
        replaces = self._config.on_changed == "replace"
        if changed and replaces:
            outdated.refuse_beside_others("run")
        return known, unknown, ChangedFiles(changed, replaces=replaces)

    def _plan(self, known: pa.Table, changed: ChangedFiles, log: CommitLog, replacing: Replacing) -> planning.Plan:
        base_model_id = self._base_model_id
        if base_model_id is not None:
            return log.read(lambda state: self._plan_stored(known, state, base_model_id, replacing.segments))
        again = replacing.segments | changed.error_segments(self._extraction)
        return log.read(
            lambda state: planning.plan(
                self._listing,
                pa.concat_tables([known, changed.readable]),
                changed.staying,
                state,
                self._model_id,
                self._extraction,
                again,
                failed=lambda: planning.failed_segments(self._store, state, self._model_id),
            )
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

    def _begin(self, plan: planning.Plan, replacing: Replacing, progress: ProgressReporter) -> None:
        for note in plan.notes:
            progress.note(note)
        already_done = plan.already_done
        if self._config.limit is not None:
            plan.cut(self._config.limit, replacing.followers)
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
