"""Frames as they are meant to be seen: upright, not mirrored, with square pixels, and in their colours."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import Extraction
from pipeline.media.probe import probe_source
from pipeline.media.scratch import Scratch
from pipeline.media.sources import list_sources
from pipeline.media.video import VideoReader
from tests.media import HEIGHT, WIDTH, is_upright, read_index, write_video

PATCHES = ((220, 20, 20), (20, 220, 20), (20, 20, 220), (200, 180, 40), (128, 128, 128), (250, 250, 250))


def frames(path: Path, decoder: str = "pyav") -> tuple[list[NDArray[np.uint8]], str]:
    reader = VideoReader(path, extraction=Extraction(fps="all"), decoder=decoder)
    images = [frame.image for frame in reader.read(0)]
    return images, reader.decoder


def probed_size(path: Path, tmp_path: Path) -> tuple[int, int]:
    (source,) = list_sources([str(path)]).sources
    row = probe_source(source, scratch=Scratch(str(tmp_path / "scratch")), extraction=Extraction())
    return row["width"], row["height"]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_ways_to_lie_are_undone(tmp_path: Path, orientation: int, decoder: str) -> None:
    path = write_video(tmp_path / "a.mp4", frames=4, orientation=orientation)
    images, used = frames(path, decoder)
    assert [read_index(image) for image in images] == [0, 1, 2, 3]
    assert all(is_upright(image) and image.flags["C_CONTIGUOUS"] for image in images)
    assert used == ("decord" if decoder == "decord" and orientation in (1, 3, 6, 8) else "pyav")
    assert probed_size(path, tmp_path) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize(
    ("name", "aspect", "orientation", "size"),
    [
        ("wide.mp4", Fraction(16, 11), 1, (279, 128)),
        ("tall.mkv", Fraction(8, 9), 1, (192, 144)),
        ("turned.mov", Fraction(16, 11), 6, (192, 186)),  # stored 128x192; widened to 186x192, then turned
        ("nearly.mp4", Fraction(3903, 3904), 1, (192, 128)),
        ("damage.mp4", Fraction(1, 200), 1, (192, 128)),
    ],
)
def test_pixels_become_square(
    tmp_path: Path, name: str, aspect: Fraction, orientation: int, size: tuple[int, int], decoder: str
) -> None:
    path = write_video(tmp_path / name, frames=2, pixel_aspect=aspect, orientation=orientation)
    images, used = frames(path, decoder)
    assert {(image.shape[1], image.shape[0]) for image in images} == {size}
    assert all(is_upright(image) for image in images)
    assert used == (decoder if size == (192, 128) else "pyav")
    assert probed_size(path, tmp_path) == size
    if name == "wide.mp4":  # a mark that was 16 wide and 16 high is 23 wide now
        red = images[0][:, :, 0].astype(int) - images[0][:, :, 1] > 100
        assert (int(red[8].sum()), int(red[:, 8].sum())) == (pytest.approx(23, abs=2), pytest.approx(16, abs=2))


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix", "size"),
    [
        ("libx264", "yuv444p", "mp4", (192, 128)),
        ("libx264", "yuv422p", "mkv", (192, 128)),
        ("libx264", "yuv420p10le", "mp4", (192, 128)),
        ("libx264", "gray", "mkv", (192, 128)),
        ("libx265", "yuv420p10le", "mp4", (192, 128)),
        ("libx264", "yuv444p", "mp4", (191, 127)),
        ("libvpx-vp9", "yuv420p", "webm", (191, 127)),
        ("libvpx-vp9", "yuva420p", "webm", (192, 128)),
        ("mjpeg", "yuvj420p", "avi", (192, 128)),
        ("mjpeg", "yuvj422p", "mov", (191, 127)),
        ("prores_ks", "yuv422p10le", "mov", (192, 128)),
        ("ffv1", "bgr0", "mkv", (192, 128)),
        ("png", "rgb24", "mov", (192, 128)),
    ],
)
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_every_pixel_format(
    tmp_path: Path, codec: str, pix_fmt: str, suffix: str, size: tuple[int, int], decoder: str
) -> None:
    path = write_video(
        tmp_path / f"a.{suffix}", frames=6, codec=codec, pix_fmt=pix_fmt, width=size[0], height=size[1], gop=3
    )
    images, _ = frames(path, decoder)
    assert [read_index(image) for image in images] == list(range(6))
    assert {(image.shape[1], image.shape[0]) for image in images} == {size}
    assert pix_fmt == "gray" or all(is_upright(image) for image in images)


def test_interlaced_frames_are_whole(tmp_path: Path) -> None:
    options = {"x264-params": "interlaced=1:tff=1:bframes=2:keyint=12", "preset": "veryfast"}
    path = write_video(tmp_path / "a.ts", frames=24, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    images, _ = frames(path)
    assert [read_index(image) for image in images] == list(range(24))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("full", [False, True], ids=["narrow", "full"])
@pytest.mark.parametrize("standard", ["bt601", "bt709", "bt2020", "untagged"])
def test_colours_are_those_of_the_stream(tmp_path: Path, standard: str, full: bool, decoder: str) -> None:
    path = tmp_path / "a.mkv"
    write_patches(path, standard, full and standard != "untagged")
    (image,), _ = frames(path, decoder)
    width = image.shape[1] // len(PATCHES)
    for at, colour in enumerate(PATCHES):
        seen = image[48:80, at * width + 8 : (at + 1) * width - 8].reshape(-1, 3).mean(0)
        assert seen == pytest.approx(colour, abs=2)


def write_patches(path: Path, standard: str, full: bool) -> None:
    """One frame of upright bars, made by the standard's own formula (ITU-R BT.601, BT.709 and BT.2020)."""
    red, blue = {"bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}.get(standard, (0.299, 0.114))
    r, g, b = np.repeat(np.array(PATCHES, float) / 255, 32, axis=0).T
    luma = red * r + (1 - red - blue) * g + blue * b
    planes = [luma, (b - luma) / (2 - 2 * blue) + 0.5, (r - luma) / (2 - 2 * red) + 0.5]
    if not full:
        planes = [16 / 255 + planes[0] * 219 / 255, *(128 / 255 + (plane - 0.5) * 224 / 255 for plane in planes[1:])]
    elif full:
        planes[1:] = [plane + 0.5 / 255 for plane in planes[1:]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv444p"
        frame = av.VideoFrame(192, 128, "yuv444p")
        for plane, values in zip(frame.planes, planes, strict=True):
            rows = np.zeros((128, plane.line_size), np.uint8)
            rows[:, :192] = np.round(values * 255).clip(0, 255)
            plane.update(rows)
        if standard != "untagged":
            matrix = {"bt601": 6, "bt709": 1, "bt2020": 9}[standard]
            for target in (stream.codec_context, frame):
                target.colorspace, target.color_range = matrix, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
