"""Archives that are odd, lie, or try to get out: links, names, duplicates, encryption, bombs, archives in archives."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.errors import ErrorCode
from tests.hostile import originals
from tests.hostile.canaries import Canaries
from tests.hostile.case import Case, Outcome, Sight, content, damaged, partly, refused, right

E = ErrorCode
DAMAGE = (E.TRUNCATED, E.CORRUPT, E.NOT_MEDIA, E.ARCHIVE_MEMBER)
GOOD = "good.png"
ODD_NAMES = (
    "../../escaped.png",
    "/tmp/ran-hostile-escaped.png",
    "C:\\escaped.png",
    "x\\..\\..\\escaped.png",
    "deep/../../escaped.png",
    "frame%03d.png",
    "concat:a.png|b.png",
    "http://127.0.0.1/x.png",
    "new\nline.png",
    "\x1b[31mred.png",
    "\u202egnp.exe.png",
    "e\u0301.png",
    "\u00e9.png",
    "\U0001f600.png",
    "'; DROP TABLE faces; --.png",
    " .png",
    "n" * 251 + ".png",
)


def cases(canaries: Canaries) -> Iterator[Case]:
    """All of them."""
    yield from _names()
    yield from _not_files(canaries)
    yield from _zips()
    yield from _lies()
    yield from _bombs()


def _names() -> Iterator[Case]:
    png = originals.picture("png")
    odd = [(name, png) for name in ODD_NAMES]
    seen: list[Sight] = [(name, None) for name in ODD_NAMES]
    yield _case("tar-odd-names", ".tar", _tar(odd), right(seen))
    yield _case("zip-odd-names", ".zip", _zip(odd), right(seen))
    raw = [(b"\xff\xfe\x80.png".decode("utf-8", "surrogateescape"), png)]
    yield _case("tar-name-of-no-unicode", ".tar", _tar(raw), right([("\\xff\\xfe\\x80.png", None)]))
    twice = [(GOOD, png), (GOOD, originals.picture("jpeg")), (GOOD, png)]
    yield _case("tar-same-name-thrice", ".tar", _tar(twice), right([(GOOD, None)] * 3))
    yield _case("zip-same-name-thrice", ".zip", _zip(twice), right([(GOOD, None)] * 3))
    deep = ["/".join("d" * 200) + "/x.png", "p" * 3000 + ".png"]
    yield _case("tar-very-long-names", ".tar", _tar([(name, png) for name in deep]), right([(n, None) for n in deep]))
    hidden = [("._a.png", b"\0\5\x16\7"), (".hidden.png", png), (GOOD, png), ("notes.txt", b"words")]
    yield _case("tar-hidden-members", ".tar", _tar(hidden), right([(GOOD, None)]))
    wrong = [("a.jpg", originals.picture("webp")), ("b.png", originals.picture("bmp"))]
    yield _case("tar-wrong-suffixes", ".tar", _tar(wrong), right([("a.jpg", None), ("b.png", None)]))
    playlist = [("x.png", b"#EXTM3U\n/etc/passwd\n"), ("y.png", b""), (GOOD, png)]
    told = partly([(GOOD, None)], E.ARCHIVE_MEMBER, E.UNSUPPORTED)
    yield _case("tar-playlist-member", ".tar", _tar(playlist), told)
    lists = [("x.mp4", b"#EXTM3U\n/etc/passwd\n"), ("y.mov", originals.video("h264-mov")), (GOOD, png)]
    some = Outcome(statuses=frozenset({"partial"}), codes=frozenset({E.ARCHIVE_MEMBER, E.UNSUPPORTED}))
    yield _case("zip-video-members", ".zip", _zip(lists), some)


def _not_files(canaries: Canaries) -> Iterator[Case]:
    """Members that are no files: whoever follows a link meets the canary."""
    png, secret = originals.picture("png"), str(canaries.picture)
    links: list[tuple[tarfile.TarInfo, bytes]] = []
    for number, kind in enumerate(
        (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    ):
        entry = tarfile.TarInfo(f"{number}.png")
        entry.type, entry.linkname, entry.devmajor, entry.devminor = kind, secret, 1, 5
        links.append((entry, b""))
    yield _case("tar-links-and-devices", ".tar", _tar([*links, (GOOD, png)]), right([(GOOD, None)]))
    yield _case("tar-only-links", ".tar", _tar(links), refused(E.NOT_MEDIA))
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    yield _case("zip-link", ".zip", _zip([(link, secret.encode()), (GOOD, png)]), right([(GOOD, None)]))


def _zips() -> Iterator[Case]:
    jpeg, png = originals.picture("jpeg"), originals.picture("png")
    locked = _flagged(_zip([("locked.png", png), (GOOD, png)]), b"locked.png", 1)
    yield _case("zip-encrypted-member", ".zip", locked, partly([(GOOD, None)], E.ARCHIVE_MEMBER))
    for name, method in (("strong-encryption", 99), ("deflate64", 9), ("zstd", 93), ("of-tomorrow", 4711)):
        odd = _method(_zip([("odd.png", png), (GOOD, png)]), b"odd.png", method)
        yield _case(f"zip-{name}", ".zip", odd, partly([(GOOD, None)], E.ARCHIVE_MEMBER))
    for name, method in (("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        yield _case(f"zip-{name}", ".zip", _zip([(GOOD, png)], method), right([(GOOD, None)]))
    inner = _zip([(GOOD, png)])
    yield _case("zip-in-a-zip", ".zip", _zip([("inner.zip", inner), (GOOD, png)]), right([(GOOD, None)]))
    yield _case("zip-of-zips-only", ".zip", _zip([("inner.zip", inner)]), refused(E.NOT_MEDIA, E.UNSUPPORTED))
    yield _case("tar-in-a-tar", ".tar", _tar([("in.tar", _tar([(GOOD, png)])), (GOOD, png)]), right([(GOOD, None)]))
    yield _case("zip-without-members", ".zip", _zip([]), refused(E.NOT_MEDIA))
    yield _case("zip-after-a-program", ".zip", b"#!/bin/sh\nexit 1\n" + inner, refused(E.NOT_MEDIA))
    yield _case("zip-with-a-comment", ".zip", inner[:-2] + b"\x05\0words", right([(GOOD, None)]))
    wrong_sum = bytearray(_zip([("bad.jpg", jpeg), (GOOD, png)], zipfile.ZIP_STORED))
    wrong_sum[len(jpeg) // 2] ^= 0xFF
    yield _case("zip-wrong-sum", ".zip", bytes(wrong_sum), partly([(GOOD, None)], E.ARCHIVE_MEMBER))
    yield _case("zip-overlapping-members", ".zip", _overlapping(png), damaged([(GOOD, None)] * 2, E.ARCHIVE_MEMBER))


def _lies() -> Iterator[Case]:
    """Indexes that don't fit what they index."""
    png = originals.picture("png")
    whole = _zip([(GOOD, png)])
    end, entry = whole.rindex(b"PK\x05\x06"), whole.rindex(b"PK\x01\x02")
    most = b"\xff\xff\xff\xff"
    for name, at, value in (
        ("zip-directory-elsewhere", end + 16, most),
        ("zip-endless-directory", end + 12, most),
        ("zip-65535-members", end + 8, b"\xff\xff\xff\xff"),
        ("zip-member-elsewhere", entry + 42, b"\xff\xff\xff\x7f"),
        ("zip-member-of-four-gigabytes", entry + 24, b"\xfe\xff\xff\xff"),
        ("zip-member-packed-four-gigabytes", entry + 20, b"\xfe\xff\xff\xff"),
        ("zip-member-of-no-bytes", entry + 24, b"\0\0\0\0"),
    ):
        data = whole[:at] + value + whole[at + len(value) :]
        yield _case(name, ".zip", data, damaged([(GOOD, None)], *DAMAGE))
    for name, size in (
        ("terabytes", _octal(8**11 - 1)),
        ("exabytes", b"\x80" + (2**62).to_bytes(11, "big")),
        ("over-64-bits", b"\x80" + (2**85).to_bytes(11, "big")),
        ("minus-512-bytes", b"\xff" + (-512).to_bytes(11, "big", signed=True)),
        ("minus-1024-bytes", b"\xff" + (-1024).to_bytes(11, "big", signed=True)),
    ):
        data = _resummed(_tar([("a.png", png), (GOOD, png)]), 0, size)
        yield _case(f"tar-member-of-{name}", ".tar", data, damaged([("a.png", None), (GOOD, None)], *DAMAGE))
    for name, key, value in (
        ("size-of-exabytes", "size", str(2**63)),
        ("size-below-zero", "size", "-100000"),
        ("size-of-words", "size", "large"),
        ("name-with-a-zero", "path", "a\0b.png"),
        ("sparse-map", "GNU.sparse.map", ",".join(["0"] * 5001)),
        ("sparse-size", "GNU.sparse.realsize", str(2**62)),
    ):
        odd = tarfile.TarInfo("a.png")
        odd.pax_headers = {key: value}
        data = _tar([(odd, png), (GOOD, png)])
        outcome = damaged(None, *DAMAGE)
        yield _case(f"tar-pax-{name}", ".tar", data, outcome)
    longer = tarfile.TarInfo("a.png")
    longer.type, longer.size = tarfile.GNUTYPE_LONGNAME, 5
    names = (longer.tobuf() + b"x.png".ljust(512, b"\0")) * 3000 + _tar([(GOOD, png)])
    yield _case("tar-of-3000-long-names", ".tar", names, damaged(None, *DAMAGE))
    longer.size = 8 << 30
    yield _case("tar-name-of-gigabytes", ".tar", longer.tobuf() + _tar([(GOOD, png)]), damaged(None, *DAMAGE))
    yield _case("tar-header-repeated", ".tar", _tar([(GOOD, png)])[:512] * 40, damaged(None, *DAMAGE))
    late = _tar([("a.png", png), (GOOD, png)])
    second = 512 * (1 + -(-len(png) // 512))
    cut = late[:second] + bytes(512) + late[second + 512 :]
    yield _case("tar-header-lost", ".tar", cut, damaged([("a.png", None), (GOOD, None)], *DAMAGE))


def _bombs() -> Iterator[Case]:
    png = originals.picture("png")
    zeros = bytes(1 << 20)
    block = gzip.compress(zeros * 64, 9)
    yield _case("gzip-of-four-gigabytes-of-nothing", ".tar.gz", block * 64, refused(*DAMAGE, E.TOO_LARGE))
    head = tarfile.TarInfo("big.png")
    head.size = 4 << 30
    bomb = gzip.compress(head.tobuf()) + block * 64 + gzip.compress(bytes(1024))
    yield _case("tar-gz-bomb", ".tar.gz", bomb, refused(*DAMAGE, E.TOO_LARGE))
    gz = gzip.compress(_tar([(GOOD, png)]))
    yield _case("gzip-of-a-picture", ".tar.gz", gzip.compress(png), refused(E.NOT_MEDIA, E.UNSUPPORTED, E.CORRUPT))
    yield _case("gzip-in-gzip", ".tar.gz", gzip.compress(gz), refused(E.NOT_MEDIA, E.UNSUPPORTED, E.CORRUPT))
    yield _case("gzip-then-rubbish", ".tar.gz", gz + b"\x99" * 1000, damaged([(GOOD, None)], *DAMAGE))
    yield _case("gzip-wrong-sum", ".tar.gz", gz[:-8] + bytes(8), damaged([(GOOD, None)], *DAMAGE))
    yield _case("zip-bomb", ".zip", _zip_bomb, refused(E.ARCHIVE_MEMBER))
    many = _zip([(f"{number}.png", b"") for number in range(5000)])
    yield _case("zip-of-5000-empty-members", ".zip", many, refused(E.ARCHIVE_MEMBER))
    headers = b"".join(tarfile.TarInfo(f"{number}.png").tobuf() for number in range(3000))
    yield _case("tar-of-3000-empty-members", ".tar", headers + bytes(1024), refused(E.ARCHIVE_MEMBER))


def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("big.png", "w") as member:
        for _ in range(600):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def _case(name: str, suffix: str, data: bytes | Callable[[], bytes], outcome: Outcome, **more: Any) -> Case:
    return Case(name=name, write=content(suffix, data), outcome=outcome, **more)


def _tar(members: Sequence[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for name, data in members:
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if entry.isreg():
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _zip(members: Sequence[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal names are the point
        for name, data in members:
            archive.writestr(name, data, compress_type=method)
    return buffer.getvalue()


def _patched(data: bytes, name: bytes, local: int, central: int, value: bytes) -> bytes:
    """A field of the first local and the first central header of a zip's member."""
    out = bytearray(data)
    for magic, header_bytes, at in ((b"PK\x03\x04", 30, local), (b"PK\x01\x02", 46, central)):
        start = next(
            found
            for found in _places(data, magic)
            if data[found + header_bytes : found + header_bytes + len(name)] == name
        )
        out[start + at : start + at + len(value)] = value
    return bytes(out)


def _flagged(data: bytes, name: bytes, flag: int) -> bytes:
    return _patched(data, name, 6, 8, struct.pack("<H", flag))


def _method(data: bytes, name: bytes, method: int) -> bytes:
    return _patched(data, name, 8, 10, struct.pack("<H", method))


def _places(data: bytes, magic: bytes) -> Iterator[int]:
    at = data.find(magic)
    while at != -1:
        yield at
        at = data.find(magic, at + 1)


def _overlapping(png: bytes) -> bytes:
    """Two entries of the index that point to the same bytes, as bombs without nesting do."""
    whole = _zip([(GOOD, png)], zipfile.ZIP_STORED)
    start, end = whole.rindex(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    entry = whole[start:end]
    tail = whole[end : end + 8] + struct.pack("<HHIIH", 2, 2, 2 * len(entry), start, 0)
    return whole[:start] + entry * 2 + tail


def _octal(value: int) -> bytes:
    return b"%011o\0" % value


def _resummed(tar: bytes, header: int, size: bytes) -> bytes:
    """Another size field in a header, with its checksum right."""
    block = bytearray(tar[header : header + 512])
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return tar[:header] + bytes(block) + tar[header + 512 :]
