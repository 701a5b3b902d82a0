"""`export`: the file has Py-Feat's columns, units and signs, a row for each frame without a face, and one order."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from jobs import export as export_module
from jobs.compact import compact_command
from jobs.dataset import opened
from jobs.export import export_command
from pipeline.config import Extraction
from pipeline.errors import CapacityError, UsageError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import publish_missing
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, OTHER_MODEL, table
from tests.two_models import hashed_id

#: The header of a file of Py-Feat 2.1.5's Detectorv1, without action units, identities and gaze; then ours.
HEADER = [
    "FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore",
    *(f"x_{point}" for point in range(68)), *(f"y_{point}" for point in range(68)),
    "Pitch", "Roll", "Yaw", "X", "Y", "Z",
    "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral",
    "FrameHeight", "FrameWidth", "input", "frame", "approx_time", "timestamp", "face_id", "contempt",
]  # fmt: skip
EMOTIONS = HEADER[147:154]
CLASSES = {MODEL: [*EMOTIONS, "contempt"], OTHER_MODEL: EMOTIONS[:6]}
NEVER = [*HEADER[5:141], "X", "Y", "Z"]

#: Frames as (source, kind, member, frame, seconds, faces found): faces None could not be read.
Frame = tuple[str, str, str | None, int, float | None, int | None]
FRAMES: list[Frame] = [
    ('films/b, "2".mp4', "video", None, 0, 0.0, 2),
    ('films/b, "2".mp4', "video", None, 6, 59.99, 0),
    ('films/b, "2".mp4', "video", None, 12, 3725.2, None),
    ('films/b, "2".mp4', "video", None, 11, 3725.1, 1),
    ("films/a.mp4", "video", None, 0, 0.0, 0),
    ("films/a.mp4", "video", None, 5, 60.0, 1),
    ("pictures/z.png", "picture", None, 0, None, 1),
    ("pictures/none.png", "picture", None, 0, None, 0),
    ("pictures/p.tar", "archive", "n/2.jpg", 0, None, 2),
    ("pictures/p.tar", "archive", "n/1.jpg", 0, None, 0),
    ("pictures/p.tar", "video", "clip.mp4", 7, 1.4, 0),
    ("pictures/p.tar", "video", "clip.mp4", 0, 0.0, 1),
]
#: What Py-Feat opens and how it counts, in the order of the file: with the pictures numbered through.
PLACES = [
    ("films/a.mp4", 0, 1), ("films/a.mp4", 5, 1), ('films/b, "2".mp4', 0, 2), ('films/b, "2".mp4', 6, 1),
    ('films/b, "2".mp4', 11, 1), ("pictures/none.png", 0, 1), ("pictures/p.tar/clip.mp4", 0, 1),
    ("pictures/p.tar/clip.mp4", 7, 1), ("pictures/p.tar/n/1.jpg", 1, 1), ("pictures/p.tar/n/2.jpg", 2, 2),
    ("pictures/z.png", 3, 1),
]  # fmt: skip


def write_dataset(
    folder: str | Path, frames: Sequence[Frame] = FRAMES, *, root: str | None = None, models: Sequence[str] = (MODEL,)
) -> pd.DataFrame:
    """Makes a dataset of these frames, committed; the rows of `faces`, as a user reads them."""
    store = Store(str(folder))
    uri = "{}" if root else "/data/{}"
    Dataset.open_or_create(store, Extraction(), root=root)
    written = []
    for model in models:
        faces = _faces(frames, model, uri)
        written.append(faces)
        with Run.create(store) as run:
            log = CommitLog(store)
            log.refresh()
            committer = Committer(Dataset.open(store), log, run, model)
            for part in dict.fromkeys(_segment(frame) for frame in frames):
                own = [frame for frame in frames if _segment(frame) == part]
                rows = faces[faces["segment_id"] == part]
                files = [stage_table(store, run.run_id, "segments", _segments(own, part, model, uri))]
                if len(rows):
                    columns = {name: rows[name].tolist() for name in rows}
                    files.append(stage_table(store, run.run_id, "faces", table("faces", len(rows), **columns)))
                committer.add(StagedSet(segment_ids=[part], files=files))
            committer.commit()
            publish_missing(store, log)
    return pd.concat(written)


def _segment(frame: Frame) -> str:
    source, kind, member, *_ = frame
    return hashed_id(hash_of(source, kind, member if kind == "video" else None)) + "0000"


def hash_of(*parts: str | None) -> int:
    return int.from_bytes(repr(parts).encode()) % (2**61 - 1)


def _faces(frames: Sequence[Frame], model: str, uri: str) -> pd.DataFrame:
    """Values depend on the frame alone, not on the order of frames."""
    rows: list[dict[str, Any]] = []
    for frame in frames:
        source, _kind, member, number, seconds, count = frame
        random = np.random.default_rng(hash_of(model, *map(str, frame)))
        for face in range(count or 0):
            box = random.uniform(0, 500, 4)
            pose = random.uniform(-60, 60, 3)
            probabilities = random.dirichlet(np.ones(len(CLASSES[model])))
            source_id = hashed_id(hash_of(source))
            ordinal = 0 if member is None else hash_of(member) % 97
            rows.append(
                {
                    "face_id": f"{source_id}-{ordinal}-{number}-{face}",
                    "source_id": source_id,
                    "source_uri": uri.format(source),
                    "member": member,
                    "segment_id": _segment(frame),
                    "model_id": model,
                    "frame": number,
                    "timestamp": seconds,
                    "face": face,
                    "FaceRectX": box[0],
                    "FaceRectY": box[1],
                    "FaceRectWidth": box[2],
                    "FaceRectHeight": box[3],
                    "FaceScore": 0.9 - face / 10,
                    "Pitch": pose[0],
                    "Roll": pose[1],
                    "Yaw": None if source == "pictures/z.png" else pose[2],
                    "frame_width": 640,
                    "frame_height": 480,
                    **{f"prob_{name}": p for name, p in zip(CLASSES[model], probabilities, strict=True)},
                }
            )
    return pd.DataFrame(rows, columns=None if rows else ["segment_id"]).astype(object).replace({np.nan: None})


def _segments(frames: Sequence[Frame], part: str, model: str, uri: str) -> Any:
    source, kind, member, *_ = frames[0]
    return table(
        "segments",
        1,
        segment_id=[part],
        source_id=[hashed_id(hash_of(source))],
        source_uri=[uri.format(source)],
        model_id=[model],
        kind=[kind],
        frames=[[frame[3] for frame in frames]],
        timestamps=[[frame[4] for frame in frames]],
        face_counts=[[frame[5] for frame in frames]],
        members=[None if member is None else [frame[2] for frame in frames]],
        status=["ok"],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    write_dataset(folder, models=(OTHER_MODEL, MODEL))
    return folder


def export(*arguments: str | Path) -> tuple[dict[str, Any], str]:
    """Its report, and what it says beside it."""
    done = CliRunner().invoke(export_command, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def refused(*arguments: str | Path) -> str:
    with pytest.raises(UsageError) as refusal:
        export(*arguments)
    return str(refusal.value)


@pytest.mark.parametrize("model", [MODEL, OTHER_MODEL])
def test_every_row_is_what_py_feat_would_have(folder: Path, tmp_path: Path, model: str) -> None:
    faces = write_dataset(tmp_path / "again", models=(model,)).set_index("face_id")
    file = tmp_path / "fex.csv"
    report, said = export(folder, "--to", file, "--model", model[:4])
    rows = pd.read_csv(file)
    assert rows.columns.tolist() == HEADER
    assert rows["frame"].dtype == np.int64
    places = [(f"/data/{name}", frame) for name, frame, count in PLACES for _ in range(count)]
    assert list(zip(rows["input"], rows["frame"], strict=True)) == places
    assert rows[NEVER].isna().to_numpy().all()

    found = rows[rows["face_id"].notna()]
    assert sorted(found["face_id"]) == sorted(faces.index)
    ours = faces.loc[found["face_id"]]
    assert ours["face"].tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    for name in HEADER[:5]:
        assert found[name].tolist() == pytest.approx(ours[name].tolist(), rel=1e-6)
    for name in ("Pitch", "Roll", "Yaw"):
        assert found[name].tolist() == pytest.approx(
            [math.nan if angle is None else -angle * math.pi / 180 for angle in ours[name]], rel=1e-6, nan_ok=True
        )
    for name in (*EMOTIONS, "contempt"):
        expected = ours[f"prob_{name}"].tolist() if name in CLASSES[model] else [math.nan] * len(found)
        assert found[name].tolist() == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert found["timestamp"].tolist() == pytest.approx(ours["timestamp"].astype(float).tolist(), nan_ok=True)
    assert (found["FrameWidth"] == 640).all()
    assert (found["FrameHeight"] == 480).all()

    empty = rows[rows["face_id"].isna()]
    assert (empty["FaceScore"] == 0).all()
    known = ["FaceScore", "input", "frame", "approx_time", "timestamp"]
    assert empty.drop(columns=known).isna().to_numpy().all()
    assert empty["timestamp"].dropna().tolist() == [0, 59.99, 1.4]
    assert rows["approx_time"].dropna().tolist() == [
        "00:00", "01:00", "00:00", "00:00", "00:59", "62:05", "00:00", "00:01"
    ]  # fmt: skip
    assert report == {
        "to": str(file),
        "model_id": model,
        "rows": 13,
        "faces": 8,
        "frames_without_a_face": 5,
        "frames_left_out": 1,
        "sources": 5,
        "classes": report["classes"],
    }
    assert set(report["classes"]) == set(CLASSES[model])
    assert f"note: 1 frame could not be read and so left out: see `ran-pipeline errors {folder}`" in said
    assert ("Py-Feat has no contempt" in said) is (model == MODEL)
    assert ("the model has no neutral" in said) is (model == OTHER_MODEL)


def test_the_model_is_the_one_that_query_shows(folder: Path, tmp_path: Path) -> None:
    report, _ = export(folder, "--to", tmp_path / "a.csv")
    with opened(str(folder), ()) as dataset:
        assert [report["model_id"]] == [row["model_id"] for row in dataset.query("SELECT DISTINCT model_id FROM faces")]
    assert "model 'cc' has no rows" in refused(folder, "--to", tmp_path / "b.csv", "--model", "cc")


@pytest.mark.parametrize(
    ("pattern", "inputs"),
    [
        ("/data/films/*", ["films/a.mp4", 'films/b, "2".mp4']),
        ("a.mp4", ["films/a.mp4"]),
        ("pictures/?.png", ["pictures/z.png"]),
        ("p.tar", ["pictures/p.tar/clip.mp4", "pictures/p.tar/n/1.jpg", "pictures/p.tar/n/2.jpg"]),
    ],
)
def test_sources_are_chosen_by_pattern(folder: Path, tmp_path: Path, pattern: str, inputs: list[str]) -> None:
    export(folder, "--to", tmp_path / "a.csv", "--source", pattern)
    assert pd.read_csv(tmp_path / "a.csv")["input"].unique().tolist() == [f"/data/{name}" for name in inputs]


def test_below_a_root_the_input_is_what_can_be_opened(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", root="/it's/root/")
    export(tmp_path / "out", "--to", tmp_path / "a.csv")
    rows = pd.read_csv(tmp_path / "a.csv")
    assert rows["input"].tolist() == [f"/it's/root/{name}" for name, _, count in PLACES for _ in range(count)]


@pytest.mark.parametrize(
    ("source", "inputs"),
    [
        ("a.mp4", ["a.mp4"]),
        ("./a.mp4", ["a.mp4"]),
        ("/films/a.mp4", ["a.mp4"]),
        ("day/a.mp4", ["day/a.mp4"]),
        ("/films/day/a.mp4", ["day/a.mp4"]),
        ("?.mp4", ["a.mp4", "day/a.mp4"]),
    ],
)
def test_below_a_root_each_source_can_be_chosen_alone(tmp_path: Path, source: str, inputs: list[str]) -> None:
    frames: list[Frame] = [(name, "video", None, 0, 0.0, 1) for name in ("a.mp4", "day/a.mp4")]
    write_dataset(tmp_path / "out", frames, root="/films")
    export(tmp_path / "out", "--to", tmp_path / "a.csv", "--source", source)
    assert pd.read_csv(tmp_path / "a.csv")["input"].tolist() == [f"/films/{name}" for name in inputs]


def test_the_file_is_the_same_whatever_order_the_rows_lie_in(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out")
    write_dataset(tmp_path / "other", FRAMES[::-1])
    export(tmp_path / "out", "--to", tmp_path / "1.csv")
    export(tmp_path / "other", "--to", tmp_path / "2.csv")
    done = CliRunner().invoke(compact_command, [str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0
    export(tmp_path / "out", "--to", tmp_path / "3.csv")
    once = (tmp_path / "1.csv").read_bytes()
    assert once == (tmp_path / "2.csv").read_bytes() == (tmp_path / "3.csv").read_bytes()


def test_what_can_not_be_exported_is_said_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "targets"
    target.mkdir()
    assert "must end in .csv" in refused(folder, "--to", target / "a.txt")
    assert "there is no folder" in refused(folder, "--to", target / "b" / "a.csv")
    assert "fits --source nothing" in refused(folder, "--to", target / "a.csv", "--source", "nothing")
    Dataset.open_or_create(Store(str(tmp_path / "new")), Extraction())
    assert "has no rows yet" in refused(tmp_path / "new", "--to", target / "a.csv")
    write_dataset(tmp_path / "unread", [("a.mp4", "video", None, 0, 0.0, None)] * 2)
    assert "nothing to export" in refused(tmp_path / "unread", "--to", target / "a.csv")
    assert list(target.iterdir()) == []


def test_frames_without_any_face_are_rows_too(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", [("a.mp4", "video", None, 3, 0.1, 0), ("a.mp4", "video", None, 0, 0.0, 0)])
    report, said = export(tmp_path / "out", "--to", tmp_path / "a.csv")
    assert (report["faces"], report["frames_without_a_face"]) == (0, 2)
    assert pd.read_csv(tmp_path / "a.csv")["frame"].tolist() == [0, 3]
    assert "note" not in said


def test_dataset_and_file_may_lie_in_a_store(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    client.create_bucket(Bucket="exported")
    write_dataset(tmp_path / "out")
    store = Store("s3://exported/out", {"endpoint": s3_server})
    for path in Store(str(tmp_path / "out")).list(""):
        store.write_bytes(path, (tmp_path / "out" / path).read_bytes())
    export("s3://exported/out", "--to", "s3://exported/a.csv", "--storage-option", f"endpoint={s3_server}")
    export(tmp_path / "out", "--to", tmp_path / "a.csv")
    stored = client.get_object(Bucket="exported", Key="a.csv")["Body"].read()
    assert stored == (tmp_path / "a.csv").read_bytes()


def test_files_that_move_meanwhile_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "out")
    export(tmp_path / "out", "--to", tmp_path / "a.csv")
    compacted: list[int] = []
    write = export_module.write_fex

    def later(*arguments: Any) -> Any:
        if not compacted:
            compacted.append(CliRunner().invoke(compact_command, [str(tmp_path / "out")]).exit_code)
        return write(*arguments)

    monkeypatch.setattr(export_module, "write_fex", later)
    export(tmp_path / "out", "--to", tmp_path / "b.csv")
    assert compacted == [0]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_disk_that_fills_under_the_file_is_the_systems_error(folder: Path) -> None:
    """Which every command tells in a line."""
    with opened(str(folder), ()) as dataset, pytest.raises(OSError, match="No space left") as full:
        dataset.following(lambda: export_module.write_fex(dataset, Path("/dev/full"), MODEL))
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "/dev/full")


def test_a_disk_too_small_to_sort_on_is_no_bug(folder: Path) -> None:
    many = "CREATE TEMP TABLE t AS SELECT hash(i)::VARCHAR || hash(-i) AS x FROM range(5_000_000) r(i)"
    limits = "SET memory_limit = '50MB'; SET max_temp_directory_size = '1MB'; "
    with opened(str(folder), ()) as dataset, pytest.raises(CapacityError, match="TMPDIR"), dataset.bounded():
        dataset.execute(limits + many)
