"""Few new sources are probed by the driver; many, or large ones far away, are left to actors."""

from __future__ import annotations

from pathlib import Path

from pipeline import schema
from pipeline.config import Extraction
from pipeline.media.sources import Source, list_sources
from pipeline.probing import MOST_BYTES_HERE, UNIT_SOURCES, are_few, probe_here
from pipeline.worker import WorkerConfig
from ran_model.model_files import read_model_bytes
from tests.conftest import DEMO_MEDIA


def source(location: str, size_bytes: int) -> Source:
    return Source(source_id="0" * 16, uri=location, location=location, fingerprint="1:1", size_bytes=size_bytes)


def test_which_are_few() -> None:
    here, far, large = source("/a.tar", 1 << 40), source("s3://b/a.tar", 1000), source("s3://b/c.tar", 1 << 40)
    assert are_few([here] * UNIT_SOURCES)
    assert not are_few([here] * (UNIT_SOURCES + 1))
    assert are_few([far] * UNIT_SOURCES)
    assert not are_few([far, large])
    assert are_few([source("s3://b/a.mp4", 1 << 40)])
    assert not are_few([source("s3://b/a.zip", MOST_BYTES_HERE // 2 + 1)] * 2)


def test_rows_are_those_of_the_table(tiny_model: Path) -> None:
    sources = list_sources([str(DEMO_MEDIA)]).sources
    config = WorkerConfig(extraction=Extraction(), model_config=read_model_bytes(tiny_model)[0])
    rows = probe_here(sources, config, deadline_s=120, run_id="run")
    assert rows.schema == schema.SOURCES
    assert rows["source_id"].to_pylist() == [one.source_id for one in sources]
    assert set(rows["kind"].to_pylist()) == {"video", "picture", "archive"}
    assert rows["error_code"].null_count == len(sources) > 2
    assert probe_here([], config, deadline_s=120, run_id="run").num_rows == 0
