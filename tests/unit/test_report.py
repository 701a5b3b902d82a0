"""The numbers of a report against pandas, on a committed dataset of two models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs import report as report_module
from jobs.inspect import inspect_command
from jobs.report import report_command
from jobs.report_faces import CLEAR, PER_SOURCE, UNSURE
from jobs.report_videos import MOST_SLICES
from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.ledger.compact import compact
from pipeline.ledger.dataset import Dataset
from pipeline.storage.store import Store
from ran_model.labels import EXPRESSIONS
from tests.report_dataset import HOSTILE, ODD_REGION, windows, write
from tests.staged_rows import MODEL, OTHER_MODEL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reported") / "out"
    write(folder, models=(OTHER_MODEL, MODEL))
    return folder


def reported(folder: Path | str, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(report_command, [str(folder), "--json", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    values: dict[str, Any] = json.loads(done.stdout)
    return values


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return reported(folder)


def rows_of(folder: Path, model: str) -> pd.DataFrame:
    """The model's faces, read as a user reads them."""
    files = sorted(folder.glob(f"faces/{model}/*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).to_pandas()


@pytest.fixture(scope="module")
def faces(folder: Path) -> pd.DataFrame:
    return rows_of(folder, MODEL)


def test_totals(report: dict[str, Any]) -> None:
    counts = [count for window in windows() for count in window["counts"]]
    read = [count for count in counts if count is not None]
    assert report["totals"] == {
        "sources": 4,
        "sources_with_errors": 3,
        "kinds": {"archive": 2, "video": 2},
        "videos": 2,
        "video_s": pytest.approx(200 + 39 / 5 + 0.4),
        "frames": len(counts),
        "frames_read": len(read),
        "frames_without_face": read.count(0),
        "share_without_face": pytest.approx(read.count(0) / len(read)),
        "faces": sum(read),
        "largest_share": pytest.approx((sum(read) - 17) / sum(read)),
    }
    assert report["model_id"] == MODEL
    assert report["other_models"] == [OTHER_MODEL]
    assert (report["runs"], report["unfinished_runs"], report["model_path"]) == (1, [], "/models/mine")
    assert report["first_run"] <= report["ended"]


def test_expressions_and_attention(report: dict[str, Any], faces: pd.DataFrame) -> None:
    assert [each["name"] for each in report["expressions"]] == list(EXPRESSIONS)
    assert report["regions"] == ["whole", "top_left", "nose"]
    for each in report["expressions"]:
        of_it = faces[faces["expression"] == each["name"]]
        assert each["faces"] == len(of_it) > 0
        assert each["share"] == pytest.approx(len(of_it) / len(faces))
        assert each["mean_probability"] == pytest.approx(faces[f"prob_{each['name']}"].astype(float).mean())
        assert each["confidence"] == pytest.approx(of_it["confidence"].astype(float).mean())
        means = {name: of_it[f"attention_{name}"].astype(float).mean() for name in report["regions"]}
        assert each["attention"] == pytest.approx(means)
    assert report["attention"] == pytest.approx(
        {name: faces[f"attention_{name}"].astype(float).mean() for name in report["regions"]}
    )
    counted, _ = np.histogram(faces["confidence"].astype(float), bins=10, range=(0, 1))
    assert report["confidence_bins"] == counted.tolist()
    assert report["unsure"] == (faces["confidence"] < 0.5).sum() > 0


def test_sources_with_most_frames_come_first(folder: Path, report: dict[str, Any], faces: pd.DataFrame) -> None:
    listed = report["by_source"]
    uris = [HOSTILE, "/films/pictures.tar", "/films/clips.zip", "/films/gone.mp4"]
    assert [each["source_uri"] for each in listed] == uris
    assert [each["kind"] for each in listed] == ["video", "archive", "archive", "video"]
    assert [each["frames"] for each in listed] == [640, 20, 3, 0]
    assert [each["errors"] for each in listed] == [1, 1, 0, 1]
    assert [each["share_without_face"] for each in listed] == [pytest.approx(300 / 640), 4 / 19, 1 / 3, None]
    for each in listed[:3]:
        of_it = faces[faces["source_uri"] == each["source_uri"]]
        assert each["faces"] == len(of_it)
        assert each["confidence"] == pytest.approx(of_it["confidence"].astype(float).mean())
        counts = of_it["expression"].value_counts()
        first = min(counts[counts == counts.max()].index, key=EXPRESSIONS.index)
        assert (each["expression"], each["expression_share"]) == (first, pytest.approx(counts.max() / len(of_it)))
    assert listed[3]["expression"] is listed[3]["confidence"] is None
    assert reported(folder, "--sources", "1")["by_source"] == listed[:1]
    none = reported(folder, "--sources", "0")
    assert none["by_source"] == none["videos"] == []
    assert none["totals"] == report["totals"]


def test_errors_are_counted_by_code_with_their_meaning(report: dict[str, Any]) -> None:
    assert [(each["code"], each["segments"], each["sources"]) for each in report["errors"]] == [
        ("archive_member", 1, 1), ("not_found", 1, 1), ("timeout", 1, 1),
    ]  # fmt: skip
    assert report["errors"][1]["meaning"] == "the file is gone"
    assert [row["error_code"] for row in report["error_rows"]] == ["archive_member", "not_found", "timeout"]


def test_videos_over_time(report: dict[str, Any], faces: pd.DataFrame) -> None:
    long, clip = report["videos"]
    assert (long["source_uri"], long["member"]) == (HOSTILE, None)
    assert (clip["source_uri"], clip["member"]) == ("/films/clips.zip", "clip.mp4")
    assert len(long["slices"]) == MOST_SLICES + 1
    of_it = faces[faces["source_uri"] == HOSTILE]
    looked = [window for window in windows() if window["uri"] == HOSTILE]
    times = np.concatenate([window["times"] for window in looked])
    counts = np.concatenate([window["counts"] for window in looked])
    assert sum(each["frames"] for each in long["slices"]) == len(times)
    for each in long["slices"]:
        inside = (each["start_s"] <= times) & (times < each["end_s"])
        assert each["frames"] == inside.sum()
        assert each["frames_with_face"] == (counts[inside] > 0).sum()
        rows = of_it[(of_it["timestamp"] >= each["start_s"]) & (of_it["timestamp"] < each["end_s"])]
        assert each["faces"] == len(rows)
        means = {name: rows[f"prob_{name}"].astype(float).mean() for name in EXPRESSIONS} if len(rows) else {}
        assert each["probabilities"] == pytest.approx(means)
    gaps = [b["start_s"] - a["end_s"] for a, b in zip(long["slices"], long["slices"][1:], strict=False)]
    assert sorted(gaps)[-1] == pytest.approx(200 - 120)  # what timed out is no one's time
    assert sorted(gaps)[-2] == pytest.approx(0)
    assert [each["faces"] for each in clip["slices"]] == [1, 0, 1]


def test_faces_to_look_at(report: dict[str, Any], faces: pd.DataFrame, folder: Path) -> None:
    by_id = faces.set_index("face_id")
    for name in EXPRESSIONS:
        shown = [face for face in report["faces"] if face["expression"] == name]
        assert [face["is_clear"] for face in shown] == [True] * CLEAR + [False] * UNSURE
        clear, unsure = shown[:CLEAR], shown[CLEAR:]
        assert min(face["confidence"] for face in clear) > max(face["confidence"] for face in unsure)
        assert len({face["face_id"] for face in shown}) == len(shown)
        for face in shown:
            row = by_id.loc[face["face_id"]]
            member = None if pd.isna(row["member"]) else row["member"]
            assert (row["expression"], row["source_uri"], member) == (name, face["source_uri"], face["member"])
            assert face["probabilities"] == pytest.approx({each: row[f"prob_{each}"] for each in EXPRESSIONS})
            assert sum(face["attention"].values()) == pytest.approx(1)
    # crops are of every second face of the first model, and both models have the same faces
    assert all(face["has_crop"] for face in report["faces"])


def test_faces_of_other_sources_and_moments_are_preferred(tmp_path: Path) -> None:
    looked = [
        {"uri": f"/{name}.mp4", "kind": "video", "of": "video", "member": None, "window": window, "times": times,
         "counts": [1] * len(times)}
        for name in "abc" for window in range(10) for times in [np.arange(40) / 5 + 8 * window]
    ]  # fmt: skip
    write(tmp_path, looked=looked, crops=False)
    shown = reported(tmp_path)["faces"]
    faces = rows_of(tmp_path, MODEL).set_index("face_id")
    for name in EXPRESSIONS:
        clear = [face for face in shown if face["expression"] == name and face["is_clear"]]
        assert len(clear) == CLEAR
        best = faces[faces["expression"] == name].sort_values("confidence", ascending=False)
        best = best.head(len(best) // 4)
        assert {face["face_id"] for face in clear} <= set(best.index)
        segments = best.groupby("source_uri")["segment_id"].nunique().clip(upper=PER_SOURCE)
        assert segments.sum() >= CLEAR  # so many are to be had without taking more of one
        assert pd.Series([face["source_uri"] for face in clear]).value_counts().max() <= PER_SOURCE
        assert len({faces.loc[face["face_id"], "segment_id"] for face in clear}) == CLEAR


def test_another_model_with_other_classes_and_regions(folder: Path) -> None:
    other = reported(folder, "--model", OTHER_MODEL[:4])
    faces = rows_of(folder, OTHER_MODEL)
    assert (other["model_id"], other["other_models"]) == (OTHER_MODEL, [MODEL])
    assert [each["name"] for each in other["expressions"]] == list(EXPRESSIONS[:7])
    assert other["regions"] == ["whole", "random_1", ODD_REGION]
    assert other["totals"]["faces"] == len(faces)
    assert [each["faces"] for each in other["expressions"]] == [
        (faces["expression"] == name).sum() for name in EXPRESSIONS[:7]
    ]
    odd = [dict(pairs)[ODD_REGION] for pairs in faces["attention_other"]]
    assert other["attention"][ODD_REGION] == pytest.approx(np.mean(odd))
    with pytest.raises(UsageError, match="model 'cccc' has no rows"):
        reported(folder, "--model", "cccc")


def test_numbers_are_of_one_state_though_a_file_is_replaced_meanwhile(
    folder: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A compaction between two queries: all of them are asked anew, of what is there then."""
    shutil.copytree(folder, tmp_path / "out")
    write(
        tmp_path / "out", looked=[{**window, "window": window["window"] + 10} for window in windows()]
    )  # something to compact
    asked, compacted = [], []
    videos = report_module.videos_over_time

    def meanwhile(*given: Any) -> Any:
        asked.append("videos")
        if not compacted:
            compacted.append(compact(Store(str(tmp_path / "out"))))
        return videos(*given)

    monkeypatch.setattr(report_module, "videos_over_time", meanwhile)
    answer = reported(tmp_path / "out")
    assert asked == ["videos", "videos"]
    assert (
        answer["totals"]["faces"] == 2 * report["totals"]["faces"] == sum(each["faces"] for each in answer["by_source"])
    )


def test_a_dataset_without_any_row(tmp_path: Path) -> None:
    Dataset.open_or_create(Store(str(tmp_path)), Extraction())
    answer = reported(tmp_path)
    assert answer["totals"]["faces"] == answer["totals"]["sources"] == answer["runs"] == 0
    assert answer["model_id"] is answer["totals"]["share_without_face"] is None
    assert answer["expressions"] == answer["by_source"] == answer["videos"] == answer["faces"] == answer["errors"] == []


def test_a_dataset_with_errors_alone_and_one_without_faces(tmp_path: Path) -> None:
    write(tmp_path / "errors", looked=windows()[-1:])
    answer = reported(tmp_path / "errors")
    assert (answer["totals"]["sources"], answer["totals"]["sources_with_errors"], answer["faces"]) == (1, 1, [])
    write(tmp_path / "empty", looked=[{**windows()[0], "counts": [0] * 300}])
    answer = reported(tmp_path / "empty")
    assert (answer["totals"]["share_without_face"], answer["expressions"]) == (1.0, [])
    assert {each["frames_with_face"] for each in answer["videos"][0]["slices"]} == {0}


def test_a_file_that_changed_is_one_source(tmp_path: Path) -> None:
    seen = windows()[0]
    told = {**windows()[2], "window": 9, "content": "its new content", "error": ("error", "source_changed", "changed")}
    write(tmp_path, looked=[seen, {**windows()[2], "window": 1}, told])
    answer = reported(tmp_path)
    totals = answer["totals"]
    assert (totals["sources"], totals["sources_with_errors"], totals["kinds"]) == (1, 1, {"video": 1})
    (source,) = answer["by_source"]
    assert (source["frames"], source["faces"], source["errors"]) == (300, 300, 2)
    assert len(answer["videos"]) == 1
    done = CliRunner().invoke(inspect_command, [str(tmp_path), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["sources_with_errors"] == 1


def test_frames_that_could_not_be_read_are_no_ones_time(tmp_path: Path) -> None:
    counts = [1] * 100 + [None] * 100 + [0] * 100
    write(tmp_path, looked=[{**windows()[0], "counts": counts}], crops=False)
    (video,) = reported(tmp_path)["videos"]
    assert sum(each["frames"] for each in video["slices"]) == 200
    unread = [each for each in video["slices"] if each["start_s"] < 39.9 and each["end_s"] > 20.1]
    assert unread == []


def test_a_report_goes_somewhere(folder: Path, tmp_path: Path) -> None:
    for arguments, said in (([], "--to report.html"), (["--to", str(tmp_path / "report.pdf")], "must end in .html")):
        with pytest.raises(UsageError, match=said):
            CliRunner().invoke(report_command, [str(folder), *arguments], catch_exceptions=False)


def test_a_dataset_that_may_only_be_read_and_whose_run_was_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "out")
    run = sorted((tmp_path / "out" / "_ran" / "runs").iterdir())[-1]
    (run / "finished").unlink()
    for name in ("write_bytes", "put_if_absent", "delete"):
        monkeypatch.setattr(Store, name, lambda *given: pytest.fail("something was written"))
    answer = reported(tmp_path / "out")
    assert answer["unfinished_runs"] == [run.name]
    assert answer["totals"]["faces"] == 457


def test_a_dataset_and_a_page_in_s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, report: dict[str, Any]) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    client.create_bucket(Bucket="reports")
    write("s3://reports/out", options={"endpoint": s3_server})
    to = ("--to", "s3://reports/page.html", "--storage-option", f"endpoint={s3_server}")
    answer = reported("s3://reports/out", *to)
    assert answer["totals"] == report["totals"]
    assert client.get_object(Bucket="reports", Key="page.html")["Body"].read().startswith(b"<!DOCTYPE html>")
