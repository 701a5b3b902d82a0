"""The driver's own loop without Ray: what comes of each pass is made up by the test."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import ray

from pipeline.config import Extraction
from pipeline.driver import Driver
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
from pipeline.progress import ProgressReporter
from pipeline.resources import Cluster, share
from pipeline.run_config import RunConfig
from pipeline.segments import Segment
from pipeline.stage import StageWriter
from pipeline.storage.store import Store

Answer = pa.Table | BaseException | None


class ScriptedDriver(Driver):
    """passes: those that it ran so far. script: the manifests of a pass, and what broke it."""

    def __init__(self, model: Path, output: str, extraction: Extraction) -> None:
        stored, model_id = load(str(model))
        self.dataset = Dataset.open_or_create(Store(output), extraction)
        prepared = Prepared(listing=Listing(sources=[]), model=stored, model_id=model_id, dataset=self.dataset)
        super().__init__(RunConfig(inputs=("a",), output=output, commit_interval_s=1e-6), prepared)
        self.summary.resources = share(Cluster(cpus=3, gpus=0))
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
            self._process(todo, committer, ProgressReporter(quiet=True))

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
