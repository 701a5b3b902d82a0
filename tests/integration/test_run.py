"""The whole tool on real small media, as a user runs it: every kind of input, resume, failures, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest
from PIL import Image

from pipeline.probing import UNIT_SOURCES
from tests.conftest import DEMO_MEDIA, ROOT, run_cli, run_cli_here
from tests.datasets import assert_equal_datasets, table
from tests.faults.holding import held
from tests.faults.stand_in_decoders import HELD
from tests.media import write_video


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each: h264 mp4, HEVC mov, jpeg with EXIF rotation, grey png, webp with alpha, tar and zip of pictures."""
    folder = tmp_path_factory.mktemp("media")
    shutil.copy(DEMO_MEDIA / "portrait.mp4", folder / "portrait.mp4")
    portrait = Image.open(DEMO_MEDIA / "astronaut.png").convert("RGB").resize((256, 256))
    write_video(
        folder / "hevc.mov", codec="libx265", frames=50, picture=lambda index: _still(portrait), width=256, height=256
    )
    (folder / "pictures").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait.rotate(90).save(folder / "pictures" / "turned.jpg", exif=exif)
    portrait.convert("L").save(folder / "pictures" / "grey.png")
    alpha = portrait.copy()
    alpha.putalpha(255)
    alpha.save(folder / "pictures" / "alpha.webp", lossless=True)
    Image.new("RGB", (200, 100), "green").save(folder / "pictures" / "nobody.png")
    with tarfile.open(folder / "some.tar", "w") as archive:
        for name in ("turned.jpg", "grey.png", "nobody.png"):
            archive.add(folder / "pictures" / name, f"deep/{name}")
    with zipfile.ZipFile(folder / "some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("grey.png", "alpha.webp"):
            archive.write(folder / "pictures" / name, name)
    with tarfile.open(folder / "films.tar", "w") as archive:
        archive.add(folder / "portrait.mp4", "a/portrait.mp4")
        archive.add(folder / "pictures" / "grey.png", "grey.png")
        archive.add(folder / "portrait.mp4", "b/portrait.mp4")
    (folder / "notes.txt").write_text("not media")
    return folder


def _still(image: Image.Image) -> object:
    import numpy as np

    return np.asarray(image)


@pytest.fixture(scope="module")
def dataset(media: Path, tiny_model: Path, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The media, run once without disturbance."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    done = run_cli("run", media, "-o", output, "--model", tiny_model, "--json", address=ray_address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    return output


def test_every_kind_of_input_gives_its_rows(dataset: Path, media: Path) -> None:
    segments = table(dataset, "segments").to_pylist()
    assert {row["status"] for row in segments} == {"ok"}
    by_name: dict[str, list[int]] = {}
    for row in segments:
        by_name.setdefault(Path(row["source_uri"]).name, []).extend(row["face_counts"])
    assert set(by_name) == {
        "portrait.mp4", "hevc.mov", "turned.jpg", "grey.png", "alpha.webp", "nobody.png", "some.tar", "some.zip",
        "films.tar",
    }  # fmt: skip
    assert by_name["turned.jpg"] == by_name["grey.png"] == by_name["alpha.webp"] == [1]
    assert by_name["nobody.png"] == [0]
    assert {(row["kind"], row["decoder"]) for row in segments} == {
        ("video", "pyav"), ("picture", "pillow"), ("archive", "pillow"),
    }  # fmt: skip
    assert by_name["some.tar"] == [1, 1, 0]
    assert by_name["some.zip"] == [1, 1]
    assert by_name["hevc.mov"] == [1] * 11  # grid points 0 to 10: the frame at 0 s and ten more
    faces = table(dataset, "faces")
    assert faces.num_rows == sum(sum(counts) for counts in by_name.values())
    members = {row["member"] for row in faces.to_pylist() if row["source_uri"].endswith("some.tar")}
    assert members == {"deep/turned.jpg", "deep/grey.png"}


def test_a_video_in_an_archive_has_the_rows_of_the_video_itself(dataset: Path) -> None:
    columns = ["frame", "timestamp", "face", "FaceRectX", "FaceScore", "expression", "confidence", "attention_whole"]
    faces = table(dataset, "faces").to_pandas()
    faces = faces.sort_values(["frame", "face"])
    alone = faces[faces["source_uri"].str.endswith("/portrait.mp4")][columns].reset_index(drop=True)
    for ordinal, member in ((0, "a/portrait.mp4"), (2, "b/portrait.mp4")):
        rows = faces[faces["source_uri"].str.endswith("films.tar") & (faces["member"] == member)]
        assert rows["face_id"].str.split("-").str[1].unique().tolist() == [str(ordinal)]
        pd.testing.assert_frame_equal(rows[columns].reset_index(drop=True), alone, atol=1e-4)
    segments = [row for row in table(dataset, "segments").to_pylist() if row["source_uri"].endswith("films.tar")]
    assert {(row["kind"], row["first_member"]) for row in segments} == {
        ("video", "a/portrait.mp4"), ("archive", "grey.png"), ("video", "b/portrait.mp4"),
    }  # fmt: skip
    assert all(row["members"] == [row["first_member"]] * len(row["frames"]) for row in segments)
    assert all((row["start_s"] is None) == (row["kind"] == "archive") for row in segments)


def test_faces_agree_with_segments_and_probabilities_are_probabilities(dataset: Path) -> None:
    faces, segments = table(dataset, "faces").to_pandas(), table(dataset, "segments").to_pandas()
    kept = faces.groupby("segment_id").size()
    expected = segments.set_index("segment_id")["faces_kept"]
    assert kept.reindex(expected.index, fill_value=0).equals(expected.astype("int64").rename(None))
    probabilities = faces.filter(like="prob_")
    assert ((probabilities.sum(axis=1) - 1).abs() < 1e-4).all()
    assert (probabilities.idxmax(axis=1).str.removeprefix("prob_") == faces["expression"]).all()
    attention = faces[
        [f"attention_{name}" for name in ("whole", "top_left", "top_right", "center_down", "center_90", "center_85")]
    ]
    assert ((attention.sum(axis=1) - 1).abs() < 1e-4).all()
    assert faces["attention_mouth_left"].isna().all()
    assert faces["face_id"].is_unique


def test_a_mistake_in_sql_is_shown_where_it_is(dataset: Path) -> None:
    done = run_cli_here("query", dataset, "SELECT expression FROM faces GROUP expression")
    assert done.returncode == 2
    first, line, mark, views = done.stderr.splitlines()
    assert first.startswith("error: Parser Error")
    assert line.endswith("SELECT expression FROM faces GROUP expression")
    assert mark.index("^") == line.rindex("expression")
    assert views.startswith("  views: faces, frames")


def test_three_readers_agree_on_a_plain_glob(dataset: Path) -> None:
    pattern = f"{dataset}/faces/**/*.parquet"
    sql = "SELECT face_id, expression, confidence, attention_whole FROM read_parquet(?) ORDER BY face_id"
    by_duckdb = duckdb.execute(sql, [pattern]).fetchall()
    columns = ["face_id", "expression", "confidence", "attention_whole"]
    assert pl.scan_parquet(pattern).select(columns).sort("face_id").collect().rows() == by_duckdb
    frame = pd.read_parquet(dataset / "faces")[columns].sort_values("face_id")
    assert list(frame.itertuples(index=False, name=None)) == by_duckdb
    assert len(by_duckdb) == len({row[0] for row in by_duckdb}) > 40


def test_the_same_command_again_does_nothing(dataset: Path, media: Path, tiny_model: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in dataset.rglob("*.parquet")}
    again = run_cli_here("run", media, "-o", dataset, "--model", tiny_model, "--json")
    answer = json.loads(again.stdout)
    assert answer["segments_done"] == 0
    assert answer["sources_probed"] == 0
    assert answer["segments_already_done"] > 0
    assert {file: file.stat().st_mtime_ns for file in dataset.rglob("*.parquet")} == before


def test_other_grouping_order_and_spelling_give_the_same_table(
    dataset: Path, media: Path, tiny_model: Path, ray_address: str, tmp_path: Path
) -> None:
    inputs = [
        f"{media}/some.zip",
        f"{media}/./pictures",
        f"{media}/*.mov",
        f"file://{media}/some.tar",
        f"{media}/pictures/../portrait.mp4",
        f"{media}/films.tar",
    ]
    options = ("--model", tiny_model, "--decode-actors", "1", "--ran-actors", "1", "--batch-size", "3")
    first = run_cli_here("run", *inputs, "-o", tmp_path / "out", *options, "--limit", "3")
    assert first.returncode == 0, first.stderr
    assert table(tmp_path / "out", "segments").num_rows == 3
    assert "segments left by --limit: the same command goes on with them" in first.stdout
    second = run_cli_here("run", *reversed(inputs), "-o", tmp_path / "out", *options)
    assert second.returncode == 0, second.stderr
    assert_equal_datasets(dataset, tmp_path / "out")


def test_s3_in_and_out_give_the_same_rows(
    dataset: Path, media: Path, tiny_model: Path, ray_address: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    options = (
        "--storage-option",
        f"endpoint={s3_server}",
        "--storage-option",
        "key=test",
        "--storage-option",
        "secret=hunter2secret",
    )
    bucket = s3fs.S3FileSystem(key="test", secret="hunter2secret", endpoint_url=s3_server)
    bucket.mkdir("media-in")
    bucket.mkdir("media-out")
    bucket.put(str(media), "media-in/", recursive=True)
    name = media.name
    done = run_cli(
        "run", f"s3://media-in/{name}", "-o", "s3://media-out/set", "--root", f"s3://media-in/{name}",
        "--model", tiny_model, "--decode-actors", "1", *options, address=ray_address,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sql = "SELECT expression, frame, face, round(confidence, 3) AS c FROM faces ORDER BY ALL"
    remote = run_cli_here("query", "s3://media-out/set", sql, "--format", "csv", *options)
    local = run_cli_here("query", dataset, sql, "--format", "csv")
    assert remote.returncode == 0, remote.stderr
    assert remote.stdout == local.stdout
    names = run_cli_here(
        "query", "s3://media-out/set", "SELECT DISTINCT source_uri FROM sources ORDER BY 1", "--format", "csv", *options
    )
    assert "pictures/turned.jpg" in names.stdout.splitlines()
    for path in bucket.find("media-out"):
        assert b"hunter2secret" not in bucket.cat_file(path), path


def test_bad_inputs_become_rows_and_stop_nothing(
    media: Path, tiny_model: Path, ray_address: str, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(media / "pictures" / "grey.png", folder / "good.png")
    (folder / "junk.mp4").write_bytes(b"this is not a video" * 100)
    (folder / "empty.jpg").write_bytes(b"")
    video = write_video(tmp_path / "whole.mp4", frames=250, container_options={"movflags": "faststart"})
    (folder / "cut.mp4").write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    picture = (media / "pictures" / "turned.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(picture[: len(picture) // 2])
    with zipfile.ZipFile(folder / "mixed.zip", "w") as archive:
        archive.writestr("bad.png", b"\x89PNG\r\n\x1a\nnothing else")
        archive.write(media / "pictures" / "grey.png", "good.png")
    command = ("run", folder, folder / "missing.mp4", "-o", tmp_path / "out", "--model", tiny_model)
    done = run_cli(*command, address=ray_address)
    assert done.returncode == 3, done.stderr
    assert "--max-error-rate" in done.stderr
    rows = json.loads(run_cli_here("errors", tmp_path / "out", "--json").stdout)
    errors = {Path(row["source_uri"]).name: row for row in rows}
    assert errors["junk.mp4"]["error_code"] == "not_media"
    assert errors["missing.mp4"]["error_code"] == "not_found"
    probed = {name: row["start_s"] for name, row in errors.items() if row["error_stage"] == "probe"}
    assert probed == dict.fromkeys(("junk.mp4", "missing.mp4", "empty.jpg"))
    assert errors["empty.jpg"]["status"] == "error"
    assert errors["cut.jpg"]["error_code"] == "truncated"
    assert errors["mixed.zip"]["status"] == "partial"
    assert errors["mixed.zip"]["error_code"] == "archive_member"
    assert errors["cut.mp4"]["error_code"] in ("truncated", "corrupt")
    faces = table(tmp_path / "out", "faces").to_pylist()
    assert {(Path(row["source_uri"]).name, row["member"]) for row in faces} >= {
        ("good.png", None),
        ("mixed.zip", "good.png"),
    }
    again = run_cli_here(*command, "--max-error-rate", "1")
    assert again.returncode == 0, again.stderr
    assert json.loads(run_cli_here("inspect", tmp_path / "out", "--json").stdout)["sources_with_errors"] == 6


def test_what_was_probed_is_committed_along_the_way(tiny_model: Path, ray_address: str, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(2 * UNIT_SOURCES + 1):
        (folder / f"{number}.mp4").write_bytes(b"not a video")
    command = ("run", folder, "-o", output, "--model", tiny_model, "--limit", "1", "--max-error-rate", "1", "--json")
    done = run_cli(*command, "--commit-interval-s", "1e-9", address=ray_address)
    assert done.returncode == 0, done.stderr
    entries = [json.loads(path.read_bytes()) for path in sorted(output.glob("_ran/log/*.json"))]
    portions = [len(entry["sources"]) for entry in entries if "sources" in entry]
    assert len(portions) == 3
    assert max(portions) == UNIT_SOURCES
    assert table(output, "sources").num_rows == 2 * UNIT_SOURCES + 1
    again = json.loads(run_cli_here("plan", *command[1:]).stdout)
    assert again["sources_to_probe"] == 0
    assert (again["segments_already_done"], again["segments_left"]) == (1, 2 * UNIT_SOURCES - 1)


def test_a_second_model_stands_beside_the_first(
    dataset: Path, media: Path, tiny_model: Path, ray_address: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(dataset, output)
    before = {file: file.read_bytes() for file in output.rglob("part-*.parquet")}
    done = run_cli_here("run", media, "-o", output, "--keep-crops", "--decode-actors", "1")
    assert done.returncode == 0, done.stderr
    assert all(file.read_bytes() == content for file, content in before.items())
    answer = json.loads(run_cli_here("inspect", output, "--json").stdout)
    assert len(answer["models"]) == 2
    rows = pl.scan_parquet(f"{output}/faces/**/*.parquet").group_by("model_id").len().collect()
    assert rows["len"].n_unique() == 1
    newest = run_cli_here("query", output, "SELECT DISTINCT model_id FROM faces", "--format", "csv").stdout.split()[1]
    assert newest == answer["models"][1]["model_id"]
    crops = pl.read_parquet(f"{output}/crops/**/*.parquet")
    assert len(crops) == rows["len"][0]
    assert crops["png"][0].startswith(b"\x89PNG")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_commits_what_is_staged_and_the_rest_comes_later(
    media: Path, tiny_model: Path, tmp_path: Path, ray_address: str, number: signal.Signals
) -> None:
    """It comes in the middle of the second video, which waits there; the first is staged and not yet due."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(media / "portrait.mp4", folder / name)
    options = ["run", folder, "-o", output, "--model", tiny_model, "--fps", "2", "--segment-frames", "8"]
    options += ["--decoder", HELD, "--decode-actors", "1", "--commit-interval-s", "3600"]
    with held(folder):
        command = [sys.executable, "-m", "jobs.cli", *map(str, options)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stderr
        done = None
        while done is None:
            line = process.stderr.readline()
            assert line, "the run ended"
            done = re.search(r" ([1-3])/6 segments", line)
        assert not list(output.glob("segments/*/*.parquet"))
        process.send_signal(number)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "committing what is staged" in stderr
    half = table(output, "segments")
    assert int(done[1]) <= half.num_rows <= 3
    assert all(uri.endswith("a.mp4") for uri in half["source_uri"].to_pylist())
    rest = run_cli(*options, "--json", address=ray_address)
    assert rest.returncode == 0, rest.stderr
    assert json.loads(rest.stdout)["segments_already_done"] == half.num_rows
    assert table(output, "segments").num_rows == 6
    assert table(output, "faces")["face_id"].to_pylist() == sorted(set(table(output, "faces")["face_id"].to_pylist()))
