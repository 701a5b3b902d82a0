"""Pictures of every kind become upright RGB, or an error that says what is wrong."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from pipeline.errors import ErrorCode, MediaError
from pipeline.media import pictures
from pipeline.media.pictures import decode_picture, read_header
from tests.media import HEIGHT, WIDTH, coded_frame, is_upright, picture_bytes, read_index

pillow_heif.register_heif_opener()  # to write HEIC here; reading registers it by itself

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


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF"])
def test_every_format(image_format: str) -> None:
    image = decode_picture(io.BytesIO(picture_bytes(1234, image_format)), LIMIT)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]
    assert read_index(image) == 1234
    assert is_upright(image)


def test_a_tiff_of_more_than_four_gigabytes_has_a_mark_of_its_own() -> None:
    file = io.BytesIO()
    with Image.open(io.BytesIO(picture_bytes(5))) as picture:
        picture.convert("RGB").save(file, "TIFF", big_tiff=True)
    assert file.getvalue()[:4] == b"II+\0"
    file.seek(0)
    assert read_index(decode_picture(file, LIMIT)) == 5


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, image_format: str) -> None:
    data = picture_bytes(77, image_format, orientation=orientation)
    image = decode_picture(io.BytesIO(data), LIMIT)
    assert is_upright(image)
    assert read_index(image) == 77
    header = read_header(io.BytesIO(data), LIMIT)
    assert (header.width, header.height) == (WIDTH, HEIGHT)


def test_an_exif_entry_of_a_wrong_type_does_not_cost_the_picture() -> None:
    turn = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    resolution = struct.pack(">HHI4s", 0x011A, 1, 1, b"x")  # a byte, where a fraction belongs
    block = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + turn + resolution + bytes(4)
    stored = Image.open(io.BytesIO(picture_bytes(77, "JPEG", orientation=6)))
    image = decode_picture(encoded(stored, "JPEG", exif=block, quality=95), LIMIT)
    assert is_upright(image)
    assert read_index(image) == 77


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("LA", "PNG"), ("RGBA", "PNG")],
)
def test_every_mode_becomes_rgb(mode: str, image_format: str) -> None:
    image = decode_picture(io.BytesIO(picture_bytes(321, image_format, mode=mode)), LIMIT)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert read_index(image) == 321
    if mode in ("CMYK", "RGBA"):
        assert np.abs(image.astype(int) - coded_frame(321)).mean() < 4


@pytest.mark.parametrize("mode", ["F", "LAB"])
def test_pixels_of_unknown_range_are_unsupported(mode: str) -> None:
    assert failure(encoded(Image.new(mode, (32, 32)), "TIFF").getvalue()) == ErrorCode.UNSUPPORTED


def test_grey_of_more_than_sixteen_bits_is_unsupported() -> None:
    grey = np.full((32, 32), 70_000, np.int32)
    assert failure(encoded(Image.fromarray(grey), "TIFF").getvalue()) == ErrorCode.UNSUPPORTED


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


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_picture_is_read_and_the_header_says_so(image_format: str) -> None:
    frames = [Image.fromarray(coded_frame(index)) for index in (5, 6, 7)]
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:]).getvalue()
    assert read_header(io.BytesIO(data), LIMIT).frames == 3
    assert read_index(decode_picture(io.BytesIO(data), LIMIT)) == 5
    assert read_header(encoded(frames[0], image_format), LIMIT).frames == 1


def test_heic_without_its_package_is_unsupported_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture_bytes(3, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # what an import meets where it isn't installed
    pictures._register_heif.cache_clear()
    with pytest.raises(MediaError, match="pip install pillow-heif") as caught:
        decode_picture(io.BytesIO(data), LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED
    pictures._register_heif.cache_clear()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_of_colour(suffix: str) -> None:
    wide = coded_frame(3).astype(np.uint16) * 257
    data = cv2.imencode(suffix, wide[:, :, ::-1])[1].tobytes()
    assert np.array_equal(decode_picture(io.BytesIO(data), LIMIT), coded_frame(3))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIF"])
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
        read_header(io.BytesIO(data), LIMIT)
