"""`compact --target-mib`: files grow to that size and no further, and what is large enough stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.storage.store import Store
from tests.conftest import run_cli_here
from tests.datasets import table as rows_of
from tests.staged_rows import face_count, face_ids, faces, is_error, segment_id, segments_table, table

KB = 1000
CROPS = (400 * KB, 600 * KB, *(400 * KB,) * 4, 100 * KB)  # bytes of each commit's one crop


def write_dataset(output: Path) -> None:
    store = Store(str(output))
    dataset, random = Dataset.open_or_create(store, Extraction()), np.random.default_rng(0)
    with_one_face = (one for one in map(segment_id, range(100)) if face_count(one) == 1 and not is_error(one))
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, "a" * 12)
        for size, segment in zip(CROPS, with_one_face, strict=False):
            ids = [segment]
            crops = table("crops", 1, face_id=face_ids(ids), segment_id=ids, png=[random.bytes(size)])
            tables = {"segments": segments_table(ids), "faces": faces(ids), "crops": crops}
            files = [stage_table(store, run.run_id, name, rows) for name, rows in tables.items()]
            committer.add(StagedSet(segment_ids=ids, files=files))
            committer.commit()
        committer.finish()


def sizes(output: Path) -> list[int]:
    """Of the files of crops, in steps of 100 kB."""
    return sorted(round(path.stat().st_size / (100 * KB)) for path in (output / "crops").iterdir())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--target-mib", "1"), [5, 6, 8, 8]),  # 1,049 kB: no third of 400, and 600 is more than half
        (("--target-mib", "2"), [9, 18]),
        ((), [27]),
    ],
)
def test_files_grow_to_the_target(options: tuple[str, ...], expected: list[int], tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_dataset(output)
    assert sizes(output) == [1, 4, 4, 4, 4, 4, 6]
    before = rows_of(output, "crops").sort_by("segment_id")
    done = run_cli_here("compact", output, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert sizes(output) == expected
    assert json.loads(done.stdout)["files_after"] == 2 + len(expected)
    assert rows_of(output, "crops").sort_by("segment_id").equals(before)
    again = run_cli_here("compact", output, *options, "--json")
    assert sizes(output) == expected, again.stderr


def test_a_target_that_is_no_size_is_refused(tmp_path: Path) -> None:
    done = run_cli_here("compact", tmp_path, "--target-mib", "0")
    assert done.returncode == 2
    assert "--target-mib is 0: it must be at least 1" in done.stderr
