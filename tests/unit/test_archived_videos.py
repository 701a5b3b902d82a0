"""Videos in archives are videos: windows, times and frames as if each lay beside the archive, and errors of its own."""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError, StoreError
from pipeline.media import archives
from pipeline.media.gunzip import Gunzip
from pipeline.media.probe import probe_source
from pipeline.media.read import Frame, SegmentReader
from pipeline.media.scratch import Scratch
from pipeline.media.sources import list_sources
from pipeline.segments import Segment, plan_segments, plan_table, windows_beyond
from tests.media import damaged, picture_bytes, read_index, truncated, write_tar, write_video, write_zip

EXTRACTION = Extraction(fps="10", segment_frames=4)
SEEN = [0, 1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38]  # of 40 frames, 25 a second, 10 wanted

Row = tuple[str | None, int, int, float | None, int]  # member, ordinal, frame, timestamp, index in the pixels


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=40).read_bytes()


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(str(tmp_path / "scratch"), capacity_bytes=1 << 30)


def planned(path: Path, scratch: Scratch) -> list[Segment]:
    """The first plan, and the windows that its last ones find."""
    (source,) = list_sources([str(path)]).sources
    row = probe_source(source, scratch=scratch, extraction=EXTRACTION)
    assert row["error_code"] is None
    plan = plan_table([row], locations={source.source_id: source.location}, extraction=EXTRACTION)
    reader, beyond = SegmentReader(scratch=scratch, extraction=EXTRACTION), {}
    first = [Segment.from_row(entry) for entry in plan.to_pylist()]
    for segment in first:
        if segment.kind == "video":
            beyond[segment.segment_id] = reader.read(segment).beyond
    reader.close()
    found = windows_beyond(plan, {key: count for key, count in beyond.items() if count}, EXTRACTION)
    known = {Segment.from_row(entry).video_key: entry["window"] + 1 for entry in found.to_pylist() if entry["is_last"]}
    again = plan_segments(row, location=source.location, extraction=EXTRACTION, tails=known)
    assert {s.segment_id for s in again} == {s.segment_id for s in first} | set(found["segment_id"].to_pylist())
    return again


def rows(segments: list[Segment], scratch: Scratch) -> list[Row]:
    reader = SegmentReader(scratch=scratch, extraction=EXTRACTION)
    seen: list[Row] = []
    for segment in segments:
        frames = reader.read(segment)
        seen += [
            (frame.member, frame.ordinal, frame.frame, frame.timestamp, read_index(frame.image))
            for frame in frames
            if isinstance(frame, Frame)
        ]
        assert frames.error is None
    reader.close()
    return seen


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "stored.zip", "deflated.zip"])
def test_frames_and_times_are_those_of_the_video_itself(
    tmp_path: Path, clip: bytes, scratch: Scratch, name: str
) -> None:
    members = [
        ("a/clip.mp4", clip), ("a/clip.txt", b"words"), ("still.png", picture_bytes(60)),
        ("../../up.MP4", clip), ("/etc/clip.mp4", clip), ("a/clip.mp4", clip),
    ]  # fmt: skip
    path = tmp_path / name
    if name.endswith("zip"):
        write_zip(path, members, deflate=name.startswith("deflated"))
    else:
        write_tar(path, members)
    seen = rows(planned(path, scratch), scratch)
    expected: list[Row] = [("still.png", 2, 0, None, 60)]
    for ordinal, member in ((0, "a/clip.mp4"), (3, "../../up.MP4"), (4, "/etc/clip.mp4"), (5, "a/clip.mp4")):
        expected += [(member, ordinal, frame, frame / 25, frame) for frame in SEEN]
    assert seen == expected
    written = {file.name.partition(".")[2] for file in scratch.directory.glob("[!.]*")}
    assert written == {f"{n}.member" for n in (0, 3, 4, 5)}
    assert {file.name for file in tmp_path.iterdir()} == {name, "scratch"}


def test_a_bad_video_costs_nothing_but_itself(tmp_path: Path, clip: bytes, scratch: Scratch) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip)
    half = truncated(source, tmp_path / "half.mp4", 0.5).read_bytes()
    members = [("half.mp4", half), ("words.mp4", b"no video"), ("empty.mkv", b""), ("good.mp4", clip)]
    (found,) = list_sources([str(write_tar(tmp_path / "x.tar", members))]).sources
    row = probe_source(found, scratch=scratch, extraction=EXTRACTION)
    reader, errors = SegmentReader(scratch=scratch, extraction=EXTRACTION), {}
    for segment in plan_segments(row, location=found.location, extraction=EXTRACTION):
        try:
            assert [read_index(f.image) for f in reader.read(segment) if isinstance(f, Frame)] == SEEN[:4]
        except MediaError as error:
            errors[error.message.partition(":")[0]] = error.code
    assert errors == {
        "half.mp4": ErrorCode.TRUNCATED,
        "words.mp4": ErrorCode.NOT_MEDIA,
        "empty.mkv": ErrorCode.NOT_MEDIA,
    }


def test_an_archive_that_ends_in_a_video_gives_what_is_there(tmp_path: Path, scratch: Scratch) -> None:
    video = write_video(tmp_path / "v.ts", frames=75, b_frames=0).read_bytes()
    path = truncated(write_tar(tmp_path / "x.tar", [("v.ts", video)]), tmp_path / "cut.tar", 0.5)
    (segment, *_) = planned(path, scratch)
    frames = SegmentReader(scratch=scratch, extraction=EXTRACTION).read(segment)
    assert [read_index(frame.image) for frame in frames if isinstance(frame, Frame)] == SEEN[:4]
    *_, last = planned(path, scratch)
    frames = SegmentReader(scratch=scratch, extraction=EXTRACTION).read(last)
    assert all(read_index(frame.image) == frame.frame for frame in frames if isinstance(frame, Frame))
    assert frames.error is not None
    assert frames.error.code == ErrorCode.TRUNCATED
    assert frames.error.message.startswith("v.ts: ")


def test_a_zip_member_with_a_wrong_checksum_is_not_read(tmp_path: Path, clip: bytes, scratch: Scratch) -> None:
    path = damaged(
        write_zip(tmp_path / "x.zip", [("v.mp4", clip)], deflate=False), tmp_path / "bad.zip", start=0.5, stop=0.502
    )
    (found,) = list_sources([str(path)]).sources
    row = probe_source(found, scratch=scratch, extraction=EXTRACTION)
    (segment,) = plan_segments(row, location=found.location, extraction=EXTRACTION)
    with pytest.raises(MediaError, match=r"v\.mp4") as caught:
        SegmentReader(scratch=scratch, extraction=EXTRACTION).read(segment)
    assert caught.value.code == ErrorCode.ARCHIVE_MEMBER
    assert not list(scratch.directory.glob("[!.]*"))


def test_a_video_that_scratch_cannot_hold(tmp_path: Path, clip: bytes) -> None:
    scratch = Scratch(str(tmp_path / "scratch"), capacity_bytes=len(clip) - 1)
    (found,) = list_sources([str(write_tar(tmp_path / "x.tar", [("v.mp4", clip)]))]).sources
    row = probe_source(found, scratch=scratch, extraction=EXTRACTION)
    (segment,) = plan_segments(row, location=found.location, extraction=EXTRACTION)
    with pytest.raises(MediaError) as caught:
        SegmentReader(scratch=scratch, extraction=EXTRACTION).read(segment)
    assert caught.value.code == ErrorCode.TOO_LARGE


@pytest.mark.parametrize("is_full", [False, True])
def test_a_disk_that_others_fill_meanwhile_is_no_fault_of_a_video(
    tmp_path: Path, clip: bytes, scratch: Scratch, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Such as a second copy for which room was made at the same time."""
    (found,) = list_sources([str(write_tar(tmp_path / "x.tar", [("v.mp4", clip)]))]).sources
    row = probe_source(found, scratch=scratch, extraction=EXTRACTION)
    (segment,) = plan_segments(row, location=found.location, extraction=EXTRACTION)
    usage, make_room = shutil.disk_usage(tmp_path), Scratch._make_room

    def and_then_others_come(self: Scratch, *wanted: Any) -> None:
        make_room(self, *wanted)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Scratch, "_make_room", and_then_others_come)
    if is_full:
        monkeypatch.setattr(archives.Archive, "copy", fail)
    with pytest.raises(StoreError, match="free space") if is_full else contextlib.nullcontext():
        frames = SegmentReader(scratch=scratch, extraction=EXTRACTION).read(segment)
        assert [read_index(frame.image) for frame in frames if isinstance(frame, Frame)] == SEEN[:4]


def test_all_videos_of_a_tar_gz_are_read_in_one_pass(
    tmp_path: Path, clip: bytes, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []

    class Counted(Gunzip):
        def _rewind(self) -> None:
            passes.append(self)
            super()._rewind()

    monkeypatch.setattr(archives, "Gunzip", Counted)
    members = [(f"{number}.mp4", clip if number % 3 else b"no video") for number in range(6)]
    (found,) = list_sources([str(write_tar(tmp_path / "x.tgz", members))]).sources
    row = probe_source(found, scratch=scratch, extraction=EXTRACTION)
    assert len(passes) == 1
    reader, read = SegmentReader(scratch=scratch, extraction=EXTRACTION), 0
    for segment in plan_segments(row, location=found.location, extraction=EXTRACTION):
        with contextlib.suppress(MediaError):
            read += len(list(reader.read(segment)))
    reader.close()
    assert read == 4 * len(SEEN[:4])
    assert len(passes) == 2
