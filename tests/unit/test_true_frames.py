"""Frames are what they claim: against a plain decode by PyAV from the first packet to the last, no code of ours in it.

Every frame's pixels say which one it is, so one that is lost, repeated or shown for another is seen.
"""

from __future__ import annotations

import contextlib
import random
import struct
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media.video import VideoReader
from tests.media import coded_frame, read_index, truncated, uneven_pts, write_video

Seen = list[tuple[int, float]]  # (index in the pixels, seconds from the first frame)

CONTAINERS = {
    "libx264": ("mp4", "mov", "mkv", "ts", "m2ts", "flv", "3gp", "m4v"),
    "libx265": ("mp4", "mov", "mkv", "ts"),
    "libvpx": ("webm", "mkv", "ogv"),
    "libvpx-vp9": ("webm", "mkv", "mp4"),
    "libsvtav1": ("webm", "mkv", "mp4"),
    "mpeg4": ("mp4", "mov", "mkv", "ts", "avi"),
    "mjpeg": ("mp4", "mov", "mkv", "avi"),
    "mpeg2video": ("mpg", "vob", "ts", "mxf", "mkv"),
    "mpeg1video": ("mpg",),
    "wmv2": ("wmv", "avi"),
    "flv1": ("flv",),
    "prores_ks": ("mov", "mkv"),
    "ffv1": ("mkv", "avi"),
}


def plain(path: Path) -> list[tuple[int, Fraction]]:
    """Everything that PyAV decodes, in its order, up to the first damage."""
    seen = []
    with contextlib.suppress(av.FFmpegError), av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        assert stream.time_base is not None
        for frame in container.decode(stream):
            if frame.is_corrupt:
                break
            seen.append((read_index(frame.to_ndarray(format="rgb24")), frame.pts * stream.time_base))
    return [(index, time - seen[0][1]) for index, time in seen]


def packets(path: Path) -> int:
    """How many the file has."""
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def tick(path: Path) -> Fraction:
    """Seconds of one tick of the file's clock."""
    with av.open(str(path)) as container:
        time_base = container.streams.best("video").time_base  # type: ignore[union-attr]
        assert time_base is not None
        return time_base


def sampled(frames: list[tuple[int, Fraction]], fps: str, tick: Fraction) -> Seen:
    """The first frame of each grid point (ceil(t * fps), a point rounded up to whole ticks), by the definition."""
    kept: dict[int, tuple[int, Fraction]] = {}
    for at, (index, time) in enumerate(frames):
        point = at
        if fps != "all":
            point = ceil(time * Fraction(fps))
            while point and tick * ceil((point - 1) / Fraction(fps) / tick) >= time:
                point -= 1
        kept.setdefault(point, (index, time))
    return [(index, float(time)) for index, time in kept.values()]


def ours(path: Path, fps: str, decoder: str, segment_frames: int = 7) -> tuple[Seen, ErrorCode | None]:
    """All windows, one after the other; the first error ends it."""
    extraction = Extraction(fps=fps, segment_frames=segment_frames)
    reader = VideoReader(path, extraction=extraction, decoder=decoder)
    seen: Seen = []
    positions: list[int] = []
    number = 0
    while True:
        window = reader.read(number, is_last=True)
        for frame in window:
            seen.append((read_index(frame.image), frame.timestamp))
            positions.append(frame.frame)
        if window.error is not None or not window.beyond:
            assert positions == sorted(set(positions))
            return seen, window.error.code if window.error else None
        number += 1


def check(path: Path, decoder: str, fps: str = "all", segment_frames: int = 7) -> list[tuple[int, Fraction]]:
    frames = plain(path)
    assert ours(path, fps, decoder, segment_frames) == (sampled(frames, fps, tick(path)), None)
    return frames


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize(("codec", "suffix"), [(c, s) for c, suffixes in CONTAINERS.items() for s in suffixes])
def test_every_codec_in_every_container(tmp_path: Path, codec: str, suffix: str, decoder: str) -> None:
    b_frames = 2 if codec in ("libx264", "libx265", "mpeg4") and suffix != "avi" else 0
    path = write_video(tmp_path / f"a.{suffix}", frames=30, codec=codec, b_frames=b_frames, gop=8)
    for fps in ("all", "6"):
        assert [index for index, _ in check(path, decoder, fps)] == list(range(30))


@pytest.mark.parametrize(
    ("rate", "fps"),
    [(30, "30"), (30, "15"), (60, "60"), (24, "24"), ("24000/1001", "24000/1001"), ("24000/1001", "12000/1001")],
)
def test_every_container_gives_the_same_frames_at_the_video_s_own_rate(
    tmp_path: Path, rate: str | int, fps: str
) -> None:
    chosen = {}
    for suffix in ("mp4", "mkv", "webm", "ts"):
        codec = "libvpx" if suffix == "webm" else "libx264"
        path = write_video(tmp_path / f"a.{suffix}", frames=50, fps=Fraction(rate), codec=codec, gop=8)
        chosen[suffix] = [index for index, _ in ours(path, fps, "pyav")[0]]
    assert len(set(map(tuple, chosen.values()))) == 1, chosen
    assert len(chosen["mkv"]) >= (50 if Fraction(fps) == Fraction(rate) else 25)


VOP, NOT_CODED = b"\0\0\1\xb6", b"\0\0\1\xb6\x51\x00\x7f"


def packed(path: Path, b_frames: int) -> Path:
    """An AVI as DivX wrote them: a B-frame in the packet of the frame after it, a placeholder in its own."""
    plain_file = write_video(path.with_name("plain.avi"), frames=40, codec="mpeg4", b_frames=b_frames, gop=12)
    with av.open(str(plain_file)) as container:
        coded = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    is_b = [data[data.find(VOP) + 4] >> 6 == 2 for data in coded]
    written: list[bytes] = []
    while len(written) < len(coded):
        at = len(written)
        run = next((n for n in range(at + 1, len(coded)) if not is_b[n]), len(coded)) - at - 1
        written += [coded[at] + coded[at + 1], *coded[at + 2 : at + 1 + run], NOT_CODED] if run else [coded[at]]
    header = written[0].find(b"\0\0\1\xb3")
    written[0] = written[0][:header] + b"\0\0\1\xb2DivX503b1393p" + written[0][header:]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        container.start_encoding()
        for number, data in enumerate(written):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), number, number
            packet.is_keyframe = data[data.find(VOP) + 4] >> 6 == 0
            container.mux(packet)
    return path


@pytest.mark.parametrize("b_frames", [1, 2])
def test_packed_b_frames_are_frames_of_their_own(tmp_path: Path, b_frames: int) -> None:
    path = packed(tmp_path / "packed.avi", b_frames)
    assert packets(path) == 40
    for fps in ("all", "5"):
        frames = [(index, Fraction(index, 25)) for index in range(40)]
        assert ours(path, fps, "pyav") == (sampled(frames, fps, Fraction(1, 25)), None)


def in_packets_of(data: bytes, size: int) -> bytes:
    """A transport stream with 16 check bytes behind each packet, or 4 of time before."""
    parts = (data[at : at + 188] for at in range(0, len(data), 188))
    return b"".join(part + b"\xff" * 16 if size == 204 else bytes(4) + part for part in parts)


@pytest.mark.parametrize("size", [188, 192, 204])
@pytest.mark.parametrize("lost", [0, 100])
def test_recordings_that_begin_within_a_packet(tmp_path: Path, size: int, lost: int) -> None:
    data = write_video(tmp_path / "a.ts", frames=30, gop=8).read_bytes()
    path = tmp_path / "recorded.ts"
    path.write_bytes((data if size == 188 else in_packets_of(data, size))[lost:])
    assert [index for index, _ in check(path, "pyav")] == list(range(30))
    path.write_bytes(path.read_bytes()[:-90])
    assert ours(path, "all", "pyav")[1] == ErrorCode.TRUNCATED


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_a_stream_without_a_container_has_times_by_its_rate(tmp_path: Path, codec: str) -> None:
    with av.open(str(write_video(tmp_path / "a.mpg", frames=30, codec=codec))) as container:
        data = b"".join(bytes(packet) for packet in container.demux(video=0) if packet.size)
    path = tmp_path / "bare.mpg"
    path.write_bytes(data)
    assert ours(path, "all", "pyav") == ([(index, index / 25) for index in range(30)], None)


@pytest.mark.parametrize("length", [0, 8, 0xFFFFFFFF])
def test_the_outermost_length_of_an_avi_is_not_believed(tmp_path: Path, length: int) -> None:
    path = write_video(tmp_path / "a.avi", frames=30, codec="mpeg4", b_frames=0)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 4, len(data) if length == 8 else length)
    path.write_bytes(data)
    assert [index for index, _ in check(path, "pyav")] == list(range(30))


SUFFIXES = {
    "libx264": ["mp4", "mov", "mkv", "ts"],
    "libx265": ["mp4", "mov", "mkv", "ts"],
    "libvpx-vp9": ["webm", "mp4"],
    "mpeg2video": ["ts", "mpg"],
}


@st.composite
def encodings(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A container's suffix and arguments of `write_video`: uneven times, groups of any length, reordering."""
    codec = draw(st.sampled_from(list(SUFFIXES)))
    steps = draw(st.lists(st.sampled_from([1, 17, 33, 40, 41, 500, 3000]), max_size=30))
    start = draw(st.sampled_from([0, 0, 40, 1360]))
    chosen: dict[str, Any] = {"codec": codec, "frames": len(steps) + 1, "b_frames": draw(st.integers(0, 3))}
    if codec != "mpeg2video":  # which has no times but its rate
        pts = [start + sum(steps[:at]) for at in range(len(steps) + 1)]
        chosen |= {"pts": pts, "time_base": Fraction(1, 1000), "gop": draw(st.integers(1, 12))}
    if codec == "libx265" and len(steps) < 8:
        chosen["b_frames"] = 0  # x265 gives clips that are shorter than its delay undefined decode times
    if codec == "libx264" and draw(st.booleans()):
        chosen["options"] = {"x264-params": "open-gop=1:b-adapt=0", "preset": "veryfast"}
    return draw(st.sampled_from(SUFFIXES[codec])), chosen


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    encoding=encodings(),
    decoder=st.sampled_from(["pyav", "decord"]),
    fps=st.sampled_from(["all", "5", "25", "0.3", "24000/1001", "1000"]),
    segment_frames=st.integers(1, 9),
)
def test_any_times_groups_and_grids(
    tmp_path: Path, encoding: tuple[str, dict[str, Any]], decoder: str, fps: str, segment_frames: int
) -> None:
    suffix, chosen = encoding
    assume(fps != "1000" or segment_frames > 4)  # more windows than are believed of a video with so few frames
    path = write_video(tmp_path / f"a.{suffix}", **chosen)
    assume(packets(path) == chosen["frames"])  # x265 sometimes leaves out the last frames of so short a clip
    frames = check(path, decoder, fps, segment_frames)
    assert [index for index, _ in frames] == list(range(chosen["frames"]))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("first", [0, 5, 12, 17, 59])
def test_an_edit_list_that_begins_later(tmp_path: Path, first: int, decoder: str) -> None:
    path = edited(write_video(tmp_path / "a.mp4", frames=60), skipped=first)
    for fps in ("all", "10"):
        frames = check(path, decoder, fps)
        assert [index for index, _ in frames] == list(range(first, 60))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_an_edit_list_that_ends_earlier(tmp_path: Path, decoder: str) -> None:
    path = edited(write_video(tmp_path / "a.mp4", frames=60), skipped=5, kept=25)
    assert [index for index, _ in check(path, decoder)] == list(range(5, 30))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize(
    "container_options",
    [
        {"movflags": "negative_cts_offsets"},
        {"use_editlist": "0"},
        {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
        {"movflags": "faststart"},
    ],
    ids=["negative-dts", "no-edit-list", "fragmented", "faststart"],
)
def test_ways_to_lay_out_an_mp4(tmp_path: Path, container_options: dict[str, str], decoder: str) -> None:
    times = {"pts": [500 + pts for pts in uneven_pts(40)], "time_base": Fraction(1, 30000)}
    path = write_video(tmp_path / "a.mp4", frames=40, container_options=container_options, **times)  # type: ignore[arg-type]
    for fps in ("all", "8"):
        assert [index for index, _ in check(path, decoder, fps)] == list(range(40))


def edited(path: Path, *, skipped: int, kept: int | None = None) -> Path:
    """The file with its edit list changed (ISO/IEC 14496-12, 8.6.6): the first frames are not to be shown."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    version, count, duration, start = struct.unpack_from(">IIIi", data, at)
    assert (version, count) == (0, 1)
    with av.open(str(path)) as container:
        ticks = int(Fraction(1, 25) / (container.streams.video[0].time_base or 1))
    struct.pack_into(">Ii", data, at + 8, duration if kept is None else kept * 40, start + skipped * ticks)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("name", ["a.mp4", "b.mkv", "c.ts", "d.avi", "e.webm"])
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0.15, 0.97))
def test_a_broken_tail_gives_true_frames_and_one_error(tmp_path: Path, name: str, decoder: str, keep: float) -> None:
    codec = {"d.avi": "mpeg4", "e.webm": "libvpx-vp9"}.get(name, "libx264")
    whole = tmp_path / name
    if not whole.exists():
        front = {"movflags": "faststart"} if name == "a.mp4" else {}
        write_video(whole, frames=60, codec=codec, b_frames=0 if name == "d.avi" else 2, container_options=front)
    path = truncated(whole, tmp_path / f"cut-{name}", keep)
    assume(name != "c.ts" or path.stat().st_size % 188)  # between two packets nothing shows that more came
    expected = sampled(plain(whole), "all", tick(whole))
    seen: Seen = []
    try:
        seen, error = ours(path, "all", decoder)
    except MediaError as refusal:
        error = refusal.code
    # what is stored before the cut may be shown after a frame that is stored behind it
    assert seen == [entry for entry in expected if entry in seen]
    assert seen[:-3] == expected[: len(seen[:-3])]
    there = [entry for entry in sampled(plain(path), "all", tick(whole)) if entry in expected]
    assert len(seen) >= len(there) - 1  # a last frame whose end is missing decodes to something; it is not data
    assert error == ErrorCode.TRUNCATED or (error is None and seen == expected)


@pytest.mark.parametrize(("box", "sound"), [(b"moof", False), (b"moof", True), (b"mdat", True)])
def test_a_recording_in_fragments_that_is_cut_behind_a_whole_frame_ends_early(
    tmp_path: Path, box: bytes, sound: bool
) -> None:
    """What the tables of its fragments promise is there: only the length of the last box says that more came."""
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    whole = write_video(tmp_path / "a.mp4", frames=60, gop=10, container_options=fragments, with_audio=sound)
    data = whole.read_bytes()
    at = data.index(box, data.index(box) + 4) - 4  # of the second fragment
    length = int.from_bytes(data[at : at + 4], "big")
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: at + (length - 3 if box == b"mdat" else length // 2)])  # in its sound, or in its table
    expected = sampled(plain(whole), "all", tick(whole))[: 20 if box == b"mdat" else 10]
    assert ours(path, "all", "pyav") == (expected, ErrorCode.TRUNCATED)
    assert ours(whole, "all", "pyav")[1] is None


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
@pytest.mark.parametrize("fps", ["all", "7"])
def test_streams_joined_end_to_end_lose_nothing(tmp_path: Path, name: str, fps: str) -> None:
    """Each part's clock starts anew, so its frames have the times of those of the part before."""
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    parts = [
        write_video(tmp_path / f"{n}{name}", frames=30, codec=codec, picture=lambda at, n=n: coded_frame(30 * n + at))  # type: ignore[misc]
        for n in range(3)
    ]
    path = tmp_path / name
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert [index for index, _ in plain(path)] == list(range(90))
    expected = sampled([(index, Fraction(index, 25)) for index in range(90)], fps, Fraction(1, 1000))
    seen, error = ours(path, fps, "pyav")
    assert error is None
    assert [index for index, _ in seen] == [index for index, _ in expected]
    assert [time for _, time in seen] == pytest.approx([time for _, time in expected], abs=1e-4)
    reader = VideoReader(path, extraction=Extraction(fps=fps, segment_frames=7))
    last = [read_index(frame.image) for frame in reader.read(reader.last_window())]
    assert last == [index for index, _ in expected][-len(last) :]


def test_times_that_jump_ahead_are_kept(tmp_path: Path) -> None:
    pts = [*range(10), *range(2500, 2510)]
    for suffix in ("ts", "mkv", "mp4"):
        path = write_video(tmp_path / f"a.{suffix}", frames=20, b_frames=0, pts=pts, time_base=Fraction(1, 25))
        for fps in ("all", "5"):
            frames = check(path, "pyav", fps)
        assert [float(time) for _, time in frames[9:11]] == pytest.approx([0.36, 100.0], abs=1e-3)


def test_frames_may_change_their_size_on_the_way(tmp_path: Path) -> None:
    sizes = [(192, 128), (320, 192), (160, 96)]
    parts = []
    for n, (width, height) in enumerate(sizes):
        images = [coded_frame(20 * n + at, width, height) for at in range(20)]
        parts.append(
            write_video(tmp_path / f"{n}.ts", frames=20, width=width, height=height, picture=images.__getitem__)
        )
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reader = VideoReader(path, extraction=Extraction(fps="all", segment_frames=9))
    seen = [frame for number in range(reader.last_window() + 1) for frame in reader.read(number)]
    assert [read_index(frame.image) for frame in seen] == list(range(60))
    assert [(frame.image.shape[1], frame.image.shape[0]) for frame in seen] == [
        size for size in sizes for _ in range(20)
    ]


def test_frames_before_one_that_is_too_large_are_kept(tmp_path: Path) -> None:
    parts = []
    for n, width in enumerate([192, 320, 192]):
        images = [coded_frame(20 * n + at, width) for at in range(20)]
        parts.append(write_video(tmp_path / f"{n}.ts", frames=20, width=width, picture=images.__getitem__))
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reader = VideoReader(path, extraction=Extraction(fps="all", segment_frames=8, max_pixels=192 * 128))
    seen, errors, covered = [], {}, []
    for number in range(reader.last_window() + 1):
        window = reader.read(number)
        seen += [read_index(frame.image) for frame in window]
        errors |= {number: window.error.code} if window.error is not None and not window.covered else {}
        covered += [number] if window.covered else []
    assert seen == [*range(20), *range(40, 60)]
    assert (errors, covered) == ({2: ErrorCode.TOO_LARGE, 3: ErrorCode.TOO_LARGE}, [4])


def test_times_that_cannot_be_true_are_one_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=4, b_frames=0, pts=[0, 40, 80, 1 << 41], time_base=Fraction(1, 1000))
    with pytest.raises(MediaError, match="can't be true") as caught:
        VideoReader(path, extraction=Extraction(fps="5"))
    assert caught.value.code == ErrorCode.CORRUPT
    assert [index for index, _ in check(path, "pyav", "all")] == [0, 1, 2, 3]


def pes_starts(data: bytes) -> list[int]:
    """Where the transport packets lie that begin a frame (ISO/IEC 13818-1, 2.4.3.2), and hold its time."""
    return [
        at
        for at in range(0, len(data), 188)
        if data[at + 1] & 0x40 and data.find(b"\0\0\1\xe0", at, at + 188) >= 0  # a video stream's start code
    ]


@pytest.mark.parametrize("keyframe", [10, 22, 34])
def test_a_frame_that_lost_its_header_does_not_take_the_times_of_the_others_along(
    tmp_path: Path, keyframe: int
) -> None:
    path = write_video(tmp_path / "a.ts", frames=60, codec="libx265", gop=12)
    data = path.read_bytes()
    at = pes_starts(data)[keyframe]  # by place in the file
    path.write_bytes(data[:at] + data[at + 188 :])
    with av.open(str(path)) as container:
        assert [packet.pts for packet in container.demux(video=0) if packet.size].count(None) == 1
    hurt = range(keyframe - 10, keyframe + 25)  # from where the stream broke off to the next keyframe, in whole windows
    for fps, sampled_frames in (("all", range(60)), ("5", range(1, 60, 5))):
        reader = VideoReader(path, extraction=Extraction(fps=fps, segment_frames=2))
        seen = [frame for number in range(reader.last_window() + 1) for frame in reader.read(number)]
        numbers = [read_index(frame.image) for frame in seen]
        assert numbers == [round(frame.timestamp * 25) for frame in seen]
        assert set(sampled_frames) - set(hurt) <= set(numbers)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "mpeg4"])
def test_what_a_decoder_conceals_is_no_data(tmp_path: Path, codec: str) -> None:
    """Transport packets lost at random: whatever still comes out is what was filmed, to the last pixel."""
    path = write_video(tmp_path / "whole.ts", frames=60, codec=codec, gop=12)
    data = path.read_bytes()
    whole, errors = every_frame(path)
    assert (len(whole), errors) == (60, 0)
    video = data[pes_starts(data)[0] + 1] & 31, data[pes_starts(data)[0] + 2]
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    ours = [number for number, packet in enumerate(packets) if (packet[1] & 31, packet[2]) == video]
    told = kept = 0
    for seed in range(6):
        lost = set(random.Random(seed).sample(ours[3:], 2))
        (tmp_path / "lost.ts").write_bytes(b"".join(p for n, p in enumerate(packets) if n not in lost))
        seen, errors = every_frame(tmp_path / "lost.ts")
        for index, image in seen.items():
            np.testing.assert_array_equal(image, whole[index])
        kept += len(seen)
        told += errors > 0
    assert told == 6
    assert kept > 120


def every_frame(path: Path) -> tuple[dict[int, NDArray[np.uint8]], int]:
    """What all windows of a video give, by what is to be seen in it, and how many of them end in an error."""
    reader = VideoReader(path, extraction=Extraction(fps="all", segment_frames=6))
    windows = [reader.read(number) for number in range(reader.end_window() + 1)]
    seen = {read_index(frame.image): frame.image for window in windows for frame in window}
    return seen, sum(window.error is not None for window in windows)
