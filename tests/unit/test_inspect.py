"""`inspect` counts what `compact` counts, and says of each run what it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from jobs.compact import compact_command
from jobs.inspect import inspect_command
from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.repair import repair
from pipeline.ledger.runs import Run
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, stage
from tests.two_models import write_dataset


def inspected(dataset: Path) -> dict[str, Any]:
    done = CliRunner().invoke(inspect_command, [str(dataset), "--json"], catch_exceptions=False)
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def test_a_compaction_is_named_and_every_file_is_counted(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    dataset = Dataset.open_or_create(store, Extraction())
    for number in (1, 2):
        with Run.create(store) as run:
            committer = Committer(dataset, CommitLog(store), run, MODEL)
            committer.add(stage(store, run.run_id, [number], keep_crops=True, source_numbers=[number]))
            committer.commit()
    before = inspected(tmp_path)
    done = CliRunner().invoke(compact_command, [str(tmp_path), "--json"], catch_exceptions=False)
    compacted = json.loads(done.stdout)
    after = inspected(tmp_path)
    assert (before["files"], after["files"]) == (compacted["files_before"], compacted["files_after"])
    assert after["files"] == len(list(tmp_path.glob("[fsc]*/**/*.parquet")))
    last = after["runs"][-1]
    assert (last["status"], last["files_after"]) == ("compacted", compacted["files_after"])
    text = CliRunner().invoke(inspect_command, [str(tmp_path)], catch_exceptions=False).stdout
    assert f"{last['run_id']}  compacted" in text


def test_a_repair_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, [2, 1])
    next(tmp_path.glob("faces/*/*.parquet")).unlink()
    repair(Store(str(tmp_path)))
    assert inspected(tmp_path)["runs"][-1]["status"] == "repaired"
