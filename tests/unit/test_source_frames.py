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


def _committed(dataset: Dataset, segment_ids: list[str], rows: dict[str, pa.Table]) -> str:
    """Commits these rows, by table; the dataset's url."""
    store = dataset.store
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, MODEL)
        files = [stage_table(store, run.run_id, name, of_table) for name, of_table in rows.items()]
        committer.add(StagedSet(segment_ids=segment_ids, files=files))
        committer.commit()
        committer.finish()
    return store.url


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
    return _committed(dataset, [segment], rows)


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


@pytest.fixture
def below_a_root(tmp_path: Path) -> str:
    """Two pictures of one name, one of them in a folder below the other's, by names relative to that."""
    store = Store(str(tmp_path / "out"))
    dataset = Dataset.open_or_create(store, Extraction(), root="/films")
    uris = ["a.png", "day/a.png"]
    sources = [
        dict.fromkeys(schema.SOURCES.names)
        | {"source_id": source_id(at), "source_uri": uri, "fingerprint": "1:1", "size_bytes": 1, "run_id": "r"}
        | {"kind": "picture", "pipeline_version": "0"}
        for at, uri in enumerate(uris)
    ]
    places = {source_id(at): "" for at in range(len(uris))}
    planned = plan_table(sources, locations=places, extraction=Extraction())
    ids = planned["segment_id"].to_pylist()
    segments = table(
        "segments", len(ids), segment_id=ids, source_id=planned["source_id"].to_pylist(), model_id=[MODEL] * len(ids),
        frames=[[0]] * len(ids), timestamps=[[None]] * len(ids), face_counts=[[0]] * len(ids), status=["ok"] * len(ids),
    )  # fmt: skip
    rows = {"sources": pa.Table.from_pylist(sources, schema=schema.SOURCES), "segments": segments}
    return _committed(dataset, ids, rows)


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("a.png", "a.png"),
        ("day/a.png", "day/a.png"),
        ("./day//a.png", "day/a.png"),
        ("/films/a.png", "a.png"),
        ("/films/day/a.png", "day/a.png"),
        ("/copy/a.png", "a.png"),
    ],
)
def test_each_source_below_a_root_can_be_named(below_a_root: str, name: str, uri: str) -> None:
    with opened(below_a_root, ()) as dataset:
        assert read_source(dataset, name).uri == uri


def test_a_path_comes_before_a_uri(below_a_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/films/day")
    with opened(below_a_root, ()) as dataset:
        assert read_source(dataset, "a.png").uri == "day/a.png"
