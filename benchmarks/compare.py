"""`compare` over millions of faces: time and memory of the whole command, and their growth.

python -m benchmarks.compare [FACES …]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.ledger import extraction, plain_column, plain_rows
from benchmarks.processes import measured_run
from pipeline import schema
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.storage.store import Store

FACES = (500_000, 4_000_000)
MODELS = ("aaaaaaaaaaaa", "bbbbbbbbbbbb")
PER_COMMIT = 64_000
PER_SEGMENT = 64
PER_SOURCE = 2_048


def write_answers(output: Path, faces: int) -> None:
    """Two models' answers to the same faces, committed as a run does it: random, and moved a little by the second."""
    store = Store(str(output))
    dataset, log = Dataset.open_or_create(store, extraction()), CommitLog(store)
    random = np.random.default_rng(0)
    with Run.create(store) as run:
        for first in range(0, faces, PER_COMMIT):
            number = np.arange(first, min(first + PER_COMMIT, faces))
            probabilities = random.dirichlet(np.full(len(schema.EXPRESSIONS), 0.3), len(number))
            for model in MODELS:
                rows = _rows(number, probabilities, model, run.run_id)
                committer = Committer(dataset, log, run, model)
                segments = np.unique(rows["segment_id"].to_numpy()).tolist()
                tables = {"faces": rows, "segments": plain_rows("segments", segments, run.run_id, model)}
                files = [stage_table(store, run.run_id, name, table) for name, table in tables.items()]
                committer.add(StagedSet(segment_ids=segments, files=files))
                committer.commit()
                probabilities = 0.8 * probabilities + 0.2 * random.dirichlet(np.ones(8), len(number))


def _rows(number: NDArray[np.int64], probabilities: NDArray[np.float64], model: str, run_id: str) -> pa.Table:
    columns = {field.name: plain_column(field.type, len(number)) for field in schema.FACES if not field.nullable}
    columns |= {
        "face_id": pa.array([f"{one // PER_SOURCE:016x}-0-{one % PER_SOURCE}-0" for one in number]),
        "source_id": pa.array([f"{one // PER_SOURCE:016x}" for one in number]),
        "source_uri": pa.array([f"/videos/{one // PER_SOURCE:07d}.mp4" for one in number]),
        "segment_id": pa.array([f"{one // PER_SEGMENT:020x}" for one in number]),
        "model_id": pa.repeat(model, len(number)),
        "run_id": pa.repeat(run_id, len(number)),
        "expression": pa.array(np.array(schema.EXPRESSIONS)[probabilities.argmax(axis=1)]),
        "confidence": pa.array(probabilities.max(axis=1)),
    }
    for index, name in enumerate(schema.EXPRESSIONS):
        columns[f"prob_{name}"] = pa.array(probabilities[:, index])
    return schema.table("faces", columns)


def main(sizes: tuple[int, ...] = FACES) -> None:
    """Prints a table."""
    print("| faces of both models | CPU s | peak MiB |\n|---|---|---|")
    for faces in sizes:
        with tempfile.TemporaryDirectory() as name:
            output = Path(name) / "out"
            write_answers(output, faces)
            run = measured_run([sys.executable, "-m", "jobs.cli", "compare", str(output), *MODELS, "--json"])
            assert run.answer["faces"] == faces, run.answer["faces"]
            print(f"| {faces:,} | {run.cpu_seconds:.1f} | {run.mib:.0f} |", flush=True)


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or FACES)
