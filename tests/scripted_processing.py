"""The loop over passes without Ray: what comes of each pass is made up by the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import ray

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.extract import append_results
from pipeline.extraction import ExtractedSegment
from pipeline.infer import without_predictions
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.media.sources import Listing
from pipeline.passes import Pass
from pipeline.planning import Plan
from pipeline.prepare import Prepared, load
from pipeline.processing import Processing
from pipeline.progress import ProgressReporter
from pipeline.resources import Cluster, share
from pipeline.run_config import RunConfig
from pipeline.segments import Segment
from pipeline.stage import StageWriter
from pipeline.storage.store import Store
from pipeline.summary import Summary

Answer = pa.Table | BaseException | None


def prepared_for(model: Path, store: Store, extraction: Extraction) -> Prepared:
    """A run's parts, without an input."""
    stored, model_id = load(str(model))
    dataset = Dataset.open_or_create(store, extraction)
    return Prepared(listing=Listing(sources=[]), model=stored, model_id=model_id, dataset=dataset)


class ScriptedProcessing(Processing):
    """passes: those that it ran so far. script: the manifests of a pass, and what broke it."""

    def __init__(self, model: Path, output: str, extraction: Extraction) -> None:
        prepared = prepared_for(model, Store(output), extraction)
        self.dataset, self.stop, cluster = prepared.dataset, threading.Event(), Cluster(cpus=3, gpus=0)
        self.summary = Summary(model_id=prepared.model_id, output=output, resources=share(cluster))
        config = RunConfig(inputs=("a",), output=output, commit_interval_s=1e-6)
        super().__init__(config, prepared, self.summary, stop=self.stop, size=cluster)
        self.log = CommitLog(self.dataset.store)
        self.passes: list[Pass] = []
        self.script: Callable[[Pass], Iterable[Answer]] = lambda attempted: []

    def _manifests(self, attempted: Pass, model: Any) -> Generator[Answer]:
        self.passes.append(attempted)
        yield from self.script(attempted)

    def _divide_anew(self) -> bool:
        return False  # there is no cluster

    def process(self, plan: pa.Table, told: list[str] | None = None) -> None:
        """The whole loop over a plan."""
        with Run.create(self.dataset.store) as run, mock.patch.object(ray, "put", lambda value: value):
            self.summary.run_id = run.run_id
            committer = Committer(self.dataset, self.log, run, self._model_id)
            todo = Plan(todo=plan, total=plan.num_rows, told=told or [])
            self.run(todo, committer, ProgressReporter(quiet=True))

    def unit(self, rows: pa.Table, **answers: Callable[[Segment], Any]) -> pa.Table:
        """The manifest of a unit. answers: of each segment, what ExtractedSegment gets; an `error` is its code."""
        results = []
        for row in rows.to_pylist():
            segment = Segment.from_row(row)
            values = {name: value for name, answer in answers.items() if (value := answer(segment)) is not None}
            code = values.pop("error", None)
            results.append(ExtractedSegment(segment_id=segment.segment_id, **values))
            if code is not None:
                results[-1].fail(MediaError(ErrorCode(code), "made up"), partial=False)
        nothing = [b""] * len(results)
        block = append_results(rows, results, nothing, [False] * len(results), self._extraction, 0.0)
        return StageWriter(self._stage_config())(without_predictions(block))

    @property
    def model_id(self) -> str:
        """Of its model."""
        return self._model_id


def failed_start(why: str) -> Exception:
    """What Ray raises for an actor whose constructor did."""
    error = RuntimeError(f"The actor died because of an error raised in its creation task:\n  {why}\n")
    error.actor_init_failed = True  # type: ignore[attr-defined]
    return error
