"""Pictures by Pillow: header first, then pixels, as upright RGB."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from pipeline.errors import ErrorCode, MediaError
from pipeline.media.sniff import HEAD_BYTES, sniff

Image.MAX_IMAGE_PIXELS = None  # the extraction's max_pixels is checked here, from the header

_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_ORIENTATION = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}
_SEQUENCES = {"GIF", "PNG", "WEBP", "TIFF", "AVIF"}


@dataclass(frozen=True, kw_only=True)
class PictureHeader:
    """width, height: of the upright picture. frames: of an animation, or pages; the first one is read."""

    width: int
    height: int
    frames: int


def read_header(file: BinaryIO | Path, max_pixels: int) -> PictureHeader:
    """What a picture's header says, without decoding pixels. Raises MediaError."""
    with _handle(file) as handle:
        image = _header(handle, max_pixels)
        width, height = image.size
        with _explained(handle, image.format or ""):
            turned = image.format == "TIFF"  # Pillow turns it by itself, and its size says so already
            if not turned and _orientation(image) in _SIDEWAYS:
                width, height = height, width
        return PictureHeader(width=width, height=height, frames=_frames(image))


def decode_picture(file: BinaryIO | Path, max_pixels: int) -> NDArray[np.uint8]:
    """The picture, or the first one of an animation, as contiguous RGB (H, W, 3).

    EXIF orientation is applied; grey, palette, CMYK and 16-bit pixels become 8-bit RGB; transparent pixels are laid on
    white, as a browser shows them. Raises MediaError: not_media, truncated, corrupt, too_large or unsupported.
    """
    with _handle(file) as handle:
        image = _header(handle, max_pixels)
        with _explained(handle, image.format or ""):
            image.load()
            return np.ascontiguousarray(_rgb(_upright(image)))


@contextlib.contextmanager
def _handle(file: BinaryIO | Path) -> Iterator[BinaryIO]:
    if isinstance(file, Path):
        with file.open("rb") as handle:
            yield handle
    else:
        yield file


def _header(handle: BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    head = handle.read(HEAD_BYTES)
    handle.seek(0)
    content = sniff(head)
    if content.kind != "picture":
        raise MediaError(ErrorCode.NOT_MEDIA, f"not a picture but {content.format}")
    _require_decoder(content.format)
    if content.format == "WEBP":
        _check_size(*_webp_canvas(head), max_pixels)  # Pillow takes memory for the canvas as soon as it opens the file
    with _explained(handle, content.format), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken EXIF blocks are no reason to fail
        image = Image.open(handle, formats=[content.format])
    _check_size(*image.size, max_pixels)
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        size = f"{width}x{height} is {width * height} pixels"
        raise MediaError(ErrorCode.TOO_LARGE, f"{size}; max_pixels of this dataset is {max_pixels}")


def _webp_canvas(head: bytes) -> tuple[int, int]:
    """Width and height that a WebP file declares (RFC 9649, 2.5 to 2.7); (0, 0) where nothing known is."""
    kind, data = head[12:16], head[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    return 0, 0


def _frames(image: ImageFile.ImageFile) -> int:
    if image.format not in _SEQUENCES:  # further pictures in a JPEG or HEIF file are other views of the same one
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except MemoryError:
        raise
    except Exception:
        return 1  # what follows the first one is damaged


def _require_decoder(image_format: str) -> None:
    if image_format == "HEIF" and not _register_heif():
        raise MediaError(ErrorCode.UNSUPPORTED, "HEIC pictures need: pip install pillow-heif")
    if image_format == "AVIF" and not features.check("avif"):
        raise MediaError(ErrorCode.UNSUPPORTED, "this build of Pillow reads no AVIF pictures: use that of PyPI")


@functools.cache
def _register_heif() -> bool:
    """Teaches Pillow HEIC, if the optional package is there."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return True


def _upright(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose writes the EXIF block anew, and fails where one of its values has a wrong type
    turn = _TO_UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF's number for how the picture is stored; 1 is upright, or not known because the block is broken."""
    try:
        number = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # as much as it can be, of foreign bytes
        return 1
    return number if isinstance(number, int) else 1


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("F", "LAB"):
        what = "floating point pixels have no known range" if image.mode == "F" else "CIELAB pixels are not converted"
        raise MediaError(ErrorCode.UNSUPPORTED, what)
    if image.mode.startswith("I"):  # 16 bits; mode I holds them in 32
        grey = np.asarray(image, np.int64).clip(min=0)
        if grey.max(initial=0) > 65535:
            raise MediaError(ErrorCode.UNSUPPORTED, "grey of 32 bits has no known range")
        grey >>= 8
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, layer)
    return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def _explained(handle: BinaryIO, image_format: str) -> Iterator[None]:
    """Turns what Pillow raises into a MediaError: truncated if the picture's end is missing, else corrupt."""
    try:
        yield
    except (MediaError, MemoryError):
        raise
    except Exception as error:  # a plugin that meets foreign bytes may raise anything
        text = str(error) or type(error).__name__
        cut = "truncated" in text.lower() or isinstance(error, EOFError) or _ends_early(handle, image_format)
        code = ErrorCode.TRUNCATED if cut else ErrorCode.CORRUPT
        raise MediaError(code, f"{image_format}: {_first_line(text)}") from None


def _ends_early(handle: BinaryIO, image_format: str) -> bool:
    end = _ENDS.get(image_format)
    if end is None:
        return False
    size = handle.seek(0, io.SEEK_END)
    handle.seek(max(0, size - HEAD_BYTES))
    return end not in handle.read()


def _first_line(text: str) -> str:
    # Pillow names the file object, with its address, in some messages
    return text.splitlines()[0].split("<", 1)[0].strip().rstrip(":") or "can't be decoded"
