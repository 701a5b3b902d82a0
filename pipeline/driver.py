"""One run, from its inputs to committed rows. The driver is the only committer; Ray's stages only stage files."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline import capacity, execution, graph, planning, resources
from pipeline.changed import ChangedFiles
from pipeline.cluster import check_output_is_shared, connected, size_of_cluster
from pipeline.config import Extraction
from pipeline.covered import CoveredWindows
from pipeline.errors import CapacityError, ErrorCode, MediaError, StoreError
from pipeline.execution import (
    MOST_STARTS,
    LostNodesError,
    actors_dont_start,
    cause_of,
    did_not_start,
    in_a_line,
    raise_for_users,
)
from pipeline.extract import failed_block
from pipeline.failures import Failures, covered_segments, find_failures
from pipeline.infer import CPU_BATCH, GPU_BATCH, InferConfig, without_predictions
from pipeline.ledger.commit import Committer
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import drop_segments, drop_sources
from pipeline.ledger.runs import Run, other_runs, refuse_while_at_work
from pipeline.ledger.staging import StagedFile, StagedSet, stage_table
from pipeline.ledger.state import LogState
from pipeline.media.sources import Source
from pipeline.passes import Pass, PassQueue
from pipeline.prepare import Prepared, model_config
from pipeline.probing import Probing
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from pipeline.segments import plan_table, windows_beyond
from pipeline.stage import StageConfig, StageWriter
from pipeline.storage.store import fsspec_options
from pipeline.stored import StoredSegments
from pipeline.summary import Summary
from pipeline.urls import without_credentials
from pipeline.worker import WorkerConfig

COMMIT_BYTES = 512 << 20  # staged files that wait for a commit; crops get there before the minute is over


@dataclass(kw_only=True)
class Outcome:
    """What came of a pass. done: its segments that need no other. beyond: windows that came to light after a segment.
    broken: the exception that ended it too early."""

    done: set[str] = field(default_factory=set)
    beyond: dict[str, int] = field(default_factory=dict)
    broken: BaseException | None = None

    def add(self, manifest: pa.Table) -> None:
        """A unit's manifest."""
        self.done.update(manifest.filter(pc.invert(manifest["deferred"]))["segment_id"].to_pylist())
        on = manifest.filter(pc.greater(manifest["beyond"], 0))
        self.beyond |= dict(zip(on["segment_id"].to_pylist(), on["beyond"].to_pylist(), strict=True))


class Driver:
    """Carries out one run. `run()` may be called once."""

    def __init__(self, config: RunConfig, prepared: Prepared) -> None:
        self._config = config
        self._dataset = prepared.dataset
        self._store = prepared.dataset.store
        self._extraction: Extraction = prepared.dataset.extraction
        self._listing = prepared.listing
        self._model = prepared.model
        self._model_id = prepared.model_id
        self._base_model_id = prepared.base_model_id
        self._retry_codes = prepared.retry_codes
        self._keeps_crops = config.keep_crops or prepared.keeps_crops
        self._stored: StoredSegments | None = None
        self._size = resources.Cluster(cpus=0, gpus=0)
        self._stop = threading.Event()
        self._is_proved = False  # something has come through the whole chain
        self._failed_starts = 0  # passes in a row of which no actor came up
        self._covered = CoveredWindows(self._extraction.id)
        self.summary = Summary(model_id=prepared.model_id, output=without_credentials(config.output))

    def run(self, progress: ProgressReporter) -> Summary:
        """Everything that this command's inputs still need for this model. Raises the errors of DESIGN's exit codes."""
        summary, listing = self.summary, self._listing
        log = CommitLog(self._store)
        log.refresh(write_checkpoints=True)
        run = Run.create(self._store, interval_s=self._config.heartbeat_s, stale_after_s=self._config.stale_after_s)
        summary.run_id = run.run_id
        summary.skipped_files, summary.unmatched_inputs = listing.skipped.total(), listing.unmatched
        for note in listing.notes():
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
            known, unknown, changed = self._look_up(failures, log, run)
            summary.sources = len(listing.sources)
            plan = self._plan(known, changed, log.state, failures)
            to_probe = unknown + changed.to_probe
            if to_probe or plan.todo.num_rows:
                if to_probe:
                    progress.phase(f"probing {len(to_probe)} new sources")
                probing = Probing(
                    to_probe, self._worker_config(), deadline_s=self._config.deadline_s, run_id=summary.run_id
                )
                with probing, connected(self._config.address) as size:
                    check_output_is_shared(self._store)
                    self._size, summary.resources = size, resources.share(size, **self._config.placement)
                    execution.configure_ray_data(wait_for_nodes_s=self._config.wait_for_nodes_s)
                    if to_probe:
                        known = pa.concat_tables([known, *self._probe(probing, committer, changed)])
                        plan = self._plan(known, changed, log.state, failures)
                    self._begin(plan, progress)
                    self._check_capacity(plan, size)
                    known = self._replace(changed, known, plan, log, run, committer, progress)
                    self._process(plan, committer, progress)
            else:
                self._begin(plan, progress)
            self._drop_unplanned(plan, failures, log, run)
            self._drop_superseded(known, log, run, progress)
            summary.failed_sources = planning.count_failed(self._store, log.state, self._model_id, listing)
            summary.models = len(log.state.models)
            summary.finish("interrupted" if self._stop.is_set() else "done")
            run.save_summary(summary.to_json())
        return summary

    def _failures(self, log: CommitLog) -> Failures:
        """What `retry` replaces; nothing for other commands."""
        if self._retry_codes is None:
            return Failures()
        refuse_while_at_work(self._store, log.state, self._config.stale_after_s, "retry", but=self.summary.run_id)
        known = planning.known_sources(self._store, log.state)
        return find_failures(self._store, log.state, self._model_id, known, self._extraction, self._retry_codes)

    def _look_up(self, failures: Failures, log: CommitLog, run: Run) -> tuple[pa.Table, list[Source], ChangedFiles]:
        """Rows of `sources` that the dataset has, inputs to probe, and those that changed since. `retry` keeps of the
        inputs what failed, and probes what could not be."""
        listing = self._listing
        known = planning.known_sources(self._store, log.state)
        if self._retry_codes is not None:
            listing.sources = [one for one in listing.sources if one.source_id in failures.source_ids]
            again = [one for one in listing.sources if one.source_id in failures.probe]
            probed = pa.array(sorted(failures.probe), pa.string())
            return known.filter(pc.invert(pc.is_in(known["source_id"], probed))), again, ChangedFiles()
        unknown, changed = planning.new_sources(self._store, log.state, listing, known)
        replaces = self._config.on_changed == "replace"
        if changed and replaces:
            refuse_while_at_work(self._store, log.state, self._config.stale_after_s, "run", but=run.run_id)
        return known, unknown, ChangedFiles(changed, replaces=replaces)

    def _replace(
        self,
        changed: ChangedFiles,
        known: pa.Table,
        plan: planning.Plan,
        log: CommitLog,
        run: Run,
        committer: Committer,
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
        log.refresh(write_checkpoints=True)
        ids = {*old["source_id"].to_pylist(), *planning.change_rows(self._store, log.state, uris)}
        lost = drop_sources(self._store, log, run, ids, covered_segments(log.state, old, self._extraction))
        self._commit_sources([new], committer)
        progress.note(f"the old rows of {new.num_rows} changed files were taken out; new ones follow")
        others = [model_id for model_id in lost if model_id != self._model_id]
        if others:
            progress.note(
                f"their rows of other models ({', '.join(others)}) went too: "
                f"`reprocess {self.summary.output} --model DIR` with each of them makes new ones"
            )
        return pa.concat_tables([known.filter(pc.invert(is_old)), new])

    def _drop_unplanned(self, plan: planning.Plan, failures: Failures, log: CommitLog, run: Run) -> None:
        """Failed rows of segments that the sources don't have any more: they told of a probe that works now."""
        listed = {source.source_id for source in self._listing.sources}
        failed = {segment_id for segment_id, source_id in failures.rows.items() if source_id in listed}
        unplanned = _absent(failed, plan.todo)
        if unplanned and not self._stop.is_set() and self._config.limit is None:
            drop_segments(self._store, log, run, self._model_id, failures.replacing, unplanned)

    def _drop_superseded(self, known: pa.Table, log: CommitLog, run: Run, progress: ProgressReporter) -> None:
        """Errors of files that were mended since leave, once the files' new content has its rows.

        While another run is at work they stay: the next one takes them out.
        """
        is_whole_run = self._retry_codes is None and self._base_model_id is None and self._config.limit is None
        if not is_whole_run or self._stop.is_set():
            return
        log.refresh()
        gone = planning.superseded(self._store, log.state, self._listing, known)
        if gone and not other_runs(self._store, log.state, run.run_id, self._config.stale_after_s)[0]:
            old = known.filter(pc.is_in(known["source_id"], pa.array(sorted(gone), pa.string())))
            covered = covered_segments(log.state, old, self._extraction)
            drop_sources(self._store, log, run, gone, covered, only_errors=True)
            progress.note(f"{len(gone)} errors of files that have another content now were taken out")

    def _plan(self, known: pa.Table, changed: ChangedFiles, state: LogState, failures: Failures) -> planning.Plan:
        if self._base_model_id is not None:
            return self._plan_stored(known, state, self._base_model_id)
        again = failures.replacing.segments | changed.error_segments(self._extraction)
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

    def _plan_stored(self, known: pa.Table, state: LogState, base_model_id: str) -> planning.Plan:
        """What the base model has of the dataset and this model lacks."""
        locations = {source.source_id: source.location for source in self._listing.sources}
        planned = plan_table(known, locations=locations, extraction=self._extraction, tails=state.tails)
        self._stored = StoredSegments(self._store, state, base_model_id, model_config(self._model))
        todo = self._stored.plan(planned, self._model_id)
        return planning.Plan(todo=todo, total=state.count(base_model_id))

    def _divide_anew(self) -> bool:
        """What is there of the cluster by now, with the work on GPUs or not as it began. Whether it has become less.

        Raises StoreError if what is left can't hold the job.
        """
        before, self._size = self._size, size_of_cluster()
        placement = self._config.placement | {"device": "cuda" if self._resources.ran_gpus else "cpu"}
        is_less = self._size.cpus < before.cpus or self._size.gpus < before.gpus
        try:
            self.summary.resources = resources.share(self._size, **placement)
        except CapacityError as error:
            raise StoreError(f"the cluster lost nodes, and the rest can't hold the job: {error}") from None
        return is_less

    def _begin(self, plan: planning.Plan, progress: ProgressReporter) -> None:
        already_done = plan.already_done
        if self._config.limit is not None:
            plan.todo = plan.todo.slice(0, self._config.limit)
        self.summary.segments_planned = plan.todo.num_rows
        self.summary.segments_already_done = already_done
        if already_done:
            progress.note(f"{already_done} segments are already done and stay as they are")

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

    def _process(
        self,
        plan: planning.Plan,
        committer: Committer,
        progress: ProgressReporter,
    ) -> None:
        """Runs passes until every planned segment is committed or the run is interrupted."""
        model = ray.put(self._model)
        self._covered = CoveredWindows(self._extraction.id, plan.told)
        passes = PassQueue(plan.todo, self._resources.decode_pool[1])
        progress.phase("starting actors")
        while not self._stop.is_set():
            if not passes:
                passes.add(self._covered.untold())
            if not passes:
                break
            if self.summary.passes:
                self._divide_anew()  # nodes may have come or gone
            attempted = passes.pop()
            self.summary.passes += 1
            outcome = self._run_pass(attempted, model, committer, progress)
            committer.commit()
            if self._stop.is_set():
                break
            self._covered.remember(attempted.segments)
            following = windows_beyond(attempted.segments, outcome.beyond, self._extraction)
            if self._config.limit is not None:
                following = following.slice(0, max(0, self._config.limit - self.summary.segments_planned))
            self.summary.segments_planned += following.num_rows
            passes.add(following)
            missing = attempted.segments.filter(
                pc.invert(pc.is_in(attempted.segments["segment_id"], pa.array(sorted(outcome.done), pa.string())))
            )
            if outcome.broken is None:
                passes.add(missing, unit_rows=1)
                continue
            why, failed = self._recover(passes, attempted, missing, outcome.broken, progress)
            del outcome  # it holds the exception, and that the actors
            if passes.is_stuck or (failed.num_rows and not self._is_proved):
                works = self._cluster_works(missing, model)
                if self._stop.is_set():
                    break  # nobody knows
                if not works:
                    raise StoreError(f"the cluster fails at whatever it is given: {why}; run again to resume")
                passes.go_on()
            if failed.num_rows:
                self._give_up(failed, why, committer)
        committer.finish()
        self.summary.processing_ended()
        progress.update(self.summary, final=True)

    def _run_pass(self, attempted: Pass, model: Any, committer: Committer, progress: ProgressReporter) -> Outcome:
        """One execution of the graph, its results committed as they come."""
        outcome = Outcome()
        last_commit = time.monotonic()
        with closing(self._manifests(attempted, model)) as manifests:
            for manifest in manifests:
                if isinstance(manifest, BaseException):
                    outcome.broken = manifest
                elif manifest is not None:
                    self._take(manifest, committer)
                    outcome.add(manifest)
                    self._is_proved, self._failed_starts = True, 0
                due = time.monotonic() - last_commit >= self._config.commit_interval_s
                if due or committer.pending_bytes >= COMMIT_BYTES:
                    committer.commit()
                    last_commit = time.monotonic()
                committer.check_open()
                progress.update(self.summary)
        return outcome

    def _take(self, manifest: pa.Table, committer: Committer) -> None:
        """A unit's answers go into the next commit. What is stored says itself which windows have no row."""
        settled = self._covered.settle(manifest) if self._stored is None else manifest
        committer.add(staged_set(settled, manifest))
        self.summary.add(settled)

    def _recover(
        self, passes: PassQueue, attempted: Pass, missing: pa.Table, broken: BaseException, progress: ProgressReporter
    ) -> tuple[str, pa.Table]:
        """Plans what a broken pass has left to do. Returns what broke it, in a line, and the rows to be blamed."""
        cause = cause_of(broken)
        why, nothing = in_a_line(cause), missing.slice(0, 0)
        if not isinstance(cause, LostNodesError):
            raise_for_users(cause)
        if self._divide_anew() or isinstance(cause, LostNodesError):
            passes.again(attempted, missing)
            if passes.is_stuck:
                raise StoreError(f"the cluster keeps losing nodes: {why}; run the same command again")
            progress.note(f"nodes were lost; {missing.num_rows} segments run again on what is left of the cluster")
            return why, nothing
        if isinstance(cause, ray.exceptions.GetTimeoutError):
            raise StoreError(
                "the cluster did not start the actors in time: has it nodes for them? See `ray status`; run the same "
                "command again to resume, with a longer --wait-for-nodes-s if nodes are still coming"
            )
        if did_not_start(cause):
            self._failed_starts += 1
            if self._failed_starts >= MOST_STARTS:
                raise actors_dont_start(cause)
            passes.add(missing, attempted.unit_rows)
            progress.note(f"actors did not start ({why}); trying once more")
            return why, nothing
        self._failed_starts = 0
        failed = passes.lost(attempted, missing)
        if not failed.num_rows:
            progress.note(f"an actor was lost ({why}); {missing.num_rows} segments run again")
        return why, failed

    def _give_up(self, failed: pa.Table, why: str, committer: Committer) -> None:
        """Error rows for segments that kill their actors."""
        error = MediaError(ErrorCode.INTERNAL, f"processing it alone failed twice: {why}")
        block = without_predictions(failed_block(failed, error, self._extraction))
        self._take(StageWriter(self._stage_config())(block), committer)
        committer.commit()

    def _cluster_works(self, some: pa.Table, model: Any) -> bool:
        """Whether a segment of which nothing is read comes through: then it is inputs that fail, however many. After a
        stop the answer means nothing."""
        row = some.slice(0, 1)
        for name, value in (("error_code", str(ErrorCode.INTERNAL)), ("error_message", "not read")):
            row = row.set_column(row.schema.get_field_index(name), row.schema.field(name), pa.array([value]))
        with closing(self._manifests(Pass(segments=row, unit_rows=1), model)) as manifests:
            works = any(isinstance(manifest, pa.Table) for manifest in manifests)
        self._is_proved = self._is_proved or works
        return works

    def _manifests(self, attempted: Pass, model: Any) -> Generator[pa.Table | BaseException | None]:
        """Manifests as they come; None now and then, so that the driver can commit, renew and notice a stop; last, if
        the execution failed, the exception. To be closed."""
        config = graph.GraphConfig(
            worker=self._worker_config(),
            infer=self._infer_config(),
            stage=self._stage_config(),
            resources=self._resources,
            model=model,
            deadline_s=self._config.deadline_s,
            rescores=self._stored is not None,
        )
        if self._stored is not None:
            attempted = Pass(segments=self._stored.attach(attempted.segments), unit_rows=attempted.unit_rows)
        units = planning.dispatch_units(attempted, self._resources.decode_pool[1])
        return execution.blocks_until(self._stop, graph.build(units, config))

    @property
    def _resources(self) -> resources.Resources:
        assert self.summary.resources is not None
        return self.summary.resources

    def _worker_config(self) -> WorkerConfig:
        config = self._config
        return WorkerConfig(
            extraction=self._extraction,
            model_config=self._model.config,
            detector_weights=config.detector_weights,
            decoder=config.decoder,
            detects=self._base_model_id is None,
            scratch_dir=config.scratch,
            scratch_bytes=int(config.scratch_gib * 2**30),
            storage_options=fsspec_options(config.storage_options),
            memory_limit_bytes=int(config.decode_memory_gib * 2**30),
        )

    def _infer_config(self) -> InferConfig:
        gpu = self._resources.ran_gpus > 0
        return InferConfig(
            device="cuda" if gpu else "cpu",
            batch_size=self._config.batch_size or (GPU_BATCH if gpu else CPU_BATCH),
            keep_pixels=self._keeps_crops,
        )

    def _stage_config(self) -> StageConfig:
        return StageConfig(
            store=self._store,
            run_id=self.summary.run_id,
            model_id=self._model_id,
            model_config=self._model.config,
            keep_crops=self._keeps_crops,
        )

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


def staged_set(settled: pa.Table, manifest: pa.Table) -> StagedSet:
    """A unit's manifest, of which only the settled rows are final, as the committer wants it: one file set for all."""
    rows = settled.to_pylist()
    files = rows[0]["files"] if rows else []
    on = manifest.filter(pc.greater(manifest["beyond"], 0)).to_pylist()
    return StagedSet(
        segment_ids=[row["segment_id"] for row in rows if not row["deferred"]],
        covered=[row["segment_id"] for row in rows if row["covered"] and not row["deferred"]],
        files=[StagedFile(**file) for file in files],
        tails={row["video_key"]: row["window"] + 1 + row["beyond"] for row in on},
    )
