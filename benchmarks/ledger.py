"""A dataset of any size as finished runs leave it: real inputs, probed sources, log and checkpoints.

Everything is written by the product's own parts. Only what nobody reads to plan, list or resume is left out: inputs are
empty files with the times that their sources remember, and the data files of `faces` and `segments` are empty too,
unless they are asked for: `reprocess` reads them.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import __version__, schema
from pipeline.config import Extraction
from pipeline.detect import MOBILENET, weights_sha256
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import Entry
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import STAGING, StagedFile, StagedSet, stage_table, to_commit
from pipeline.media.sources import Source, list_sources
from pipeline.segments import plan_table
from pipeline.storage.store import Store

WINDOWS = 10  # of a source, on average
MOST_WINDOWS = 2 * WINDOWS - 1
FILES_PER_FOLDER = 1000
SOURCES_PER_COMMIT = 10_000  # what is probed is committed once a minute


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """inputs: the folder of its sources. output: the dataset. model_id: whose segments are committed. sources,
    segments, entries: how many it has."""

    inputs: Path
    output: Path
    model_id: str
    sources: int
    segments: int
    entries: int


def extraction() -> Extraction:
    """What `run` uses unless told otherwise."""
    return Extraction(detector_sha256=weights_sha256(MOBILENET))


def write_ledger(
    folder: Path, *, sources: int, commits: int, model_id: str, uncommitted: int = 0, with_rows: bool = False
) -> Ledger:
    """`sources` videos of ten windows on average, all committed in `commits` entries but the last `uncommitted`.

    with_rows: the data files have a row for each segment, and one with a face in it.
    """
    inputs, output = folder / "videos", folder / "out"
    listed = write_inputs(inputs, sources)
    store = Store(str(output))
    dataset = Dataset.open_or_create(store, extraction())
    log = CommitLog(store)
    with Run.create(store) as run:
        for first in range(0, sources, SOURCES_PER_COMMIT):
            rows = source_rows(listed[first : first + SOURCES_PER_COMMIT], first, run.run_id)
            committer = Committer(dataset, log, run, model_id)
            committer.add(StagedSet(segment_ids=[], files=[stage_table(store, run.run_id, "sources", rows)]))
            committer.commit()
        segments = int(_windows(0, sources).sum()) - uncommitted
        size = -(-segments // commits)
        ids = islice(_segment_ids(listed), segments)
        while part := list(islice(ids, size)):
            _commit(log, run.run_id, model_id, part, output, with_rows=with_rows)
    return Ledger(
        inputs=inputs,
        output=output,
        model_id=model_id,
        sources=sources,
        segments=segments,
        entries=log.state.next_entry,
    )


def write_inputs(folder: Path, sources: int) -> list[Source]:
    """Empty files that list as videos, in folders of a thousand."""
    for number in range(sources):
        if number % FILES_PER_FOLDER == 0:
            below = folder / f"{number // FILES_PER_FOLDER:05d}"
            below.mkdir(parents=True)
        (below / f"{number:09d}.mp4").touch()
    return list_sources([str(folder)]).sources


def source_rows(sources: list[Source], first: int, run_id: str) -> pa.Table:
    """Rows of `sources` as the probe of a video writes them. first: how many there are before these."""
    count, made_with = len(sources), extraction()
    assert made_with.rate is not None
    frames = _windows(first, count) * made_with.segment_frames - 1
    duration_s = frames / float(made_with.rate)
    columns = {
        "source_id": [source.source_id for source in sources],
        "source_uri": [source.uri for source in sources],
        "fingerprint": [source.fingerprint for source in sources],
        "size_bytes": [source.size_bytes for source in sources],
        "kind": pa.repeat("video", count),
        "duration_s": pa.array(duration_s),
        "container_frames": pa.array(np.ceil(duration_s * 25).astype(np.int64)),
        "is_vfr": pa.repeat(False, count),
        "width": pa.repeat(pa.scalar(1280, pa.int32()), count),
        "height": pa.repeat(pa.scalar(720, pa.int32()), count),
        "codec": pa.repeat("h264", count),
        "run_id": pa.repeat(run_id, count),
        "pipeline_version": pa.repeat(__version__, count),
    }
    return schema.table("sources", columns)


def _windows(first: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many windows each source has: 1 to 19, evenly."""
    return np.arange(first, first + count, dtype=np.int64) * 7 % MOST_WINDOWS + 1


def _segment_ids(listed: list[Source]) -> Iterator[str]:
    """In the order of the plan."""
    for first in range(0, len(listed), 10_000):
        part = listed[first : first + 10_000]
        locations = {source.source_id: source.location for source in part}
        rows = source_rows(part, first, "")
        yield from plan_table(rows, locations=locations, extraction=extraction())["segment_id"].to_pylist()


def _commit(
    log: CommitLog, run_id: str, model_id: str, segment_ids: list[str], output: Path, *, with_rows: bool
) -> None:
    """One entry, its files where readers expect them, with the size and sha256 that they are read by."""
    contents = {
        table: _parquet(plain_rows(table, segment_ids, run_id, model_id)) if with_rows else b""
        for table in ("faces", "segments")
    }
    files = [
        to_commit(
            StagedFile(
                table=table,
                path=f"{STAGING}/{run_id}/{uuid.uuid4().hex}-{table}.parquet",
                rows=len(segment_ids),
                bytes=len(content) or len(segment_ids) * 600,
                sha256=hashlib.sha256(content).hexdigest(),
            ),
            run_id=run_id,
            model_id=model_id,
        )
        for table, content in contents.items()
    ]
    log.append(lambda _: Entry(run_id=run_id, model_id=model_id, segments=segment_ids, add=files))
    for file, content in zip(files, contents.values(), strict=True):
        path = output / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return sink.getvalue().to_pybytes()


def plain_rows(name: str, segment_ids: list[str], run_id: str, model_id: str) -> pa.Table:
    """A row for each segment; what nothing here reads is the plainest value there is."""
    count, declared = len(segment_ids), schema.TABLES[name]
    columns = {field.name: plain_column(field.type, count) for field in declared if not field.nullable}
    columns["segment_id"] = pa.array(segment_ids)
    columns |= {"run_id": pa.repeat(run_id, count), "model_id": pa.repeat(model_id, count)}
    if name == "faces":
        columns["face_id"] = pa.array([f"{segment_id}-0-0-0" for segment_id in segment_ids])
    return schema.table(name, columns)


def plain_column(kind: pa.DataType, count: int) -> pa.Array:
    """So many of the plainest value that there is of a type."""
    if pa.types.is_list(kind):
        return pa.array([[0]] * count, kind)
    return pa.repeat("x", count) if pa.types.is_string(kind) else pa.repeat(0, count).cast(kind)
