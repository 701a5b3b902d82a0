"""Sources on disk: probed, planned and read as the pipeline does it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media.probe import probe_source
from pipeline.media.read import Frame, FrameError, SegmentFrames, SegmentReader
from pipeline.media.scratch import Scratch
from pipeline.media.sources import Source, list_sources
from pipeline.segments import Segment, plan_segments
from tests.media import damaged, picture_bytes, read_index, truncated, uneven_pts, write_tar, write_video, write_zip

EXTRACTION = Extraction(fps="10", segment_frames=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    write_video(root / "a.mp4", frames=40, rotation=90)
    write_video(root / "b.mkv", frames=40)
    write_video(root / "c.ts", frames=40, codec="mpeg2video")
    write_video(root / "d.mp4", frames=40, pts=uneven_pts(40), time_base=write_base())
    (root / "e.jpg").write_bytes(picture_bytes(50, "JPEG", orientation=6))
    pictures = [(f"{index}.png", picture_bytes(index)) for index in range(60, 70)]
    write_tar(root / "f.tar", [*pictures, ("bad.jpg", b"no picture"), ("label.cls", b"3")])
    write_tar(root / "g.tar.gz", pictures)
    write_zip(root / "h.zip", pictures)
    return root


def write_base() -> Any:
    from fractions import Fraction

    return Fraction(1, 30000)


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(str(tmp_path / "scratch"), capacity_bytes=1 << 30)


def probe(path: Path, scratch: Scratch) -> tuple[Source, dict[str, Any]]:
    listed = list_sources([str(path), __file__]).sources  # one may be missing, not all
    source = next(one for one in listed if one.location != __file__)
    return source, probe_source(source, scratch=scratch, extraction=EXTRACTION)


def segments(path: Path, scratch: Scratch) -> list[Segment]:
    source, row = probe(path, scratch)
    return plan_segments(row, location=source.location, extraction=EXTRACTION)


def read(path: Path, scratch: Scratch) -> Iterator[tuple[Segment, SegmentFrames, list[Frame | FrameError]]]:
    reader = SegmentReader(scratch=scratch, extraction=EXTRACTION)
    for segment in segments(path, scratch):
        frames = reader.read(segment)
        yield segment, frames, list(frames)
    reader.close()


def seen(path: Path, scratch: Scratch) -> list[int]:
    return [read_index(f.image) for _, _, frames in read(path, scratch) for f in frames if isinstance(f, Frame)]


def test_probe_rows_fit_the_sources_table(folder: Path, scratch: Scratch) -> None:
    rows = [probe(path, scratch)[1] for path in sorted(folder.iterdir())]
    stamp = {"run_id": "r", "pipeline_version": "1"}
    table = pa.Table.from_pylist([row | stamp for row in rows], schema=schema.SOURCES)
    schema.check(table, "sources")
    assert table["kind"].to_pylist() == ["video"] * 4 + ["picture"] + ["archive"] * 3
    assert table["error_code"].null_count == len(rows)
    video = rows[0]
    assert (video["width"], video["height"], video["codec"], video["is_vfr"]) == (192, 128, "h264", False)
    assert video["container_frames"] == 40
    assert [row["duration_s"] for row in rows[:3]] == pytest.approx([1.6] * 3)
    assert [row["is_vfr"] for row in rows[1:4]] == [False, False, True]
    assert (rows[4]["width"], rows[4]["height"]) == (192, 128)
    assert [len(row["index"]) for row in rows[5:]] == [11, 10, 10]


def test_a_video_of_one_frame_has_the_duration_that_its_container_says(tmp_path: Path, scratch: Scratch) -> None:
    (mp4, mkv) = (probe(write_video(tmp_path / f"a.{kind}", frames=1), scratch)[1] for kind in ("mp4", "mkv"))
    assert mkv["container_frames"] == 1
    assert mkv["duration_s"] == pytest.approx(mp4["duration_s"])
    assert mp4["duration_s"] > 0


def test_videos(folder: Path, scratch: Scratch) -> None:
    for name in ("a.mp4", "b.mkv", "c.ts"):  # 25 fps at 10 per second: the first frame at or after every .1 s
        assert seen(folder / name, scratch) == [0, 1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38]
        last = list(read(folder / name, scratch))[-1]
        assert not last[1].beyond


def test_pictures_and_archives(folder: Path, scratch: Scratch) -> None:
    ((_, frames, (picture,)),) = read(folder / "e.jpg", scratch)
    assert isinstance(picture, Frame)
    assert (picture.frame, picture.timestamp, picture.member, picture.ordinal) == (0, None, None, 0)
    assert read_index(picture.image) == 50
    assert not frames.beyond
    assert frames.error is None
    for name in ("g.tar.gz", "h.zip"):
        assert seen(folder / name, scratch) == list(range(60, 70))


def test_a_bad_member_costs_one_frame(folder: Path, scratch: Scratch) -> None:
    frames = [frame for _, _, frames in read(folder / "f.tar", scratch) for frame in frames]
    assert [frame.ordinal for frame in frames] == list(range(11))
    assert [read_index(frame.image) for frame in frames if isinstance(frame, Frame)] == list(range(60, 70))
    (bad,) = (frame for frame in frames if isinstance(frame, FrameError))
    assert (bad.member, bad.error.code) == ("bad.jpg", ErrorCode.ARCHIVE_MEMBER)


def test_segments_of_several_sources_in_any_order(folder: Path, scratch: Scratch) -> None:
    everything = [s for path in sorted(folder.iterdir()) for s in segments(path, scratch)]
    reader = SegmentReader(scratch=scratch, extraction=EXTRACTION)

    def indices(segment: Segment) -> list[int]:
        return [read_index(frame.image) for frame in reader.read(segment) if isinstance(frame, Frame)]

    forward = {segment.segment_id: indices(segment) for segment in everything}
    assert {segment.segment_id: indices(segment) for segment in reversed(everything)} == forward


def test_a_break_gives_a_partial_row_an_error_row_and_cover(folder: Path, tmp_path: Path, scratch: Scratch) -> None:
    whole = write_video(tmp_path / "w.mp4", frames=75, b_frames=0, container_options={"movflags": "faststart"})
    path = truncated(whole, tmp_path / "cut.mp4", 0.4)
    results = [(len(frames), result.error is not None, result.covered) for _, result, frames in read(path, scratch)]
    complete = [entry for entry in results if not entry[1]]
    broken = results[len(complete) :]
    assert all(entry == (4, False, False) for entry in complete)
    assert [count for count, _, _ in broken][1:] == [0] * (len(broken) - 1)
    covered = [cover for _, _, cover in broken]
    assert covered == sorted(covered)
    assert covered.count(False) <= 2
    assert True in covered


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gone.mp4", ErrorCode.NOT_FOUND),
        ("empty.mp4", ErrorCode.NOT_MEDIA),
        ("words.mp4", ErrorCode.NOT_MEDIA),
        ("list.mp4", ErrorCode.UNSUPPORTED),
        ("half.mp4", ErrorCode.TRUNCATED),
        ("noise.mkv", ErrorCode.CORRUPT),
        ("half.jpg", None),  # its header is whole: the picture fails when it is read
        ("empty.tar", ErrorCode.NOT_MEDIA),
        ("pipe.mp4", ErrorCode.NOT_MEDIA),
    ],
)
def test_what_a_probe_says_of_bad_files(
    folder: Path, tmp_path: Path, scratch: Scratch, name: str, code: ErrorCode | None
) -> None:
    path = tmp_path / name
    match name:
        case "empty.mp4":
            path.write_bytes(b"")
        case "words.mp4":
            path.write_text("only words\n")
        case "list.mp4":
            path.write_text("#EXTM3U\nhttp://127.0.0.1:1/secret.ts\n")
        case "half.mp4":
            truncated(folder / "a.mp4", path, 0.5)
        case "noise.mkv":
            damaged(folder / "b.mkv", path, start=0.001, stop=1)
        case "half.jpg":
            truncated(folder / "e.jpg", path, 0.5)
        case "empty.tar":
            write_tar(path, [("a.txt", b"x")])
        case "pipe.mp4":
            os.mkfifo(path)
    source, row = probe(path, scratch)
    assert row["error_code"] == (str(code) if code else None), row["error_message"]
    (segment,) = plan_segments(row, location=source.location, extraction=EXTRACTION)
    with pytest.raises(MediaError) as caught:
        SegmentReader(scratch=scratch, extraction=EXTRACTION).read(segment)
    assert caught.value.code == (code or ErrorCode.TRUNCATED)


def test_a_file_that_may_not_be_read(
    folder: Path, tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
    assert probe(path, scratch)[1]["error_code"] == ErrorCode.PERMISSION


def test_a_source_that_changed_since_it_was_planned(folder: Path, tmp_path: Path, scratch: Scratch) -> None:
    path = write_video(tmp_path / "a.mp4", frames=10)
    planned = segments(path, scratch)
    reader = SegmentReader(scratch=scratch, extraction=EXTRACTION)
    assert list(reader.read(planned[0]))
    write_video(path, frames=11)
    for late in (reader, SegmentReader(scratch=scratch, extraction=EXTRACTION)):
        with pytest.raises(MediaError) as caught:
            late.read(planned[0])
        assert caught.value.code == ErrorCode.SOURCE_CHANGED


def test_a_packet_index_that_was_kept_gives_the_same(
    folder: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = seen(folder / "d.mp4", scratch)
    monkeypatch.setattr("pipeline.media.read.CACHED_INDEX_BYTES", 0)
    assert seen(folder / "d.mp4", scratch) == expected
    assert [path.suffix for path in scratch.directory.glob("*.npz")] == [".npz"]
    assert seen(folder / "d.mp4", scratch) == expected


@pytest.mark.parametrize("kept", ["empty", "cut off", "of another version"])
def test_a_packet_index_that_was_kept_and_cannot_be_read_costs_time_only(
    folder: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    expected = seen(folder / "d.mp4", scratch)
    monkeypatch.setattr("pipeline.media.read.CACHED_INDEX_BYTES", 0)
    assert seen(folder / "d.mp4", scratch) == expected
    (index,) = scratch.directory.glob("*.npz")
    data = index.read_bytes()
    index.write_bytes(b"" if kept == "empty" else data[: len(data) // 2])
    if kept == "of another version":
        with index.open("wb") as file:
            np.savez(file, pts=np.arange(9))
    assert seen(folder / "d.mp4", scratch) == expected


@pytest.mark.parametrize("case", ["full", "nearly full", "no folder", "fills meanwhile"])
def test_a_packet_index_that_cannot_be_kept_costs_time_only(
    folder: Path, tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    expected = seen(folder / "d.mp4", scratch)
    monkeypatch.setattr("pipeline.media.read.CACHED_INDEX_BYTES", 0)
    usage = shutil.disk_usage(tmp_path)._replace(total=500 << 30)
    if case == "no folder":
        (tmp_path / "file").touch()
        scratch = Scratch(str(tmp_path / "file"))
    elif case == "fills meanwhile":

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("pipeline.media.packets.PacketIndex.save", fail)
    else:
        free = 0 if case == "full" else 18 << 30  # 20 stay free
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    assert seen(folder / "d.mp4", scratch) == expected
    assert bool(list(tmp_path.glob("scratch/*.npz"))) == (case == "nearly full")


def test_who_read_a_segment_is_known(folder: Path, scratch: Scratch) -> None:
    def decoders(name: str, wanted: str) -> set[str]:
        reader, seen = SegmentReader(scratch=scratch, extraction=EXTRACTION, decoder=wanted), set()
        for segment in segments(folder / name, scratch):
            frames = reader.read(segment)
            assert list(frames)
            seen.add(frames.decoder)
        return seen

    assert decoders("a.mp4", "pyav") == {"pyav"}
    assert decoders("a.mp4", "decord") == {"decord"}
    assert decoders("c.ts", "decord") == {"pyav"}  # which decord would count wrong
    assert decoders("e.jpg", "decord") == decoders("h.zip", "pyav") == {"pillow"}
