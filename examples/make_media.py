"""Makes the demo media from one portrait: a video in which a face moves and is covered, and an archive of pictures.

    python examples/make_media.py [folder]

Reads examples/media/astronaut.png (NASA, public domain). Needs `av`. The files that it wrote lie in the repository, so
that the demo needs neither this script nor an encoder; run it again only to change them.
"""

from __future__ import annotations

import io
import sys
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

MEDIA = Path(__file__).parent / "media"
WIDTH, HEIGHT, FPS, SECONDS = 640, 360, 25, 8.0
HEAD_CENTRE, HEAD_RADII = (224, 112), (74, 98)  # pixels of the portrait
MOUTH_BAR, EYES_BAR = (175, 126, 275, 156), (175, 88, 280, 116)  # left, top, right, bottom
BAR_COLOUR = (25, 25, 30)
COVERED_MOUTH_S, COVERED_EYES_S, ABSENT_S = (2.0, 3.2), (3.6, 4.6), (4.9, 6.3)

Pixels = NDArray[np.uint8]


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else MEDIA
    portrait = Image.open(MEDIA / "astronaut.png").convert("RGB")
    write_video(folder / "portrait.mp4", portrait)
    write_archive(folder / "portraits.tar", portrait)


def covered(portrait: Image.Image, bar: tuple[int, int, int, int]) -> Image.Image:
    """The portrait with a dark bar over it."""
    picture = portrait.copy()
    picture.paste(BAR_COLOUR, bar)
    return picture


def pose(time_s: float) -> tuple[float, float, float, float]:
    """Centre x and y of the head in pixels, its scale, and its turn in the plane in degrees."""
    share = time_s / SECONDS
    x = WIDTH * (0.5 + 0.28 * np.sin(2 * np.pi * share * 1.5))
    y = HEIGHT * (0.5 + 0.06 * np.sin(2 * np.pi * share * 3))
    scale = 1.15 + 0.4 * np.sin(2 * np.pi * share * 2)
    turn = 22.0 * np.sin(2 * np.pi * share * 2.5)
    return float(x), float(y), float(scale), float(turn)


def video_frame(number: int, heads: dict[str, Pixels], mask: Pixels, background: Pixels) -> Pixels:
    """Frame `number`, RGB."""
    time_s = number / FPS
    if ABSENT_S[0] <= time_s < ABSENT_S[1]:
        return background
    name = "plain"
    for covering, (start, end) in (("mouth", COVERED_MOUTH_S), ("eyes", COVERED_EYES_S)):
        name = covering if start <= time_s < end else name
    x, y, scale, turn = pose(time_s)
    matrix = cv2.getRotationMatrix2D(HEAD_CENTRE, turn, scale)
    matrix[:, 2] += np.array([x, y]) - HEAD_CENTRE
    head = cv2.warpAffine(heads[name], matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
    alpha = cv2.warpAffine(mask, matrix, (WIDTH, HEIGHT)).astype(np.float32)[:, :, None] / 255
    return np.asarray(head * alpha + background * (1 - alpha), np.uint8)


def write_video(path: Path, portrait: Image.Image) -> None:
    """8 s of H.264, 640x360, 25 frames per second, a keyframe every two seconds."""
    heads = {
        "plain": np.asarray(portrait),
        "mouth": np.asarray(covered(portrait, MOUTH_BAR)),
        "eyes": np.asarray(covered(portrait, EYES_BAR)),
    }
    mask = np.zeros(heads["plain"].shape[:2], np.uint8)
    cv2.ellipse(mask, HEAD_CENTRE, HEAD_RADII, 0, 0, 360, 255, -1)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 5), np.uint8)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    background = np.stack([70 + rows // 6, 90 + columns // 12, 110 + rows // 9], axis=2).astype(np.uint8)
    with av.open(str(path), "w", container_options={"fflags": "bitexact", "movflags": "faststart"}) as container:
        options = {"crf": "24", "preset": "medium", "g": str(2 * FPS), "threads": "1"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(int(SECONDS * FPS)):
            frame = av.VideoFrame.from_ndarray(video_frame(number, heads, mask, background), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_archive(path: Path, portrait: Image.Image) -> None:
    """Twelve pictures of the head, each with one thing about it."""
    box = (94, 0, 354, 260)

    def head(picture: Image.Image) -> Image.Image:
        return picture.crop(box)

    plain = head(portrait)
    small = Image.new("RGB", (400, 300), (96, 104, 120))
    small.paste(plain.resize((80, 80), Image.Resampling.LANCZOS), (60, 110))
    pictures = {
        "01_plain.jpg": (plain, 1),
        "02_stored_sideways.jpg": (plain.transpose(Image.Transpose.ROTATE_90), 6),
        "03_stored_upside_down.jpg": (plain.transpose(Image.Transpose.ROTATE_180), 3),
        "04_grey.jpg": (plain.convert("L"), 1),
        "05_mirrored.png": (ImageOps.mirror(plain).resize((176, 176), Image.Resampling.LANCZOS), 1),
        "06_blurred.jpg": (plain.filter(ImageFilter.GaussianBlur(3)), 1),
        "07_dark.jpg": (ImageEnhance.Brightness(plain).enhance(0.3), 1),
        "08_turned.jpg": (plain.rotate(18, Image.Resampling.BICUBIC, fillcolor=(96, 104, 120)), 1),
        "09_mouth_covered.jpg": (head(covered(portrait, MOUTH_BAR)), 1),
        "10_eyes_covered.jpg": (head(covered(portrait, EYES_BAR)), 1),
        "11_small.jpg": (small, 1),
        "12_nobody.jpg": (portrait.crop((360, 150, 512, 302)), 1),
    }
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (picture, orientation) in pictures.items():
            data = encoded(picture, name, orientation)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def encoded(picture: Image.Image, name: str, orientation: int) -> bytes:
    """JPEG or PNG bytes; orientation: the EXIF tag, by which a viewer turns the stored picture."""
    buffer = io.BytesIO()
    if name.endswith(".png"):
        picture.save(buffer, "PNG", optimize=True)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(buffer, "JPEG", quality=88, exif=exif)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
