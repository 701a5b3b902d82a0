"""Pictures of every kind become upright RGB, or an error that says what is wrong."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ErrorCode, MediaError
from pipeline.media.pictures import decode_picture, picture_size
from tests.media import HEIGHT, WIDTH, coded_frame, is_upright, picture_bytes, read_index

LIMIT = 1_000_000


def encoded(image: Image.Image, image_format: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    buffer.seek(0)
    return buffer


def failure(data: bytes) -> ErrorCode:
    with pytest.raises(MediaError) as caught:
        decode_picture(io.BytesIO(data), LIMIT)
    return caught.value.code


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format(image_format: str) -> None:
    image = decode_picture(io.BytesIO(picture_bytes(1234, image_format)), LIMIT)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]
    assert read_index(image) == 1234
    assert is_upright(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    data = picture_bytes(77, "JPEG", orientation=orientation)
    image = decode_picture(io.BytesIO(data), LIMIT)
    assert is_upright(image)
    assert read_index(image) == 77
    assert picture_size(io.BytesIO(data), LIMIT) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("LA", "PNG"), ("RGBA", "PNG")],
)
def test_every_mode_becomes_rgb(mode: str, image_format: str) -> None:
    image = decode_picture(io.BytesIO(picture_bytes(321, image_format, mode=mode)), LIMIT)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert read_index(image) == 321


def test_sixteen_bits_keep_their_brightness() -> None:
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    image = decode_picture(encoded(Image.fromarray(grey), "PNG"), LIMIT)
    assert np.array_equal(image[:, :, 0], grey >> 8)


def test_transparent_pixels_lie_on_white() -> None:
    layer = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    layer.putpixel((0, 0), (255, 0, 0, 255))
    image = decode_picture(encoded(layer, "PNG"), LIMIT)
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[3, 3].tolist() == [255, 255, 255]


def test_the_first_picture_of_an_animation() -> None:
    frames = [Image.fromarray(coded_frame(index)).quantize() for index in (5, 6, 7)]
    image = decode_picture(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), LIMIT)
    assert read_index(image) == 5


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_picture_that_ends_early_is_never_data(image_format: str) -> None:
    data = picture_bytes(9, image_format)
    for keep in (0.3, 0.6, 0.9):
        assert failure(data[: int(len(data) * keep)]) in (ErrorCode.TRUNCATED, ErrorCode.CORRUPT)
    assert failure(picture_bytes(9, "JPEG")[:-300]) == ErrorCode.TRUNCATED
    assert failure(picture_bytes(9, "PNG")[:-300]) == ErrorCode.TRUNCATED


def test_junk_and_empty_files() -> None:
    assert failure(b"") == ErrorCode.NOT_MEDIA
    assert failure(b"just a few words") == ErrorCode.NOT_MEDIA
    assert failure(b"\xff\xd8\xff" + bytes(500)) in (ErrorCode.CORRUPT, ErrorCode.TRUNCATED)


def test_damaged_png() -> None:
    data = bytearray(picture_bytes(9, "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert failure(bytes(data)) == ErrorCode.CORRUPT


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data += struct.pack(">I", 10) + b"IDAT" + bytes(10) + bytes(4)
    assert failure(data) == ErrorCode.TOO_LARGE
    with pytest.raises(MediaError, match="60000x60000 is 3600000000 pixels"):
        picture_size(io.BytesIO(data), LIMIT)
