"""Which stream of a file is the video: one of several, beside sound and cover pictures, or none."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media.probe import probe_source
from pipeline.media.scratch import Scratch
from pipeline.media.sources import list_sources
from pipeline.media.video import VideoReader
from tests.media import HEIGHT, WIDTH, coded_frame, picture_bytes, read_index, write_video

COVER = 999
SMALL, LARGE = (192, 128), (320, 192)


def write_streams(path: Path, *, videos: list[tuple[int, int]], cover: bool = False, sound: bool = False) -> Path:
    """Twelve frames in each of the videos; those of the n-th count from 100 * n."""
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in videos:
            stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        picture = None
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture.disposition = Disposition.attached_pic
        container.start_encoding()
        if picture is not None:
            packet = av.Packet(picture_bytes(COVER, "JPEG"))
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = picture, 0, 0, True
            packet.time_base = Fraction(1, 90000)
            container.mux(packet)
        for index in range(12):
            for number, stream in enumerate(streams):
                image = coded_frame(100 * number + index, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def indices(path: Path, decoder: str) -> list[int]:
    frames = list(VideoReader(path, extraction=Extraction(fps="all"), decoder=decoder).read(0))
    assert all(frame.image.shape[2] == 3 for frame in frames)
    return [read_index(frame.image) for frame in frames]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("videos", [[SMALL, LARGE], [LARGE, SMALL], [SMALL, SMALL]], ids=["larger", "smaller", "same"])
def test_of_several_videos_one_is_read_throughout(
    tmp_path: Path, suffix: str, videos: list[tuple[int, int]], decoder: str
) -> None:
    path = write_streams(tmp_path / f"a.{suffix}", videos=videos)
    with av.open(str(path)) as container:
        best = container.streams.best("video")
        assert best is not None
        first = 100 * best.index
    assert indices(path, decoder) == list(range(first, first + 12))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_cover_picture_is_not_the_video(tmp_path: Path, decoder: str) -> None:
    path = write_streams(tmp_path / "a.mp4", videos=[SMALL], cover=True, sound=True)
    assert indices(path, decoder) == list(range(12))


@pytest.mark.parametrize("cover", [False, True])
def test_sound_with_and_without_a_cover_is_no_video(tmp_path: Path, cover: bool) -> None:
    path = write_streams(tmp_path / "a.mp4", videos=[], cover=cover, sound=True)
    with pytest.raises(MediaError, match="sound only") as caught:
        VideoReader(path, extraction=Extraction())
    assert caught.value.code == ErrorCode.UNSUPPORTED


@pytest.mark.parametrize("name", ["clip", "clip.jpg", "clip.tar", "clip.mp4.part", "CLIP.MP4"])
def test_what_a_named_file_holds_decides_not_its_name(tmp_path: Path, name: str) -> None:
    video = write_video(tmp_path / "a.mkv", frames=5)
    (source,) = list_sources([str(shutil.copy(video, tmp_path / name))]).sources
    row = probe_source(source, scratch=Scratch(str(tmp_path / "scratch")), extraction=Extraction())
    assert (row["kind"], row["codec"], row["error_code"]) == ("video", "h264", None)
    assert indices(tmp_path / name, "pyav") == list(range(5))


@pytest.mark.parametrize(
    ("name", "decoder"), [(b"\xff\xfe.mp4", "pyav"), (b"a%03d.mp4", "decord"), (b"file:c\n'.mp4", "decord")]
)
def test_odd_names_are_opened_and_what_decord_cannot_open_pyav_reads(tmp_path: Path, name: bytes, decoder: str) -> None:
    path = tmp_path / os.fsdecode(name)
    shutil.copy(write_video(tmp_path / "a.mp4", frames=5), path)
    for wanted in ("pyav", "decord"):
        reader = VideoReader(path, extraction=Extraction(fps="all"), decoder=wanted)
        assert reader.decoder == (decoder if wanted == "decord" else "pyav")
        assert [read_index(frame.image) for frame in reader.read(0)] == list(range(5))


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"ID3\x04", "MP3"),
        (b"\xff\xfb\x90\x64", "MP3"),
        (b"fLaC", "FLAC"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "WAV"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_what_is_known_and_no_picture_is_named(tmp_path: Path, head: bytes, says: str) -> None:
    (tmp_path / "a.mp4").write_bytes(head.ljust(2000, b"\0"))
    with pytest.raises(MediaError, match=says) as caught:
        VideoReader(tmp_path / "a.mp4", extraction=Extraction())
    assert caught.value.code == ErrorCode.UNSUPPORTED
