"""What commands that show a source are given of it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.dataset import opened
from jobs.source_frames import read_source
from pipeline import schema
from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.segments import plan_table
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, source_id, table

ARCHIVE, SOURCE = "/films/für zwei.tar", source_id(1)
FACES = 6  # in each of its pictures
WHOLE = {"a.png": 0.9, "b.png": 0.2}  # attention of every face there; the rest is the nose's


@pytest.fixture
def output(tmp_path: Path) -> str:
    """An archive of two pictures."""
    store = Store(str(tmp_path / "out"))
    dataset = Dataset.open_or_create(store, Extraction())
    index = [{"ordinal": at, "name": name, "offset": 512, "size": 9} for at, name in enumerate(WHOLE)]
    source = dict.fromkeys(schema.SOURCES.names) | {
        "source_id": SOURCE, "source_uri": ARCHIVE, "fingerprint": "1:1", "size_bytes": 1, "run_id": "r",
        "kind": "archive", "index": index, "pipeline_version": "0",
    }  # fmt: skip
    (segment,) = plan_table([source], locations={SOURCE: ""}, extraction=Extraction())["segment_id"].to_pylist()
    count = len(WHOLE) * FACES
    segments = table(
        "segments", 1, segment_id=[segment], source_id=[SOURCE], model_id=[MODEL], frames=[[0, 0]],
        timestamps=[[0.0, 0.0]], members=[list(WHOLE)], face_counts=[[FACES, FACES]], faces_kept=[count], status=["ok"],
    )  # fmt: skip
    whole = [share for share in WHOLE.values() for _ in range(FACES)]
    faces = table(
        "faces", count, segment_id=[segment] * count, source_id=[SOURCE] * count, model_id=[MODEL] * count,
        face_id=[f"{SOURCE}-{at}-0-{face}" for at in range(len(WHOLE)) for face in range(FACES)], frame=[0] * count,
        face=list(range(FACES)) * len(WHOLE), attention_whole=whole, attention_nose=[1 - share for share in whole],
    )  # fmt: skip
    rows = {"sources": pa.Table.from_pylist([source], schema=schema.SOURCES), "segments": segments, "faces": faces}
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, MODEL)
        files = [stage_table(store, run.run_id, name, of_table) for name, of_table in rows.items()]
        committer.add(StagedSet(segment_ids=[segment], files=files))
        committer.commit()
        committer.finish()
    return store.url


@pytest.mark.parametrize(("member", "usual", "frames"), [("", 0.55, 2), ("/a.png", 0.9, 1), ("/b.png", 0.2, 1)])
def test_what_is_usual_is_so_in_what_is_shown(output: str, member: str, usual: float, frames: int) -> None:
    with opened(output, ()) as dataset:
        source = read_source(dataset, ARCHIVE + member)
    assert len(source.frames) == frames
    assert source.usual == pytest.approx((usual, 1 - usual))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", [ARCHIVE, "für zwei.tar", "films/für zwei.tar/b.png"])
def test_a_name_may_be_typed_in_either_form_of_unicode(output: str, name: str, form: str) -> None:
    with opened(output, ()) as dataset:
        assert read_source(dataset, unicodedata.normalize(form, name)).uri.startswith(ARCHIVE)
