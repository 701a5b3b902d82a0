"""Small undamaged media of every supported kind, as bytes: what the corpus damages, renames and packs."""

from __future__ import annotations

import functools
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import DEMO_MEDIA
from tests.hostile.case import Sight
from tests.media import write_tar, write_video, write_zip

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints its settings otherwise

SIDE = 192
FRAMES, FPS = 12, 10
#: Of every video here, sampled at FPS.
SIGHTS: tuple[Sight, ...] = tuple((index, round(index / FPS, 4)) for index in range(FRAMES))

#: name -> suffix, codec, encoder options, container options
VIDEOS: dict[str, tuple[str, str, dict[str, str], dict[str, str]]] = {
    "h264-mp4": (".mp4", "libx264", {}, {"movflags": "faststart"}),
    "h264-index-last": (".mp4", "libx264", {}, {}),
    "h264-fragmented": (".mp4", "libx264", {}, {"movflags": "frag_keyframe+empty_moov"}),
    "h264-mov": (".mov", "libx264", {}, {}),
    "h264-mkv": (".mkv", "libx264", {}, {}),
    "h264-ts": (".ts", "libx264", {}, {}),
    "hevc-mp4": (".mp4", "libx265", {}, {"movflags": "faststart"}),
    "hevc-mkv": (".mkv", "libx265", {}, {}),
    "vp8-webm": (".webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}, {}),
    "vp9-webm": (".webm", "libvpx-vp9", {}, {}),
    "av1-mp4": (".mp4", "libsvtav1", {"preset": "13", "svtav1-params": "lp=1"}, {"movflags": "faststart"}),
    "av1-mkv": (".mkv", "libsvtav1", {"preset": "13", "svtav1-params": "lp=1"}, {}),
    "mpeg4-avi": (".avi", "mpeg4", {}, {}),
    "mjpeg-avi": (".avi", "mjpeg", {"qscale": "3", "strict": "unofficial"}, {}),
    "mjpeg-mov": (".mov", "mjpeg", {"qscale": "3", "strict": "unofficial"}, {}),
    "mpeg2-ts": (".ts", "mpeg2video", {}, {}),
}
#: name -> suffix, Pillow's format, options
PICTURES: dict[str, tuple[str, str, dict[str, object]]] = {
    "jpeg": (".jpg", "JPEG", {"quality": 90}),
    "progressive-jpeg": (".jpg", "JPEG", {"quality": 90, "progressive": True}),
    "png": (".png", "PNG", {}),
    "webp": (".webp", "WEBP", {"quality": 90}),
    "lossless-webp": (".webp", "WEBP", {"lossless": True}),
    "gif": (".gif", "GIF", {}),
    "bmp": (".bmp", "BMP", {}),
    "tiff": (".tiff", "TIFF", {}),
    "deflated-tiff": (".tif", "TIFF", {"compression": "tiff_adobe_deflate"}),
}
ARCHIVES = {"tar": ".tar", "tar-gz": ".tar.gz", "zip": ".zip", "stored-zip": ".zip"}
MEMBERS = ("a.jpg", "b.png", "deep/c.jpg", "d.png")


@functools.cache
def portrait(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """One face that the detector finds at any of the sizes used here."""
    return Image.open(DEMO_MEDIA / "astronaut.png").convert("RGB").resize((width, height))


def face_frame(index: int, width: int = SIDE, height: int = SIDE) -> NDArray[np.uint8]:
    """The face, with a mark that moves along the lower edge, so that no two frames are alike."""
    image = np.array(portrait(width, height))
    image[-8:, (index * 12) % width : (index * 12) % width + 12] = 255
    return image


def encoded(suffix: str, codec: str = "libx264", **options: object) -> bytes:
    """A video by `tests.media.write_video`, with the face in it: FRAMES at FPS unless told otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"frames": FRAMES, "fps": FPS, "width": SIDE, "height": SIDE, "picture": face_frame} | options
        return write_video(Path(folder) / f"v{suffix}", codec=codec, **arguments).read_bytes()  # type: ignore[arg-type]


@functools.cache
def video(name: str) -> bytes:
    """One of VIDEOS."""
    suffix, codec, options, container_options = VIDEOS[name]
    return encoded(suffix, codec, options=options, container_options=container_options, gop=4)


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    """A picture as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@functools.cache
def picture(name: str) -> bytes:
    """One of PICTURES."""
    _, image_format, options = PICTURES[name]
    return saved(portrait(), image_format, **options)


@functools.cache
def archive(name: str) -> bytes:
    """One of ARCHIVES, with MEMBERS."""
    members = [(member, picture("jpeg" if member.endswith("jpg") else "png")) for member in MEMBERS]
    write: Callable[..., Path] = write_zip if name.endswith("zip") else write_tar
    options = {"deflate": name == "zip"} if name.endswith("zip") else {}
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / f"a{ARCHIVES[name]}", members, **options).read_bytes()
