"""Pictures that are odd, huge in what they declare, or small on disk and large in memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import ErrorCode
from tests.hostile.case import PICTURE, Case, Outcome, content, damaged, refused, right
from tests.hostile.originals import SIDE, picture, portrait, saved

E = ErrorCode


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _declared()
    yield from _bombs()
    yield from _modes()
    yield from _shapes()
    yield from _extras()


def _declared() -> Iterator[Case]:
    """Headers that promise more pixels than anybody wants."""
    jpeg = picture("jpeg")
    frame = jpeg.index(b"\xff\xc0") + 5
    yield _case("jpeg-65500-square", ".jpg", _put(jpeg, frame, ">HH", 65500, 65500), refused(E.TOO_LARGE))
    yield _case("jpeg-of-no-size", ".jpg", _put(jpeg, frame, ">HH", 0, 0), refused(E.CORRUPT, E.TRUNCATED))
    yield _case("png-two-billion-square", ".png", _png(2**31 - 1, 2**31 - 1, b""), refused(E.TOO_LARGE))
    yield _case("png-of-no-size", ".png", _png(0, 0, b""), refused(E.CORRUPT, E.TRUNCATED, E.NOT_MEDIA))
    gif = bytearray(picture("gif"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    yield _case("gif-65535-square", ".gif", bytes(gif), refused(E.TOO_LARGE))
    bmp = picture("bmp")
    for width, height, codes in (
        (100_000, 100_000, (E.TOO_LARGE,)),
        (2**31 - 1, 2**31 - 1, (E.TOO_LARGE,)),
        (-SIDE, SIDE, (E.CORRUPT, E.TOO_LARGE)),
        (0, 0, (E.CORRUPT, E.TRUNCATED)),
    ):
        name = f"bmp-{width}-by-{height}".replace("--", "-minus-")
        yield _case(name, ".bmp", _put(bmp, 18, "<ii", width, height), refused(*codes))
    yield _case("webp-16383-square", ".webp", _webp_canvas(16383, 16383), refused(E.TOO_LARGE))
    yield _case("webp-of-two-gigapixels-twice", ".webp", _webp_canvas(2**24, 2**24), refused(E.TOO_LARGE, E.CORRUPT))
    yield _case("tiff-a-million-square", ".tiff", _tiff(10**6, 10**6), refused(E.TOO_LARGE))
    yield _case("tiff-four-billion-square", ".tiff", _tiff(2**32 - 1, 2**32 - 1), refused(E.TOO_LARGE, E.CORRUPT))
    yield _case("tiff-that-points-at-itself", ".tiff", _endless_tiff(), damaged(PICTURE, E.CORRUPT, E.TRUNCATED))


def _bombs() -> Iterator[Case]:
    side = 30_000
    bomb = _png(side, side, _zeros(side * (side * 3 + 1)))
    yield _case("png-bomb", ".png", bomb, refused(E.TOO_LARGE))
    just_allowed = _png(9_999, 9_999, _zeros(9_999 * (9_999 + 1)), colour=0)
    yield _case("png-just-below-the-limit", ".png", just_allowed, right(faces=0))
    more = _png(64, 64, _zeros(500 << 20))
    yield _case("png-with-more-than-it-says", ".png", more, damaged(PICTURE, E.CORRUPT, E.TOO_LARGE, most_faces=0))
    yield _case("png-with-less-than-it-says", ".png", _png(5000, 5000, _zeros(99)), refused(E.TRUNCATED, E.CORRUPT))
    text = b"Comment\0\0" + _zeros(300 << 20)
    told = (E.CORRUPT, E.TOO_LARGE)
    yield _case("png-text-bomb", ".png", _with_chunk(b"zTXt", text), damaged(PICTURE, *told))
    profile = b"icc\0\0" + _zeros(300 << 20)
    yield _case("png-profile-bomb", ".png", _with_chunk(b"iCCP", profile), damaged(PICTURE, *told))
    yield _case("gif-of-100-large-frames", ".gif", _long_animation, right(faces=0))


def _modes() -> Iterator[Case]:
    for mode, image_format, options in (
        ("1", "PNG", {}),
        ("L", "JPEG", {"quality": 90}),
        ("LA", "PNG", {}),
        ("P", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("CMYK", "JPEG", {"quality": 90}),
        ("CMYK", "TIFF", {}),
        ("YCbCr", "TIFF", {}),
        ("LAB", "TIFF", {}),
    ):
        data = saved(portrait().convert(mode) if mode != "LAB" else _lab(), image_format, **options)
        outcome = right() if mode not in ("1", "LAB") else damaged(PICTURE, E.UNSUPPORTED)
        yield _case(f"mode-{mode}-{image_format.lower()}", f".{image_format.lower()}", data, outcome)
    grey = np.asarray(portrait().convert("L")).astype(np.uint16) * 257
    yield _case("sixteen-bits", ".png", saved(Image.fromarray(grey), "PNG"), right())
    floats = Image.fromarray(np.asarray(portrait().convert("L"), np.float32))
    yield _case("floating-point", ".tiff", saved(floats, "TIFF"), refused(E.UNSUPPORTED))
    several = [portrait(), Image.new("RGB", (SIDE, SIDE)), Image.new("RGB", (10, 10))]
    for image_format in ("GIF", "WEBP", "TIFF", "PNG"):
        data = saved(several[0], image_format, save_all=True, append_images=several[1:2])
        yield _case(f"several-pictures-{image_format.lower()}", f".{image_format.lower()}", data, right())


def _shapes() -> Iterator[Case]:
    for width, height in ((1, 1), (1, 20_000), (20_000, 1), (3, 65_000), (65_000, 2)):
        data = saved(Image.new("RGB", (width, height), "grey"), "PNG")
        yield _case(f"png-{width}-by-{height}", ".png", data, right(faces=0))
    for orientation in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.new("RGB", (200, 100))
        rows: dict[str, Any] = {}
        yield _case(f"orientation-{orientation}", ".jpg", saved(image, "JPEG", exif=exif), right(faces=0), rows=rows)


def _extras() -> Iterator[Case]:
    jpeg, png = picture("jpeg"), picture("png")
    yield _case("jpeg-then-a-zip", ".jpg", jpeg + b"PK\x05\x06" + bytes(18), right())
    yield _case("png-then-rubbish", ".png", png + b"\x99" * 10_000, right())
    yield _case("png-wrong-sum", ".png", _put(png, 29, ">I", 0), damaged(PICTURE, E.CORRUPT))
    broken_exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    yield _case("broken-exif", ".jpg", _with_segment(jpeg, 0xE1, broken_exif), right())
    looping = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    yield _case("exif-that-points-at-itself", ".jpg", _with_segment(jpeg, 0xE1, looping), right())
    profile = b"ICC_PROFILE\0\x01\x01" + b"\xff" * 2000
    yield _case("broken-profile", ".jpg", _with_segment(jpeg, 0xE2, profile), right())
    segment = _with_segment(jpeg, 0xFE, b"c" * 60_000)[2:60_006]
    yield _case("thirty-megabytes-of-comment", ".jpg", jpeg[:2] + segment * 500 + jpeg[2:], right())
    yield _case("svg", ".png", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='x.png'/></svg>", _foreign())
    yield _case("postscript", ".jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", _foreign())
    yield _case("a-program", ".png", b"\x7fELF\x02\x01\x01" + bytes(500), _foreign())
    yield _case("words", ".jpg", b"this is no picture\n" * 100, _foreign())
    for suffix in (".jpg", ".png", ".mp4", ".tar", ".zip", ".tar.gz", ".gif"):
        yield _case(f"empty{suffix.replace('.', '-')}", suffix, b"", _foreign())
        yield _case(f"one-byte{suffix.replace('.', '-')}", suffix, b"\x00", _foreign())


def _case(name: str, suffix: str, data: bytes | Callable[[], bytes], outcome: Outcome, **more: Any) -> Case:
    return Case(name=name, write=content(suffix, data), outcome=outcome, **more)


def _long_animation() -> bytes:
    frames = [Image.new("P", (1200, 1200), number) for number in range(100)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _foreign() -> Outcome:
    return refused(E.NOT_MEDIA)


def _put(data: bytes, at: int, form: str, *values: int) -> bytes:
    packed = struct.pack(form, *values)
    return data[:at] + packed + data[at + len(packed) :]


def _zeros(count: int) -> bytes:
    """That many zeros, deflated (RFC 1950): one block over and over, since a full flush makes blocks independent."""
    block = bytes(1 << 20)
    packer = zlib.compressobj(9)
    head = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    again = raw.compress(block) + raw.flush(zlib.Z_FULL_FLUSH)
    blocks, rest = divmod(count, len(block))
    if not blocks:
        return zlib.compress(bytes(count), 9)
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    tail = last.compress(bytes(rest)) + last.flush()
    return head + again * (blocks - 1) + tail + struct.pack(">HH", count % 65521, 1)  # Adler-32 of zeros


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def _png(width: int, height: int, pixels: bytes, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _with_chunk(kind: bytes, payload: bytes) -> bytes:
    png = picture("png")
    return png[:33] + _chunk(kind, payload) + png[33:]  # right after IHDR


def _with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def _webp_canvas(width: int, height: int) -> bytes:
    """An extended WebP whose canvas is this large and whose only picture is small."""
    still = saved(portrait(), "WEBP", lossless=True)[12:]
    header = bytes([2, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    animation = b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    size = (SIDE - 1).to_bytes(3, "little")
    frame = bytes(6) + size + size + bytes(4) + still
    body = b"WEBPVP8X" + struct.pack("<I", 10) + header + animation + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff(width: int, height: int) -> bytes:
    """A header of one uncompressed strip that isn't there."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, 2**31)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(400)


def _endless_tiff() -> bytes:
    data = picture("tiff")
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    return _put(data, first + 2 + 12 * count, "<I", first)


def _lab() -> Image.Image:
    return Image.merge("LAB", portrait().split())
