"""Sources in a real S3 server (moto): listed, fetched once, read as local ones are."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError, StoreError
from pipeline.media.probe import probe_source
from pipeline.media.read import Frame, SegmentReader
from pipeline.media.scratch import Scratch
from pipeline.media.sources import MISSING, Listing, list_sources
from pipeline.segments import plan_segments
from tests.media import picture_bytes, read_index, write_tar, write_video

EXTRACTION = Extraction(fps="10", segment_frames=8)


@pytest.fixture
def options(s3_server: str) -> dict[str, Any]:
    return {"endpoint_url": s3_server, "key": "test", "secret": "test"}


@pytest.fixture
def bucket(options: dict[str, Any], tmp_path: Path) -> str:
    """a.mp4, deep/b.tar, deep/er/c.jpg, deep/notes.txt, deeper.mp4, what?.jpg, deep/ (a directory marker)"""
    name = f"in-{uuid.uuid4().hex}"
    filesystem = fsspec.filesystem("s3", **options)
    filesystem.mkdir(name)
    video = write_video(tmp_path / "v.mp4", frames=20).read_bytes()
    archive = write_tar(tmp_path / "t.tar", [(f"{n}.png", picture_bytes(n)) for n in range(3)]).read_bytes()
    for key, data in {
        "a.mp4": video,
        "deep/b.tar": archive,
        "deep/er/c.jpg": picture_bytes(9, "JPEG"),
        "deep/notes.txt": b"words",
        "deeper.mp4": video,
        "what?.jpg": picture_bytes(8, "JPEG"),
        "deep/": b"",
    }.items():
        filesystem.pipe_file(f"{name}/{key}", data)
    return name


def keys(listing: Listing, bucket: str) -> list[str]:
    return [source.uri.removeprefix(f"s3://{bucket}/") for source in listing.sources]


def test_a_list_of_objects_asks_for_each_by_name(bucket: str, options: dict[str, Any]) -> None:
    names = [f"s3://{bucket}/{key}" for key in ("what?.jpg", "gone.mp4", "deep", "a.mp4", "deep/notes.txt")]
    listing = list_sources([], listed=names, storage_options=options)
    expected = ["a.mp4", "deep/b.tar", "deep/er/c.jpg", "deep/notes.txt", "gone.mp4", "what?.jpg"]
    assert keys(listing, bucket) == expected
    by_listing = list_sources([f"s3://{bucket}"], storage_options=options)
    assert {source.source_id for source in by_listing.sources} - {source.source_id for source in listing.sources} == {
        source.source_id for source in by_listing.sources if source.uri.endswith("deeper.mp4")
    }
    assert [source.fingerprint for source in listing.sources if source.uri.endswith("gone.mp4")] == [MISSING]


@pytest.mark.parametrize(
    ("given", "expected", "skipped"),
    [
        ("a.mp4", ["a.mp4"], 0),
        ("deep", ["deep/b.tar", "deep/er/c.jpg"], 1),
        ("deep/", ["deep/b.tar", "deep/er/c.jpg"], 1),
        ("deep/notes.txt", ["deep/notes.txt"], 0),
        ("*.mp4", ["a.mp4", "deeper.mp4"], 0),
        ("deep*", ["deep/b.tar", "deep/er/c.jpg", "deeper.mp4"], 1),
        ("**/*.jpg", ["deep/er/c.jpg", "what?.jpg"], 0),
        ("what?.jpg", ["what?.jpg"], 0),
        ("", ["a.mp4", "deep/b.tar", "deep/er/c.jpg", "deeper.mp4", "what?.jpg"], 1),
    ],
)
def test_listing(options: dict[str, Any], bucket: str, given: str, expected: list[str], skipped: int) -> None:
    listing = list_sources([f"s3://{bucket}/{given}"], storage_options=options)
    assert keys(listing, bucket) == expected
    assert listing.skipped.total() == skipped


def test_spellings_and_overlap_give_the_same_ids(options: dict[str, Any], bucket: str) -> None:
    whole = list_sources([f"s3://{bucket}"], storage_options=options)
    again = [f"s3a://{bucket}/deep", f"s3://{bucket}/a.mp4", f"s3://u:p@{bucket}/", f"s3://{bucket}/**"]
    assert list_sources(again, storage_options=options).sources == whole.sources
    rooted = list_sources([f"s3://{bucket}/deep"], root=f"s3://{bucket}", storage_options=options)
    assert [source.uri for source in rooted.sources] == ["deep/b.tar", "deep/er/c.jpg"]


def test_what_is_not_there_and_who_does_not_answer(options: dict[str, Any], bucket: str, tmp_path: Path) -> None:
    listing = list_sources([f"s3://{bucket}/gone.mp4"], storage_options=options)
    (source,) = listing.sources
    assert source.fingerprint == MISSING
    row = probe_source(source, scratch=Scratch(str(tmp_path / "s")), extraction=EXTRACTION, storage_options=options)
    assert row["error_code"] == ErrorCode.NOT_FOUND
    silent = options | {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    with pytest.raises(StoreError, match="can't be listed"):
        list_sources([f"s3://{bucket}/deep"], storage_options=silent)


def test_objects_are_read_like_files(options: dict[str, Any], bucket: str, tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path / "scratch"), capacity_bytes=10**8)
    reader = SegmentReader(scratch=scratch, extraction=EXTRACTION, storage_options=options)
    seen: dict[str, list[int]] = {}
    for source in list_sources([f"s3://{bucket}"], storage_options=options).sources:
        row = probe_source(source, scratch=scratch, extraction=EXTRACTION, storage_options=options)
        assert row["error_code"] is None, row
        for segment in plan_segments(row, location=source.location, extraction=EXTRACTION):
            frames = reader.read(segment)
            key = source.uri.removeprefix(f"s3://{bucket}/")
            seen.setdefault(key, []).extend(read_index(frame.image) for frame in frames if isinstance(frame, Frame))
    video = [0, 1, 3, 6, 8, 11, 13, 16, 18]
    assert seen == {
        "a.mp4": video,
        "deep/b.tar": [0, 1, 2],
        "deep/er/c.jpg": [9],
        "deeper.mp4": video,
        "what?.jpg": [8],
    }


def test_a_large_video_is_probed_by_its_header(
    options: dict[str, Any], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = Scratch(str(tmp_path / "scratch"))
    (source,) = list_sources([f"s3://{bucket}/a.mp4"], storage_options=options).sources
    fetched = probe_source(source, scratch=scratch, extraction=EXTRACTION, storage_options=options)
    monkeypatch.setattr("pipeline.media.probe.FETCH_BYTES", 0)
    untouched = Scratch(str(tmp_path / "untouched"))
    assert probe_source(source, scratch=untouched, extraction=EXTRACTION, storage_options=options) == fetched
    assert not untouched.directory.exists()


def test_an_object_that_changed_since_it_was_planned(options: dict[str, Any], bucket: str, tmp_path: Path) -> None:
    (source,) = list_sources([f"s3://{bucket}/a.mp4"], storage_options=options).sources
    fsspec.filesystem("s3", **options).pipe_file(f"{bucket}/a.mp4", b"other")
    with pytest.raises(MediaError) as caught:
        Scratch(str(tmp_path / "s")).open(
            source_id=source.source_id,
            location=source.location,
            fingerprint=source.fingerprint,
            size_bytes=source.size_bytes,
            storage_options=options,
        )
    assert caught.value.code == ErrorCode.SOURCE_CHANGED
