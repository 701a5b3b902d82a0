"""A plan, carried out: pass after pass of the graph over what is left of it, its results committed as they come.

What breaks a pass decides what runs next: nodes that were lost, actors that don't start, segments that kill theirs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline import execution, graph, planning, resources
from pipeline.cluster import size_of_cluster
from pipeline.covered import CoveredWindows
from pipeline.errors import CapacityError, ErrorCode, MediaError, StartError, StoreError
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
from pipeline.infer import CPU_BATCH, GPU_BATCH, InferConfig, without_predictions
from pipeline.ledger.commit import Committer
from pipeline.ledger.staging import StagedFile, StagedSet
from pipeline.passes import Pass, PassQueue
from pipeline.prepare import Prepared
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from pipeline.segments import windows_beyond
from pipeline.stage import StageConfig, StageWriter
from pipeline.storage.store import fsspec_options
from pipeline.stored import StoredSegments
from pipeline.summary import Summary
from pipeline.worker import WorkerConfig

COMMIT_BYTES = 512 << 20  # staged files that wait for a commit; crops get there before the minute is over


def worker_config(config: RunConfig, prepared: Prepared) -> WorkerConfig:
    """How this run opens, decodes and detects."""
    return WorkerConfig(
        extraction=prepared.dataset.extraction,
        model_config=prepared.model.config,
        detector_weights=config.detector_weights,
        decoder=config.decoder,
        detects=prepared.base_model_id is None,
        scratch_dir=config.scratch,
        scratch_bytes=int(config.scratch_gib * 2**30),
        storage_options=fsspec_options(config.storage_options),
        memory_limit_bytes=int(config.decode_memory_gib * 2**30),
    )


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


class Processing:
    """Carries out one plan: `run()` may be called once.

    summary: of the run; it has how the cluster is divided. stop: set by whoever interrupts the run. size: of the
    cluster. stored: where faces come from instead of decoding.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        summary: Summary,
        *,
        stop: threading.Event,
        size: resources.Cluster,
        stored: StoredSegments | None = None,
    ) -> None:
        self._config, self._prepared, self._summary = config, prepared, summary
        self._store, self._extraction = prepared.dataset.store, prepared.dataset.extraction
        self._model, self._model_id = prepared.model, prepared.model_id
        self._keeps_crops = config.keep_crops or prepared.keeps_crops
        self._stop, self._size, self._stored = stop, size, stored
        self._is_proved = False  # something has come through the whole chain
        self._failed_starts = 0  # passes in a row that gave nothing because an actor did not come up
        self._covered = CoveredWindows(self._extraction.id)

    def run(self, plan: planning.Plan, committer: Committer, progress: ProgressReporter) -> None:
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
            if self._summary.passes:
                self._divide_anew()  # nodes may have come or gone
            attempted = passes.pop()
            self._summary.passes += 1
            outcome = self._run_pass(attempted, model, committer, progress)
            self._commit(committer)
            if self._stop.is_set():
                break
            self._covered.remember(attempted.segments)
            following = windows_beyond(attempted.segments, outcome.beyond, self._extraction)
            if self._config.limit is not None:
                following = following.slice(0, max(0, self._config.limit - self._summary.segments_planned))
            self._summary.segments_planned += following.num_rows
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
        self._summary.processing_ended()
        progress.update(self._summary, final=True)

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
                    self._commit(committer)
                    last_commit = time.monotonic()
                committer.check_open()
                progress.update(self._summary)
        return outcome

    def _take(self, manifest: pa.Table, committer: Committer) -> None:
        """A unit's answers go into the next commit. What is stored says itself which windows have no row."""
        if self._stored is None:
            settled = self._covered.settle(manifest)
            tellers = self._covered.tellers(settled)
        else:
            settled, tellers = manifest, {}
        committer.add(staged_set(settled, manifest, tellers))
        self._summary.add(settled)

    def _commit(self, committer: Committer) -> None:
        committer.commit()
        self._summary.segments_done -= self._covered.committed(committer.take_unspoken())

    def _recover(
        self, passes: PassQueue, attempted: Pass, missing: pa.Table, broken: BaseException, progress: ProgressReporter
    ) -> tuple[str, pa.Table]:
        """Plans what a broken pass has left to do. Returns what broke it, in a line, and the rows to be blamed."""
        cause = cause_of(broken)
        why, nothing = in_a_line(cause), missing.slice(0, 0)
        if not isinstance(cause, LostNodesError | StartError):
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
        self._commit(committer)

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
            worker=worker_config(self._config, self._prepared),
            infer=self._infer_config(),
            stage=self._stage_config(),
            resources=self._resources,
            model=model,
            deadline_s=self._config.deadline_s,
            rescores=self._stored is not None,
            cuts_first=self._config.crop_on == "cpu",
        )
        if self._stored is not None:
            attempted = Pass(segments=self._stored.attach(attempted.segments), unit_rows=attempted.unit_rows)
        units = planning.dispatch_units(attempted, self._resources.decode_pool[1])
        return execution.blocks_until(self._stop, graph.build(units, config))

    def _divide_anew(self) -> bool:
        """What is there of the cluster by now, with the work on GPUs or not as it began. Whether it has become less.

        Raises StoreError if what is left can't hold the job.
        """
        before, self._size = self._size, size_of_cluster()
        placement = self._config.placement | {"device": "cuda" if self._resources.ran_gpus else "cpu"}
        is_less = self._size.cpus < before.cpus or self._size.gpus < before.gpus
        try:
            self._summary.resources = resources.share(self._size, **placement)
        except CapacityError as error:
            raise StoreError(f"the cluster lost nodes, and the rest can't hold the job: {error}") from None
        return is_less

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
            run_id=self._summary.run_id,
            model_id=self._model_id,
            model_config=self._model.config,
            keep_crops=self._keeps_crops,
        )

    @property
    def _resources(self) -> resources.Resources:
        assert self._summary.resources is not None
        return self._summary.resources


def staged_set(settled: pa.Table, manifest: pa.Table, tellers: Mapping[str, str]) -> StagedSet:
    """A unit's manifest, of which only the settled rows are final, as the committer wants it: one file set for all.
    tellers: as in `StagedSet`."""
    rows = settled.to_pylist()
    files = rows[0]["files"] if rows else []
    on = manifest.filter(pc.greater(manifest["beyond"], 0)).to_pylist()
    return StagedSet(
        segment_ids=[row["segment_id"] for row in rows if not row["deferred"]],
        covered=[row["segment_id"] for row in rows if row["covered"] and not row["deferred"]],
        files=[StagedFile(**file) for file in files],
        tails={row["video_key"]: row["window"] + 1 + row["beyond"] for row in on},
        tellers=tellers,
    )
