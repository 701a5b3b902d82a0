"""Rows that a full block hands back are written by nobody, committed by nobody and forgotten by nobody.

The real loop over passes and the real stages, in this process: what Ray would carry between them is handed over as it
is.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline.config import Extraction
from pipeline.extract import BLOCK_PIXEL_BYTES, DecodeActor
from pipeline.infer import InferConfig, RanActor
from pipeline.ledger.commit import Committer
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.media.probe import probe_source
from pipeline.media.scratch import Scratch
from pipeline.media.sources import list_sources
from pipeline.passes import Pass
from pipeline.planning import Plan
from pipeline.prepare import Prepared
from pipeline.processing import Processing, staged_set, worker_config
from pipeline.progress import ProgressReporter
from pipeline.resources import Cluster, share
from pipeline.run_config import RunConfig
from pipeline.segments import PLAN, plan_segments
from pipeline.stage import StageWriter
from pipeline.storage.store import Store
from pipeline.summary import Summary
from tests.conftest import DEMO_MEDIA
from tests.scripted_processing import prepared_for

VIDEO = DEMO_MEDIA / "portrait.mp4"
EXTRACTION = Extraction(segment_frames=8)


@pytest.fixture(scope="module")
def plan() -> pa.Table:
    """The video's windows."""
    (source,) = list_sources([str(VIDEO)]).sources
    row = probe_source(source, scratch=Scratch(None), extraction=EXTRACTION)
    segments = plan_segments(row, location=source.location, extraction=EXTRACTION)
    return pa.Table.from_pylist([segment.to_row() for segment in segments], schema=PLAN)


class InProcess(Processing):
    """Its passes run here, each as one unit. manifests: all that came of them."""

    def __init__(self, config: RunConfig, prepared: Prepared, block_pixel_bytes: int) -> None:
        cluster = Cluster(cpus=3, gpus=0)
        self.summary = Summary(model_id=prepared.model_id, output=config.output, resources=share(cluster))
        super().__init__(config, prepared, self.summary, stop=threading.Event(), size=cluster)
        self.manifests: list[pa.Table] = []
        self._decode = DecodeActor(worker_config(config, prepared), 60, block_pixel_bytes)
        self._ran = RanActor(prepared.model, InferConfig(device="cpu"))

    def _manifests(self, attempted: Pass, model: Any) -> Generator[pa.Table | BaseException | None]:
        block = self._ran(self._decode(attempted.segments.combine_chunks()))
        self.manifests.append(StageWriter(self._stage_config())(block))
        yield self.manifests[-1]

    def _divide_anew(self) -> bool:
        return False  # there is no cluster

    def close(self) -> None:
        self._decode.close()


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ray, "put", lambda value: value)
    before = ray.is_initialized()  # for other tests of this process
    yield
    assert ray.is_initialized() == before


def processed(plan: pa.Table, model: Path, output: Path, block_pixel_bytes: int) -> InProcess:
    """The processing of the plan, done."""
    prepared = prepared_for(model, Store(str(output)), EXTRACTION)
    dataset = prepared.dataset
    processing = InProcess(RunConfig(inputs=(str(VIDEO),), output=str(output)), prepared, block_pixel_bytes)
    try:
        with Run.create(dataset.store) as run:
            processing.summary.run_id = run.run_id
            committer = Committer(dataset, CommitLog(dataset.store), run, prepared.model_id)
            processing.run(Plan(todo=plan, total=plan.num_rows), committer, ProgressReporter(quiet=True))
    finally:
        processing.close()
    return processing


@pytest.mark.usefixtures("no_ray")
def test_rows_that_a_full_block_hands_back_are_done_once_each(
    plan: pa.Table, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = plan["segment_id"].to_pylist()
    assert len(ids) >= 3
    written: list[list[str]] = []

    def stage(self: StageWriter, table: str, rows: pa.Table) -> Any:
        written.append(rows["segment_id"].unique().to_pylist())
        return original(self, table, rows)

    original = StageWriter._stage
    monkeypatch.setattr(StageWriter, "_stage", stage)
    full = processed(plan, tiny_model, tmp_path / "full", 1)
    assert written == [[one] for one in ids for _ in ("segments", "faces")], "a row that was handed back was written"
    for number, manifest in enumerate(full.manifests):
        assert manifest["segment_id"].to_pylist() == ids[number:]
        assert manifest["deferred"].to_pylist() == [False] + [True] * (len(ids) - number - 1)
        assert staged_set(manifest, manifest, {}).segment_ids == ids[number : number + 1]
    assert full.summary.passes == full.summary.segments_done == len(ids)

    undisturbed = processed(plan, tiny_model, tmp_path / "undisturbed", BLOCK_PIXEL_BYTES)
    assert undisturbed.summary.passes == 1
    assert full.summary.faces == undisturbed.summary.faces > len(ids)
    for output in ("full", "undisturbed"):
        assert public(tmp_path / output) == sorted(ids)


def public(output: Path) -> list[str]:
    """The segments that a plain glob shows."""
    return sorted(
        i for path in output.glob("segments/*/*.parquet") for i in pq.read_table(path)["segment_id"].to_pylist()
    )
