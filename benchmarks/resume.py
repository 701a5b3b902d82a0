"""Resume over a million finished segments: `ran-pipeline run` again on a dataset that has everything, as one command.

It lists the inputs, reads the log from its checkpoint, plans every segment, finds that each is committed, and ends.
The dataset is written by the product's own committer; only the data files of `segments` are left out, which a resume
doesn't read. The inputs are real (sparse) files.

python -m benchmarks.resume [SEGMENTS] [SOURCES]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.processes import measured_run
from pipeline import __version__, schema
from pipeline.config import Extraction
from pipeline.detect import MOBILENET, weights_sha256
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.media.sources import Source, list_sources
from pipeline.prepare import load
from pipeline.segments import plan_table
from pipeline.storage.store import Store

SOURCES_PER_COMMIT = 10


def write_inputs(folder: Path, sources: int) -> list[Source]:
    """Files that list as videos."""
    folder.mkdir()
    for number in range(sources):
        (folder / f"{number:06d}.mp4").touch()
    return list_sources([str(folder)]).sources


def write_dataset(root: Path, sources: list[Source], windows: int) -> int:
    """Commits `windows` segments of each source; returns the number of entries."""
    extraction = Extraction(detector_sha256=weights_sha256(MOBILENET))
    assert extraction.rate is not None
    duration_s = float((windows * extraction.segment_frames - 1) / extraction.rate)
    dataset = Dataset.open_or_create(Store(str(root)), extraction)
    log = CommitLog(dataset.store)
    with Run.create(dataset.store) as run:
        committer = Committer(dataset, log, run, load("default")[1])
        for start in range(0, len(sources), SOURCES_PER_COMMIT):
            part = sources[start : start + SOURCES_PER_COMMIT]
            rows = pa.Table.from_pylist(
                [_row(source, duration_s, run.run_id) for source in part], schema=schema.SOURCES
            )
            plan = plan_table(rows, locations={s.source_id: s.location for s in part}, extraction=extraction)
            assert plan.num_rows == windows * len(part), plan.num_rows
            staged = stage_table(dataset.store, run.run_id, "sources", rows)
            ids = plan["segment_id"].to_pylist()
            committer.add(StagedSet(segment_ids=ids, covered=ids, files=[staged]))
            committer.commit()
        committer.finish()
    CommitLog(dataset.store).refresh(write_checkpoints=True)
    return -(-len(sources) // SOURCES_PER_COMMIT)


def _row(source: Source, duration_s: float, run_id: str) -> dict[str, object]:
    return {
        "source_id": source.source_id,
        "source_uri": source.uri,
        "fingerprint": source.fingerprint,
        "size_bytes": source.size_bytes,
        "kind": "video",
        "duration_s": duration_s,
        "container_frames": int(np.ceil(duration_s * 25)),
        "run_id": run_id,
        "pipeline_version": __version__,
    }


def main(segments: int = 1_000_000, sources: int = 10_000) -> None:
    """Prints the seconds and the peak memory of the command."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "videos"
        listed = write_inputs(inputs, sources)
        entries = write_dataset(Path(folder) / "out", listed, segments // sources)
        print(f"{segments} finished segments of {sources} videos in {entries} commits")
        command = [sys.executable, "-m", "jobs.cli", "run", str(inputs), "-o", f"{folder}/out", "--json", "--quiet"]
        measured = measured_run(command)
        assert measured.answer["segments_already_done"] == segments, measured.answer
        assert measured.answer["segments_planned"] == 0
        seconds, cpu = measured.seconds, measured.cpu_seconds
        print(f"run again: {seconds:.1f} s, of it {cpu:.1f} s of CPU, peak {measured.mib:.0f} MiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
