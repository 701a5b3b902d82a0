"""Frames and times of videos against PyAV's plain decoding; every frame's pixels say which one it is."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media import frames_decord
from pipeline.media.sampling import Grid, sample
from pipeline.media.video import VideoReader
from tests.media import damaged, is_upright, read_index, truncated, uneven_pts, write_video

FRAMES = 60
Seen = list[tuple[int, float, int]]  # (frame, timestamp, index read from the pixels)

OPEN_GROUPS = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:scenecut=0", "preset": "veryfast"}
UNEVEN = uneven_pts(FRAMES)
VARIANTS: dict[str, dict[str, object]] = {
    "h264.mp4": {},
    "h264.mov": {"b_frames": 0},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.m2ts": {},
    "h264.flv": {},
    "h264.avi": {},  # AVI has no presentation times, and this one needs them
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 0},
    "hevc.mp4": {"codec": "libx265"},
    "hevc.mov": {"codec": "libx265"},
    "open.mp4": {"options": OPEN_GROUPS, "b_frames": 3},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mpeg2.ts": {"codec": "mpeg2video"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "uneven.mp4": {"pts": UNEVEN, "time_base": Fraction(1, 30000)},
    "uneven.mkv": {"pts": [pts // 30 for pts in UNEVEN], "time_base": Fraction(1, 1000)},
    "late.mp4": {"pts": range(100, 100 + FRAMES), "time_base": Fraction(1, 25)},
    "sound.mp4": {"with_audio": True},
    "refresh.mkv": {
        "options": {"x264-params": "intra-refresh=1:keyint=12:scenecut=0", "preset": "veryfast"},
        "b_frames": 0,
    },
}
DECORD = {
    "h264.mp4",
    "h264.mov",
    "h264.mkv",
    "mpeg4.avi",
    "vp9.webm",
    "uneven.mp4",
    "uneven.mkv",
    "late.mp4",
    "sound.mp4",
}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("video")


def made(media: Path, name: str) -> Path:
    path = media / name
    return path if path.exists() else write_video(path, frames=FRAMES, **VARIANTS[name])  # type: ignore[arg-type]


def window(reader: VideoReader, number: int, *, is_last: bool = False) -> tuple[Seen, ErrorCode | None, bool, bool]:
    frames = reader.read(number, is_last=is_last)
    seen = [(frame.frame, frame.timestamp, read_index(frame.image)) for frame in frames]
    return seen, frames.error.code if frames.error else None, frames.covered, frames.beyond > 0


def everything(reader: VideoReader) -> Seen:
    seen: Seen = []
    number = 0
    while True:
        frames, error, _, more = window(reader, number, is_last=True)
        assert error is None
        seen += frames
        if not more:
            return seen
        number += 1


def plain(path: Path) -> list[tuple[int, Fraction]]:
    """What PyAV gives, read from the first frame to the last: (index in the pixels, seconds from the first frame)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        frames = [(read_index(f.to_ndarray(format="rgb24")), f.pts) for f in container.decode(stream)]
        first = frames[0][1]
        return [(index, (pts - first) * stream.time_base) for index, pts in frames]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("name", VARIANTS)
def test_all_frames_and_times(media: Path, name: str, decoder: str) -> None:
    reader = VideoReader(made(media, name), extraction=Extraction(fps="all", segment_frames=7), decoder=decoder)
    assert reader.decoder == ("decord" if decoder == "decord" and name in DECORD else "pyav")
    seen = everything(reader)
    assert [(frame, index) for frame, _, index in seen] == [(index, index) for index in range(FRAMES)]
    if name == "h264.avi":  # plain PyAV's times are wrong here; frames come every 40 ms
        assert [timestamp for _, timestamp, _ in seen] == [float(Fraction(index, 25)) for index in range(FRAMES)]
    else:
        assert [(index, timestamp) for _, timestamp, index in seen] == [(i, float(t)) for i, t in plain(media / name)]


def test_decord_is_left_out_where_it_could_read_far_ahead(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, extraction = made(media, "h264.mp4"), Extraction(fps="all")
    assert VideoReader(path, extraction=extraction).decoder == "pyav"
    frame_bytes = 192 * 128 * 3
    for limit, decoder in ((FRAMES * frame_bytes, "decord"), (FRAMES * frame_bytes - 1, "pyav")):
        monkeypatch.setattr(frames_decord, "READ_AHEAD_BYTES", limit)
        assert VideoReader(path, extraction=extraction, decoder="decord").decoder == decoder


@pytest.mark.parametrize("fps", ["5", "0.7", "24000/1001"])
@pytest.mark.parametrize(
    "name", ["h264.mp4", "hevc.mp4", "open.mp4", "uneven.mp4", "uneven.mkv", "mpeg2.ts", "refresh.mkv"]
)
def test_sampling_is_that_of_the_grid(media: Path, name: str, fps: str) -> None:
    extraction = Extraction(fps=fps, segment_frames=3)
    reader = VideoReader(made(media, name), extraction=extraction)
    times = [time for _, time in plain(media / name)]
    base = reader.index.time_base
    kept = list(sample([int(time / base) for time in times], Grid(rate=Fraction(fps), time_base=base)))
    assert everything(reader) == [(index, float(times[index]), index) for index in kept]


@pytest.mark.parametrize(
    "name", ["h264.mp4", "hevc.mov", "open.mp4", "h264.ts", "h264.avi", "uneven.mkv", "refresh.mkv"]
)
@pytest.mark.parametrize("fps", ["all", "4"])
def test_windows_give_the_same_in_any_order(media: Path, name: str, fps: str) -> None:
    extraction = Extraction(fps=fps, segment_frames=4)
    reader = VideoReader(made(media, name), extraction=extraction)
    numbers = list(range(reader.end_window() + 2))
    in_order = {number: window(reader, number) for number in numbers}
    random.Random(3).shuffle(numbers)
    again = VideoReader(made(media, name), extraction=extraction)
    assert {number: window(again, number) for number in numbers} == in_order


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_frames_are_upright(media: Path, rotation: int, decoder: str) -> None:
    path = media / f"{rotation}.mp4"
    if not path.exists():
        write_video(path, frames=6, rotation=rotation)
    for frame in VideoReader(path, extraction=Extraction(fps="all"), decoder=decoder).read(0):
        assert is_upright(frame.image)
        assert read_index(frame.image) == frame.frame
        assert frame.image.flags["C_CONTIGUOUS"]
        assert frame.image.dtype == np.uint8


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts", "mpeg4.avi"])
@pytest.mark.parametrize("fps", ["all", "10"])
def test_a_truncated_file_keeps_what_is_before_its_end(media: Path, name: str, fps: str) -> None:
    whole = media / f"front-{name}"
    if not whole.exists():
        front = {"movflags": "faststart"} if name.endswith("mp4") else {}
        write_video(whole, frames=FRAMES, **{**VARIANTS[name], "b_frames": 0, "container_options": front})  # type: ignore[arg-type]
    path = truncated(whole, media / f"cut-{name}", 0.6)
    extraction = Extraction(fps=fps, segment_frames=6)
    reader = VideoReader(path, extraction=extraction)
    windows = [window(reader, number) for number in range(9 if fps == "all" else 5)]
    seen = [frame for frames, *_ in windows for frame in frames]
    assert seen
    assert all(frame == index for frame, _, index in seen)
    assert seen == everything(VideoReader(whole, extraction=extraction))[: len(seen)]
    errors = [number for number, (_, error, _, _) in enumerate(windows) if error is not None]
    assert errors == list(range(errors[0], len(windows)))  # everything behind the break, nothing before it
    assert {windows[number][1] for number in errors} == {ErrorCode.TRUNCATED}
    # one partial row at most, one error row, and the rest is covered
    reported = [number for number in errors if not windows[number][2]]
    partial = [number for number in errors if windows[number][0]]
    assert reported == [*partial, reported[-1]]
    assert len(partial) <= 1
    backwards = VideoReader(path, extraction=extraction)
    assert [window(backwards, number) for number in reversed(range(len(windows)))] == windows[::-1]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_damage_in_the_middle_costs_its_group_of_frames_only(media: Path, decoder: str) -> None:
    path = damaged(made(media, "h264.mp4"), media / "damaged.mp4", start=0.5, stop=0.55)
    extraction = Extraction(fps="all", segment_frames=6)
    reader = VideoReader(path, extraction=extraction, decoder=decoder)
    windows = [window(reader, number) for number in range(10)]
    seen = [frame for frames, *_ in windows for frame in frames]
    assert all(frame == index for frame, _, index in seen)
    assert FRAMES - 24 <= len(seen) < FRAMES
    assert {error for _, error, _, _ in windows} == {None, ErrorCode.CORRUPT}
    backwards = VideoReader(path, extraction=extraction, decoder=decoder)
    assert [window(backwards, number) for number in reversed(range(10))] == windows[::-1]


def test_the_two_decoders_agree_about_damage(media: Path) -> None:
    source = made(media, "h264.mp4")
    size = source.stat().st_size
    for seed in range(12):
        start = random.Random(seed).uniform(0.1, 0.8)
        path = damaged(source, media / "hurt.mp4", start=start, stop=start + (1, 8, 200)[seed % 3] / size, seed=seed)
        extraction = Extraction(fps="10", segment_frames=5)
        both = []
        for decoder in ("decord", "pyav"):
            try:
                reader = VideoReader(path, extraction=extraction, decoder=decoder)
                both.append([window(reader, number) for number in range(5)])
            except MediaError as error:
                both.append([error.code])  # type: ignore[list-item]
        assert both[0] == both[1], seed


def test_leading_frames_that_cannot_be_decoded_are_not_counted(media: Path) -> None:
    """A cut from a longer stream: its first frames refer to what is not there. decord repeats others for them."""
    whole = made(media, "mpeg2.ts")
    path = media / "headless.ts"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        keys = 0
        for packet in source.demux(stream):
            keys += packet.is_keyframe
            if keys > 1 and packet.size:
                packet.stream = copy
                target.mux(packet)
    reader = VideoReader(path, extraction=Extraction(fps="all"))
    indices = [index for _, _, index in everything(reader)]
    assert indices == list(range(indices[0], FRAMES))
    assert [frame for frame, _, _ in everything(reader)] == list(range(len(indices)))
    assert everything(reader)[0][1] == 0.0


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "h264.mkv"])
def test_a_title_that_is_not_utf_8_costs_no_frame(media: Path, name: str) -> None:
    path = media / f"titled-{name}"
    with av.open(str(made(media, name))) as source, av.open(str(path), "w") as target:
        target.metadata["title"] = "Cafe at noon"
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    content = path.read_bytes()
    assert b"Cafe at noon" in content
    path.write_bytes(content.replace(b"Cafe at noon", "Café at noon".encode("latin-1")))
    seen = everything(VideoReader(path, extraction=Extraction(fps="all")))
    assert [index for _, _, index in seen] == list(range(FRAMES))


def test_a_last_window_tells_how_many_follow(media: Path) -> None:
    reader = VideoReader(made(media, "h264.mp4"), extraction=Extraction(fps="5", segment_frames=4))
    assert reader.read(0, is_last=True).beyond == 3  # 60 frames at 25 fps: points 0 to 12
    assert reader.read(0, is_last=False).beyond == 0
    assert [reader.read(window, is_last=True).beyond for window in (2, 3, 9)] == [1, 0, 0]
    every_frame = VideoReader(made(media, "h264.mp4"), extraction=Extraction(fps="all", segment_frames=10))
    assert [every_frame.read(window, is_last=True).beyond for window in (0, 4, 5, 6)] == [5, 1, 0, 0]


@pytest.mark.parametrize(("fps", "segment_frames", "kept"), [("all", 8, list(range(20))), ("5", 3, [0, 1, 6, 11, 16])])
def test_frames_before_a_time_that_goes_back_are_kept_and_the_others_are_counted(
    media: Path, fps: str, segment_frames: int, kept: list[int]
) -> None:
    sound = write_video(media / "sound.mkv", frames=FRAMES, b_frames=0)
    path = remuxed(sound, media / "back.mkv", times=[*range(0, 800, 40), 90, *range(840, 2400, 40)])
    reader = VideoReader(path, extraction=Extraction(fps=fps, segment_frames=segment_frames))
    windows = [window(reader, number, is_last=True) for number in range(reader.last_window() + 3)]
    assert [index for frames, *_ in windows for _, _, index in frames] == kept
    assert [error for _, error, *_ in windows] == [None] * (len(windows) - 3) + [ErrorCode.CORRUPT] * 3
    assert [covered for *_, covered, _ in windows] == [False] * (len(windows) - 1) + [True]
    last = reader.read(reader.last_window())
    assert list(last)
    assert "after 0.760 s; 40 frames from there on are left out" in str(last.error)


@pytest.mark.parametrize("fps", ["all", "12.5"])
def test_a_frame_that_the_decoder_leaves_out_is_told(media: Path, fps: str) -> None:
    sound = write_video(media / "sound-hevc.mkv", frames=36, codec="libx265", b_frames=0)
    delimiter = bytes.fromhex("00000003460110")  # a packet without a picture; HEVC's decoder has nothing to say of it
    path = remuxed(sound, media / "left-out.mkv", replaced={23: delimiter})
    frames = VideoReader(path, extraction=Extraction(fps=fps, segment_frames=40)).read(0)
    seen = [read_index(frame.image) for frame in frames]
    # the next frame of the same grid point, if there is one, is shown as what it is
    expected = {"all": [*range(23), *range(24, 36)], "12.5": [0, *range(1, 23, 2), 24, *range(25, 36, 2)]}
    assert seen == expected[fps]
    assert frames.error is not None
    assert "nothing for 1 frames of window 0, the first at 0.920 s" in frames.error.message


@pytest.mark.parametrize("codec", ["libvpx", "mpeg4"])
def test_packets_that_are_not_to_be_shown_are_no_frames(media: Path, codec: str) -> None:
    sound = write_video(media / f"sound-{codec}.mkv", frames=30, codec=codec, b_frames=0)
    with av.open(str(sound)) as container:
        data = [bytes(packet) for packet in container.demux(video=0)][14]
    hidden = bytes([data[0] & ~0x10]) + data[1:] if codec == "libvpx" else bytes.fromhex("000001b650c37f")
    reader = VideoReader(
        remuxed(sound, media / f"hidden-{codec}.mkv", replaced={14: hidden}), extraction=Extraction(fps="all")
    )
    frames = reader.read(0)
    seen = [(frame.frame, frame.timestamp) for frame in frames]
    assert frames.error is None
    assert seen == [(at, number / 25) for at, number in enumerate([*range(14), *range(15, 30)])]


def remuxed(
    source: Path, target: Path, *, times: list[int] | None = None, replaced: dict[int, bytes] | None = None
) -> Path:
    """The same packets, by place in the file: at these times in milliseconds, or some of them other ones."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            put = av.Packet((replaced or {}).get(number, bytes(packet)))
            put.stream, put.time_base, put.is_keyframe = stream, Fraction(1, 1000), packet.is_keyframe
            put.pts, put.dts = times[number] if times else packet.pts, number - 1000  # muxers want dts to ascend
            new.mux_one(put)
    return target


def test_windows_beyond_the_end_are_empty(media: Path) -> None:
    reader = VideoReader(made(media, "h264.mp4"), extraction=Extraction(fps="all", segment_frames=32))
    assert window(reader, 2) == ([], None, False, False)
    assert window(reader, 900) == ([], None, False, False)


def test_a_sparse_video_has_empty_windows(media: Path) -> None:
    path = write_video(media / "sparse.mp4", frames=4, pts=[0, 25, 2500, 2525], time_base=Fraction(1, 25))
    reader = VideoReader(path, extraction=Extraction(fps="5", segment_frames=10))
    assert [frame for frame, _, _ in window(reader, 0)[0]] == [0, 1]
    assert window(reader, 20) == ([], None, False, False)
    assert [time for _, time, _ in window(reader, 50)[0]] == [100.0, 101.0]


def refused(path: Path, data: bytes, **extraction: int) -> MediaError:
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        VideoReader(path, extraction=Extraction(**extraction))  # type: ignore[arg-type]
    return caught.value


def test_what_is_no_video_is_refused_by_its_first_bytes(media: Path) -> None:
    path = media / "refused.mp4"
    assert refused(path, b"").code == ErrorCode.NOT_MEDIA
    assert refused(path, b"words " * 100).code == ErrorCode.NOT_MEDIA
    for playlist in (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">',
    ):
        error = refused(path, playlist)
        assert error.code == ErrorCode.UNSUPPORTED
        assert "give the media files themselves" in error.message


def test_a_header_without_its_data(media: Path) -> None:
    whole = made(media, "h264.mp4").read_bytes()  # the index is at the end
    path = media / "refused.mp4"
    assert refused(path, whole[: len(whole) // 2]).code == ErrorCode.TRUNCATED
    assert refused(path, whole[:40] + bytes(2000)).code in (ErrorCode.CORRUPT, ErrorCode.TRUNCATED)


def test_sound_only_and_too_many_pixels(media: Path) -> None:
    path = media / "sound-only.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    error = refused(media / "refused.mp4", path.read_bytes())
    assert error.code == ErrorCode.UNSUPPORTED
    assert "sound only" in error.message
    error = refused(media / "refused.mp4", made(media, "h264.mp4").read_bytes(), max_pixels=1000)
    assert error.code == ErrorCode.TOO_LARGE
    assert "192x128" in error.message


def test_real_media(shared_media: Path) -> None:
    counts = {}
    for name in ("white_house_clip.mp4", "wolfgang_pexels.mp4"):
        reader = VideoReader(shared_media / name, extraction=Extraction(fps="5"), decoder="decord")
        frames = [frame for number in range(reader.end_window() + 1) for frame in reader.read(number)]
        counts[name] = (len(reader.index), len(frames), frames[0].timestamp, reader.decoder)
    # the first frame of one is shown at .852 s: times count from it
    assert counts["white_house_clip.mp4"] == (275, 47, 0.0, "decord")
    assert counts["wolfgang_pexels.mp4"] == (472, 100, 0.0, "decord")
