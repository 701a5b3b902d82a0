"""Videos that are valid and odd, or lie about themselves: streams, sizes, rotation, pixel formats, times, lengths."""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.errors import ErrorCode
from tests.hostile import originals
from tests.hostile.boxes import box, edited
from tests.hostile.case import Case, Outcome, content, damaged, partly, refused, right
from tests.hostile.originals import FPS, FRAMES, SIDE, SIGHTS, encoded, face_frame

E = ErrorCode
WAYS = ("quarter", "half", "three quarters")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _streams()
    yield from _pictures_in_videos()
    yield from _times()
    yield from _lies()


def _streams() -> Iterator[Case]:
    yield _case("audio-only-mp4", ".mp4", _audio(".mp4"), refused(E.UNSUPPORTED))
    yield _case("audio-only-mkv", ".mkv", _audio(".mkv"), refused(E.UNSUPPORTED))
    yield _case("no-frame-mp4", ".mp4", _without_frames(".mp4"), refused(E.CORRUPT, E.UNSUPPORTED))
    yield _case("no-frame-mkv", ".mkv", _without_frames(".mkv"), refused(E.CORRUPT, E.UNSUPPORTED))
    yield _case("no-frame-avi", ".avi", _without_frames(".avi"), refused(E.CORRUPT, E.UNSUPPORTED, E.TRUNCATED))
    yield _case("header-alone", ".mp4", box(b"ftyp", b"isom\0\0\2\0isom"), refused(E.CORRUPT, E.TRUNCATED))
    yield _case("with-sound", ".mp4", encoded(".mp4", with_audio=True), right(SIGHTS))
    two = _muxed(".mkv", [(SIDE, SIDE, FRAMES), (64, 64, FRAMES)])
    yield _case("two-video-streams", ".mkv", two, right(SIGHTS), rows={"frame_width": SIDE})
    yield _case("two-video-streams-mp4", ".mp4", _muxed(".mp4", [(SIDE, SIDE, FRAMES), (64, 64, 3)]), right(SIGHTS))


def _pictures_in_videos() -> Iterator[Case]:
    for number, way in enumerate(WAYS, 1):
        data = encoded(".mp4", rotation=90 * number, height=160)
        rows = {"frame_width": SIDE, "frame_height": 160}
        yield _case(f"turned-{way.replace(' ', '-')}", ".mp4", data, right(SIGHTS), rows=rows)
    for suffix, codec in ((".ts", "libx264"), (".webm", "libvpx-vp9"), (".mkv", "libx264")):
        data = _resized(suffix, codec, ((SIDE, SIDE), (256, 224), (SIDE, SIDE)))
        yield _case(f"size-changes-{codec}-{suffix[1:]}", suffix, data, right(SIGHTS))
    for codec, pixels, suffix in (
        ("libx264", "yuv444p", ".mp4"),
        ("libx264", "yuv422p10le", ".mp4"),
        ("libx264", "gray", ".mkv"),
        ("libx264", "nv12", ".mp4"),
        ("libx265", "yuv420p10le", ".mp4"),
        ("libx265", "gbrp", ".mp4"),
        ("libvpx-vp9", "yuva420p", ".webm"),
        ("ffv1", "bgr0", ".mkv"),
        ("ffv1", "gray16le", ".mkv"),
        ("png", "rgba", ".mov"),
        ("png", "monob", ".mov"),
        ("rawvideo", "rgb24", ".avi"),
        ("prores_ks", "yuv422p10le", ".mov"),
        ("qtrle", "rgb24", ".mov"),
    ):
        outcome = right(SIGHTS) if pixels != "monob" else damaged(SIGHTS)
        data = _muxed(suffix, [(SIDE, SIDE, FRAMES)], codec=codec, pixels=pixels)
        yield _case(f"{codec}-{pixels}", suffix, data, outcome)
    yield _case("odd-size", ".mkv", _muxed(".mkv", [(191, 193, FRAMES)], codec="ffv1", pixels="bgr0"), right(SIGHTS))
    tiny = _muxed(".mkv", [(2, 2, FRAMES)], codec="ffv1", pixels="bgr0")
    yield _case("two-pixels-square", ".mkv", tiny, right(SIGHTS, faces=0))
    thin = _muxed(".mkv", [(2, 16000, 2)], codec="ffv1", pixels="bgr0")
    yield _case("two-pixels-wide", ".mkv", thin, right(SIGHTS[:2], faces=0))


def _times() -> Iterator[Case]:
    at = Fraction(1, 1000)
    late = [1_000_000 + index * 100 for index in range(FRAMES)]
    early = [-500 + index * 100 for index in range(FRAMES)]
    gap = [index * 100 + (3_600_000 if index > 5 else 0) for index in range(FRAMES)]
    seen_gap = [(index, round(time / 1000, 4)) for index, time in enumerate(gap)]
    for suffix in (".mkv", ".mp4"):
        yield _case(f"starts-late-{suffix[1:]}", suffix, _timed(suffix, late, at), right(SIGHTS))
        # in MP4 an edit list begins at zero, and what is before it is not shown
        shown = SIGHTS if suffix == ".mkv" else SIGHTS[:7]
        yield _case(f"negative-times-{suffix[1:]}", suffix, _timed(suffix, early, at), right(shown))
    yield _case("an-hour-between", ".mkv", _timed(".mkv", gap, at), right(seen_gap))
    doubled = [index // 2 * 200 for index in range(FRAMES)]
    yield _case("each-time-twice", ".mkv", _timed(".mkv", doubled, at, b_frames=0), damaged(None, E.CORRUPT))
    yield _case("no-times-avi", ".avi", encoded(".avi", "mpeg4", b_frames=2), right(SIGHTS))
    yield _case("no-times-h264-avi", ".avi", encoded(".avi", "libx264", b_frames=2), right(SIGHTS))
    yield _case("one-frame", ".mp4", encoded(".mp4", frames=1), right(SIGHTS[:1]))
    joined = encoded(".ts", b_frames=0) + encoded(".ts", b_frames=0)
    yield _case("time-starts-again", ".ts", joined, damaged(None, E.CORRUPT))
    backwards = _timed(".mkv", [1_000, 0, 2_000, 500], at, b_frames=0)
    yield _case("times-go-back", ".mkv", backwards, partly(SIGHTS[:1], E.CORRUPT))
    late = _timed(".mkv", [0, 100, 200, 300, 400, 250, 500, 600, 700, 800], at, b_frames=0)
    yield _case("a-time-goes-back", ".mkv", late, partly(SIGHTS[:5], E.CORRUPT))


def _lies() -> Iterator[Case]:
    original = encoded(".mov", "libx264", b_frames=0, container_options={"use_editlist": "0"})
    media = (b"moov", b"trak", b"mdia")
    table = (*media, b"minf", b"stbl")

    def patched(path: Sequence[bytes], offset: int, value: bytes) -> bytes:
        return edited(original, path, lambda old: old[:offset] + value + old[offset + len(value) :])

    most = struct.pack(">I", 0xFFFFFFFF)
    long = struct.pack(">I", 0x7FFFFFFF)
    broken = (E.CORRUPT, E.TRUNCATED, E.TOO_LARGE, E.UNSUPPORTED)
    # a second of video that says it lasts for decades, then a frame that really is shown after decades
    yield _case("says-it-lasts-for-decades", ".mov", patched((*media, b"mdhd"), 16, long), right(SIGHTS))
    slow = edited(original, (*table, b"stts"), lambda _: struct.pack(">IIII", 0, 1, FRAMES, 0x7FFFFFFF))
    yield _case("a-frame-a-day", ".mov", slow, damaged(None, *broken))
    slower = edited(slow, (*media, b"mdhd"), lambda old: old[:12] + struct.pack(">I", 1) + old[16:])
    yield _case("a-frame-in-a-lifetime", ".mov", slower, damaged(None, *broken))
    matroska = encoded(".mkv", b_frames=0)
    length = matroska.index(bytes.fromhex("448988"))  # Duration, 8 bytes of float
    for name, value in (("for-ever", 1e300), ("for-an-endless-time", float("inf")), ("for-no-number", float("nan"))):
        data = matroska[: length + 3] + struct.pack(">d", value) + matroska[length + 11 :]
        yield _case(f"says-it-lasts-{name}", ".mkv", data, right(SIGHTS))
    for name, path, offset in (
        ("count-of-sizes", (*table, b"stsz"), 8),
        ("count-of-chunks", (*table, b"stco"), 4),
        ("count-of-runs", (*table, b"stsc"), 4),
        ("count-of-times", (*table, b"stts"), 4),
        ("count-of-descriptions", (*table, b"stsd"), 4),
        ("offset-of-a-chunk", (*table, b"stco"), 8),
    ):
        outcome = damaged(None, *broken, E.OUT_OF_MEMORY)  # FFmpeg asks for as much as the count says, at once
        yield _case(f"endless-{name}", ".mov", patched(path, offset, most), outcome)
    same_size = edited(original, (*table, b"stsz"), lambda old: old[:4] + struct.pack(">II", 1, 0x7FFFFFFF))
    yield _case("two-billion-frames-of-a-byte", ".mov", same_size, damaged(None, *broken))
    unit = patched((*media, b"mdhd"), 12, b"\0\0\0\0")
    yield _case("no-time-unit", ".mov", unit, damaged(None, *broken))
    for width, height in ((0xFFFF, 0xFFFF), (0, 0), (16384, 16384)):
        size = patched((*table, b"stsd"), 8 + 32, struct.pack(">HH", width, height))
        yield _case(f"says-{width}-by-{height}", ".mov", size, damaged(None, *broken))
    pictures = _muxed(".mov", [(SIDE, SIDE, 2)], codec="png", pixels="rgb24")
    header = pictures.index(b"IHDR")
    for side, outcome in ((16384, refused(E.TOO_LARGE, E.CORRUPT)), (9000, damaged(None, *broken))):
        size = b"IHDR" + struct.pack(">II", side, side) + pictures[header + 12 : header + 17]
        huge = pictures[:header] + size + struct.pack(">I", zlib.crc32(size)) + pictures[header + 21 :]
        yield _case(f"frames-of-{side}-square", ".mov", huge, outcome)
    nested = b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + _nested(b"moov", 3000)
    yield _case("boxes-in-boxes", ".mov", nested, refused(*broken))
    rubbish = bytes(np.random.default_rng(5).integers(0, 256, 50_000, np.uint8))
    yield _case("good-head-then-rubbish-ts", ".ts", _packets() + rubbish, damaged(None, *broken))
    yield _case("good-head-then-rubbish-mkv", ".mkv", encoded(".mkv")[:400] + rubbish, damaged(None, *broken))
    yield Case(name="gigabytes-of-nothing", write=_sparse(originals.video("h264-mp4")), outcome=right(SIGHTS))
    yield Case(name="gigabytes-of-zeros", write=_sparse(b""), outcome=refused(E.NOT_MEDIA))


def _case(name: str, suffix: str, data: bytes, outcome: Outcome, **more: Any) -> Case:
    return Case(name=name, write=content(suffix, data), outcome=outcome, **more)


def _written(suffix: str, fill: Callable[[av.container.OutputContainer], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"v{suffix}"
        with av.open(str(path), "w", container_options={"fflags": "bitexact"}) as container:
            fill(container)
        return path.read_bytes()


def _audio(suffix: str) -> bytes:
    def fill(container: av.container.OutputContainer) -> None:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for start in range(0, 8000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return _written(suffix, fill)


def _without_frames(suffix: str) -> bytes:
    def fill(container: av.container.OutputContainer) -> None:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        container.start_encoding()

    return _written(suffix, fill)


def _muxed(
    suffix: str, streams: Sequence[tuple[int, int, int]], *, codec: str = "libx264", pixels: str = "yuv420p"
) -> bytes:
    """(width, height, frames) of each stream, in one container."""

    def fill(container: av.container.OutputContainer) -> None:
        added = []
        for width, height, _ in streams:
            stream = container.add_stream(codec, rate=FPS)
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            stream.codec_context.thread_count = 1
            if codec == "libx265":
                stream.options = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
            added.append(stream)
        for stream, (width, height, frames) in zip(added, streams, strict=True):
            for index in range(frames):
                image = av.VideoFrame.from_ndarray(face_frame(index, width, height), format="rgb24")
                frame = image.reformat(format=pixels)
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return _written(suffix, fill)


def _resized(suffix: str, codec: str, sizes: Sequence[tuple[int, int]]) -> bytes:
    """One stream whose pictures change size: an encoder per size, all into the same stream."""
    each = FRAMES // len(sizes)

    def fill(container: av.container.OutputContainer) -> None:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuv420p"
        stream.codec_context.thread_count = 1
        container.start_encoding()
        for number, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create(codec, "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.thread_count = Fraction(1, FPS), 1
            if codec == "libx264":
                encoder.options = {"bf": "0"}
            frames: list[av.VideoFrame | None] = []
            for index in range(number * each, (number + 1) * each):
                frame = av.VideoFrame.from_ndarray(face_frame(index, width, height), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                frames.append(frame)
            for image in [*frames, None]:
                for packet in encoder.encode(image):
                    packet.stream = stream
                    container.mux(packet)

    return _written(suffix, fill)


def _timed(suffix: str, pts: Sequence[int], time_base: Fraction, *, b_frames: int = 2) -> bytes:
    """Frames at these times, in this order, whatever a player would make of it."""

    def fill(container: av.container.OutputContainer) -> None:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": str(b_frames), "preset": "ultrafast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = time_base
        packets = []
        for index in range(len(pts)):
            frame = av.VideoFrame.from_ndarray(face_frame(index), format="rgb24")
            frame.pts, frame.time_base = index, time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for number, packet in enumerate(packets):
            packet.pts, packet.dts = pts[packet.pts], min(pts) - 10 * len(pts) + number  # muxers want dts to ascend
            packet.time_base = time_base
            container.mux_one(packet)

    return _written(suffix, fill)


def _nested(kind: bytes, depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = box(kind, data)
    return data


def _packets() -> bytes:
    return originals.video("h264-ts")[: 188 * 20]


def _sparse(tail: bytes) -> Callable[[Path], Path]:
    """A box of 8 GB that is a hole, after the video; or nothing but the hole. It takes no room on the disk."""

    def write(folder: Path) -> Path:
        path = folder / "file.mp4"
        size = 8 << 30
        with path.open("wb") as file:
            file.write(tail)
            if tail:
                file.write(struct.pack(">I4sQ", 1, b"free", size))
            file.truncate(len(tail) + size)
        return path

    return write
