"""Small test media whose frames say who they are: every picture carries its own index as black and white blocks.

Nothing here is read from outside: videos are encoded with PyAV, pictures with Pillow. Encoders run on one thread, with
no dates in the headers, so the same call gives the same bytes.
"""

from __future__ import annotations

import io
import os
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 192, 128
BLOCK = 16
BITS = 16


def coded_frame(index: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """RGB: red top left, green top right, blue bottom left, `index` as 2x8 blocks in the middle, and a texture."""
    rows, columns = np.mgrid[0:height, 0:width]
    grey = ((rows * 3 + columns * 2 + index * 5) % 120 + 40).astype(np.uint8)
    image = np.repeat(grey[:, :, None], 3, axis=2)
    image[:BLOCK, :BLOCK] = (220, 20, 20)
    image[:BLOCK, -BLOCK:] = (20, 220, 20)
    image[-BLOCK:, :BLOCK] = (20, 20, 220)
    for bit in range(BITS):
        y, x = _block(bit, width, height)
        image[y : y + BLOCK, x : x + BLOCK] = 235 if index >> bit & 1 else 20
    return image


def read_index(image: NDArray[np.uint8]) -> int:
    """The index that `coded_frame` put into the picture; the picture must be upright and at its original size."""
    height, width = image.shape[:2]
    index = 0
    for bit in range(BITS):
        y, x = _block(bit, width, height)
        if image[y + 4 : y + BLOCK - 4, x + 4 : x + BLOCK - 4].mean() > 128:
            index |= 1 << bit
    return index


def is_upright(image: NDArray[np.uint8]) -> bool:
    """Whether the corner marks are where `coded_frame` put them."""
    inner = BLOCK // 2
    corners = (image[inner, inner], image[inner, -inner], image[-inner, inner])
    return all(int(corner.argmax()) == channel and corner.max() > 128 for channel, corner in enumerate(corners))


def _block(bit: int, width: int, height: int) -> tuple[int, int]:
    top, left = height // 2 - BLOCK, width // 2 - 4 * BLOCK
    return top + bit // 8 * BLOCK, left + bit % 8 * BLOCK


def write_video(
    path: Path,
    *,
    frames: int = 60,
    fps: Fraction | int = 25,
    codec: str = "libx264",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    gop: int = 12,
    b_frames: int = 2,
    rotation: int = 0,
    orientation: int = 1,
    pixel_aspect: Fraction | None = None,
    pix_fmt: str = "yuv420p",
    width: int = WIDTH,
    height: int = HEIGHT,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    with_audio: bool = False,
    picture: Callable[[int], NDArray[np.uint8]] | None = None,
) -> Path:
    """Encodes frames 0..frames-1 of `coded_frame`; the suffix of `path` decides the container.

    pts: explicit presentation times in units of time_base (variable rate); otherwise 0, 1, 2... at `fps`.
    rotation: clockwise degrees by which a player must turn the stored picture; the stored picture is turned against it,
    so that the upright picture is `coded_frame` of width x height. orientation: the same, by EXIF's eight numbers.
    pixel_aspect: what the stream says of its pixels' shape; the frames are not changed.
    """
    time_base = time_base or 1 / Fraction(fps)
    pts = range(frames) if pts is None else pts
    with av.open(str(path), "w", container_options={"fflags": "bitexact", **(container_options or {})}) as container:
        stream = container.add_stream(
            codec, rate=Fraction(fps), options=_encoder_options(codec, gop, b_frames, options)
        )
        sideways = rotation % 180 or orientation > 4
        stream.width, stream.height = (height, width) if sideways else (width, height)
        only = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}  # what the encoder takes, where that isn't yuv420p
        stream.pix_fmt = only.get(codec, pix_fmt) if pix_fmt == "yuv420p" else pix_fmt
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(-rotation)
        if orientation != 1:
            a, b, c, d = _MATRICES[orientation]
            stream.set_display_matrix([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        audio = container.add_stream("aac", rate=8000, layout="mono") if with_audio else None
        for index, time in zip(range(frames), pts, strict=False):
            upright = picture(index) if picture else coded_frame(index, width, height)
            stored = np.asarray(_stored(Image.fromarray(upright), orientation))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(stored, rotation // 90)), format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            for packet in _silence(audio, 8000):
                container.mux(packet)
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # As root it makes this process a real-time one, for good, and everything that is started later: Ray's
        # workers, with which nothing else on the machine gets a turn.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


# x' = a·x + c·y, y' = b·x + d·y takes a stored pixel to where it is shown
_MATRICES = {
    2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1), 5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}  # fmt: skip


def _stored(upright: Image.Image, orientation: int) -> Image.Image:
    """The picture that EXIF's `orientation` makes upright again."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return upright if orientation == 1 else upright.transpose(undo[orientation])


def _encoder_options(codec: str, gop: int, b_frames: int, options: dict[str, str] | None) -> dict[str, str]:
    base = {"g": str(gop), "threads": "1"}
    if codec == "libx264":
        base |= {"preset": "ultrafast", "crf": "20", "bf": str(b_frames), "sc_threshold": "0"}
    elif codec == "libx265":
        params = (
            f"log-level=none:pools=none:frame-threads=1:keyint={gop}:min-keyint={gop}:bframes={b_frames}:scenecut=0"
        )
        base |= {"preset": "ultrafast", "crf": "20", "x265-params": params}
    elif codec in ("mpeg4", "mpeg2video"):
        base |= {"bf": str(b_frames), "qscale": "2", "flags": "+bitexact"}
    elif codec in ("libvpx", "libvpx-vp9"):
        base |= {"deadline": "realtime", "cpu-used": "8", "b": "2M"}
    elif codec == "libsvtav1":
        base |= {"preset": "8", "crf": "20", "svtav1-params": "lp=1:scd=0"}
    elif codec == "prores_ks":
        base = {"threads": "1"}
    elif codec in ("mjpeg", "wmv2", "flv1", "mpeg1video"):
        base |= {"qscale": "2"}
    return base | (options or {})


def _silence(stream: av.AudioStream, samples: int) -> Iterable[av.Packet]:
    for start in range(0, samples, 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, start
        yield from stream.encode(frame)
    yield from stream.encode(None)


def truncated(path: Path, target: Path, keep: float) -> Path:
    """The first part of a file."""
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * keep)])
    return target


def damaged(path: Path, target: Path, *, start: float, stop: float, seed: int = 0) -> Path:
    """A copy whose bytes between two fractions of its length are noise."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(seed).bytes(last - first)
    target.write_bytes(data)
    return target


def uneven_pts(frames: int, *, seed: int = 1) -> list[int]:
    """Presentation times of a variable-rate video, in ticks of 1/30000 s: 17 to 670 ms apart."""
    steps = np.random.default_rng(seed).choice([500, 1001, 3003, 4000, 20000], frames - 1)
    return [0, *np.cumsum(steps).tolist()]


def picture_bytes(index: int, image_format: str = "PNG", *, mode: str = "RGB", orientation: int = 1) -> bytes:
    """An encoded `coded_frame`; with an EXIF orientation it is stored turned, so that upright is `coded_frame`."""
    image = _stored(Image.fromarray(coded_frame(index)), orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, image_format, **({"exif": exif.tobytes()} if orientation != 1 else {}))
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar (or tar.gz, by the suffix) in this order; names may repeat."""
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_zip(path: Path, members: Sequence[tuple[str, bytes]], *, deflate: bool = True) -> Path:
    """A zip in this order; names may repeat."""
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # repeated names are the point
        for name, data in members:
            archive.writestr(name, data)
    return path
