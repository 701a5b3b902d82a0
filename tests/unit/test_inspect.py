"""`inspect` counts what `compact` counts, and says of each run what it was; `errors` says whose errors it tells."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.compact import compact_command
from jobs.inspect import errors_command, inspect_command, where_in_source
from jobs.query import query_command
from jobs.run import check_error_rate
from pipeline.config import Extraction
from pipeline.errors import ErrorRateError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.repair import repair
from pipeline.ledger.runs import Run
from pipeline.run_config import RunConfig
from pipeline.storage.store import Store
from pipeline.summary import Summary
from pipeline.views import current_model
from tests.staged_rows import MODEL, OTHER_MODEL, segment_id, stage
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


def test_runs_at_work_and_dead_ones_are_told_apart_whether_they_committed_or_not(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    commit(store, MODEL, 1)
    ended = CommitLog(store)
    ended.refresh()
    statuses = dict.fromkeys(ended.state.runs, "no summary")
    for number, dies in ((2, False), (3, True), (None, False), (None, True)):
        run = Run.create(store)
        if number is not None:
            committer = Committer(Dataset.open_or_create(store, Extraction()), CommitLog(store), run, MODEL)
            committer.add(stage(store, run.run_id, [number]))
            committer.commit()
        if dies:
            long_ago = time.time() - 2 * run.stale_after_s
            os.utime(tmp_path / "_ran" / "runs" / run.run_id / "heartbeat", (long_ago, long_ago))
        statuses[run.run_id] = "not finished" if dies else "running"
    before = sorted(tmp_path.rglob("*"))
    assert {run["run_id"]: run["status"] for run in inspected(tmp_path)["runs"]} == statuses
    text = CliRunner().invoke(inspect_command, [str(tmp_path)], catch_exceptions=False).stdout
    for run_id, status in statuses.items():
        assert f"{run_id}  {status}" in text
    assert sorted(tmp_path.rglob("*")) == before, "who only looks writes nothing"


def told(dataset: Path) -> str:
    return CliRunner().invoke(errors_command, [str(dataset)], catch_exceptions=False).stdout


def commit(store: Store, model_id: str, *numbers: int) -> None:
    with Run.create(store) as run:
        committer = Committer(Dataset.open_or_create(store, Extraction()), CommitLog(store), run, model_id)
        committer.add(stage(store, run.run_id, numbers, model_id=model_id))
        committer.commit()


def test_errors_of_another_model_than_the_one_shown_are_counted(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    commit(store, OTHER_MODEL, 1, 2, 3)
    assert told(tmp_path) == "no errors\n"
    commit(store, MODEL, 4, 9)  # both failed, and the other model has more segments
    text = told(tmp_path)
    assert text.startswith(f"of model {OTHER_MODEL}, whose rows `query` shows: no errors\n")
    assert f"2 segments of model {MODEL} failed: " in text
    query = text[text.index('"') + 1 : text.rindex('"')]
    done = CliRunner().invoke(query_command, [str(tmp_path), query, "--json"], catch_exceptions=False)
    assert {row["segment_id"] for row in json.loads(done.stdout)} == {segment_id(4), segment_id(9)}
    commit(store, OTHER_MODEL, 4)
    text = told(tmp_path)
    assert text.startswith(f"of model {OTHER_MODEL}, whose rows `query` shows:\n")
    assert f"2 segments of model {MODEL} failed: " in text


@pytest.mark.parametrize("models", [1, 2])
def test_too_many_errors_name_the_model_where_there_are_several(models: int) -> None:
    summary = Summary(model_id=MODEL, sources=2, failed_sources=1, models=models)
    with pytest.raises(ErrorRateError, match="1 of 2 sources have errors") as raised:
        check_error_rate(summary, RunConfig(inputs=("a",), output="out"))
    assert (f"with model {MODEL}" in str(raised.value)) == (models == 2)


def test_the_model_that_is_shown_is_the_newest_that_has_every_segment(tmp_path: Path) -> None:
    store, log = Store(str(tmp_path)), CommitLog(Store(str(tmp_path)))
    for model_id, numbers, shown in (("a", [1, 2], "a"), ("b", [1], "a"), ("b", [2], "b"), ("c", [3, 4], "c")):
        commit(store, model_id * 12, *numbers)
        log.refresh()
        assert current_model(log.state) == shown * 12


def test_a_repair_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, [2, 1])
    next(tmp_path.glob("faces/*/*.parquet")).unlink()
    repair(Store(str(tmp_path)))
    assert inspected(tmp_path)["runs"][-1]["status"] == "repaired"


def test_a_window_of_a_video_in_an_archive_is_told_with_the_video() -> None:
    row = {"source_uri": "/films/clips.zip", "start_s": 32.0, "end_s": 64.0, "first_member": "day/b.mp4"}
    assert where_in_source(row) == "/films/clips.zip/day/b.mp4 32.0–64.0 s"
    assert where_in_source(row | {"first_member": None}) == "/films/clips.zip 32.0–64.0 s"
