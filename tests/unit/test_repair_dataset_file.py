"""`verify --repair` makes dataset.json again from what the runs recorded, whatever the sources and the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.repair import repair
from pipeline.ledger.runs import RUNS, Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.segments import plan_table
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, segments_table, source_id

EXTRACTION, ANOTHER = Extraction(fps="2"), Extraction(fps="7")


def made(folder: Path, index: list[dict[str, Any]] | None, root: str | None, *configs: dict[str, Any] | bytes) -> Store:
    """A dataset of one source, an archive if it has an index, whose runs recorded these configs. Its dataset.json is
    gone."""
    store = Store(str(folder))
    dataset = Dataset.open_or_create(store, EXTRACTION, root=root)
    row = dict.fromkeys(schema.SOURCES.names) | {
        "source_id": source_id(1), "source_uri": "a", "fingerprint": "1:1", "size_bytes": 1, "run_id": "r",
        "kind": "video" if index is None else "archive", "index": index, "pipeline_version": "0", "duration_s": 1.0,
    }  # fmt: skip
    ids = plan_table([row], locations={source_id(1): ""}, extraction=EXTRACTION)["segment_id"].to_pylist()
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, MODEL)
        rows = segments_table(ids).set_column(
            segments_table(ids).schema.get_field_index("faces_kept"),
            schema.SEGMENTS.field("faces_kept"),
            pa.array([0] * len(ids), pa.int32()),
        )
        files = [
            stage_table(store, run.run_id, "sources", pa.Table.from_pylist([row], schema=schema.SOURCES)),
            stage_table(store, run.run_id, "segments", rows),
        ]
        committer.add(StagedSet(segment_ids=ids, files=files))
        committer.commit()
        committer.finish()
    for number, config in enumerate(configs):
        with Run.create(store) as run:
            if isinstance(config, bytes):
                store.write_bytes(f"{RUNS}/{run.run_id}/config.json", config)
            else:
                run.save_config(config)
            store.publish(f"{RUNS}/{run.run_id}/config.json", f"{RUNS}/2{number}/config.json")  # in this order
    store.delete("dataset.json")
    return store


def config(extraction: Extraction, typed: str | None = None, **root: str | None) -> dict[str, Any]:
    return {"run": {"root": typed}, "extraction": extraction.to_json(), **root}


def video(ordinal: int) -> dict[str, Any]:
    return {"ordinal": ordinal, "name": f"{ordinal}.mp4", "offset": 512, "size": 9}


@pytest.mark.parametrize("index", [None, [video(0), video(3)], []])
def test_the_extraction_is_known_by_any_segment_also_of_videos_in_archives(
    tmp_path: Path, index: list[dict[str, Any]] | None
) -> None:
    store = made(tmp_path, index, None, config(EXTRACTION), config(ANOTHER))
    mended = repair(store)
    assert mended.after.is_sound
    assert mended.moved == [], "there was no dataset.json to set aside"
    assert Dataset.open(store).extraction == (ANOTHER if index == [] else EXTRACTION)  # nothing tells of no segment


def test_no_extraction_that_gives_none_of_the_segments_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run recorded the extraction"):
        repair(made(tmp_path, [video(0)], None, config(ANOTHER)))


def test_the_root_is_the_datasets_own_whatever_was_typed_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(
        tmp_path / "out", None, "/data", config(EXTRACTION, ".", root="/data"), config(ANOTHER, "x", root="/x")
    )
    monkeypatch.chdir(tmp_path)
    assert repair(store).after.is_sound
    assert Dataset.open(store).root == "/data"


@pytest.mark.parametrize(("typed", "root"), [("/data/", "/data"), (None, None)])
def test_a_root_that_only_was_typed_is_taken_if_it_means_the_same_everywhere(
    tmp_path: Path, typed: str | None, root: str | None
) -> None:
    store = made(tmp_path, None, root, config(EXTRACTION, typed), config(EXTRACTION))
    assert repair(store).after.is_sound
    assert Dataset.open(store).root == root


def test_a_root_that_means_something_else_in_every_folder_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--root '\.' of the folder"):
        repair(made(tmp_path, None, "/data", config(EXTRACTION, ".")))


@pytest.mark.parametrize("damaged", [b"", b'{"run": {"ro', b"\xff", b"[]", b"{}", b'{"run": 3, "extraction": {}}'])
def test_a_record_that_was_cut_is_passed_over(tmp_path: Path, damaged: bytes) -> None:
    store = made(tmp_path, None, None, damaged, config(EXTRACTION), damaged)
    assert repair(store).after.is_sound
    assert Dataset.open(store).extraction == EXTRACTION
