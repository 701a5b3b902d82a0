"""Names and places: suffixes that lie, odd Unicode, links, and things in a folder that are no files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import ErrorCode
from tests.hostile import originals
from tests.hostile.case import PICTURE, Case, Outcome, content, refused, right
from tests.hostile.damage import MEMBER_SIGHTS
from tests.hostile.originals import SIGHTS

E = ErrorCode


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _suffixes()
    yield from _spellings()
    yield from _things()


def _suffixes() -> Iterator[Case]:
    for suffix, data, outcome in (
        (".jpg", originals.video("h264-mp4"), right(SIGHTS)),
        (".png", originals.picture("jpeg"), right()),
        (".mp4", originals.picture("png"), right()),
        (".mp4", originals.video("vp9-webm"), right(SIGHTS)),
        (".avi", originals.video("h264-ts"), right(SIGHTS)),
        (".mov", originals.archive("zip"), right(MEMBER_SIGHTS)),
        (".zip", originals.archive("tar"), right(MEMBER_SIGHTS)),
        (".tar", originals.archive("tar-gz"), right(MEMBER_SIGHTS)),
        (".tar", originals.picture("webp"), right()),
        (".gif", originals.picture("bmp"), right()),
        (".tar.gz", originals.archive("zip"), right(MEMBER_SIGHTS)),
        (".webm", originals.video("mpeg4-avi"), right(SIGHTS)),
    ):
        known = {id(originals.video(name)): name for name in originals.VIDEOS}
        known |= {id(originals.picture(name)): name for name in originals.PICTURES}
        known |= {id(originals.archive(name)): name for name in originals.ARCHIVES}
        name = f"{known[id(data)]}-called-{suffix[1:].replace('.', '-')}"
        yield _case(name, content(suffix, data), outcome)
    png = content("", originals.picture("png"), stem="no-suffix")
    yield _case("no-suffix-named", png, right(), is_named=True)
    text = content(".txt", originals.picture("png"))
    yield _case("text-suffix-named", text, right(), is_named=True)
    for name, head in (
        ("bzip2", b"BZh91AY&SY"),
        ("xz", b"\xfd7zXZ\0"),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("7z", b"7z\xbc\xaf\x27\x1c"),
        ("rar", b"Rar!\x1a\x07\x01\0"),
    ):
        yield _case(f"{name}-called-zip", content(".zip", head + bytes(100)), refused(E.UNSUPPORTED))


def _spellings() -> Iterator[Case]:
    png = originals.picture("png")
    for name, stem in (
        ("new-line", "new\nline"),
        ("escape-codes", "\x1b[2J\x1b[31mred\x07"),
        ("right-to-left", "\u202egnp.exe"),
        ("composed", "\u00e9"),
        ("decomposed", "e\u0301"),
        ("emoji", "\U0001f468\u200d\U0001f469"),
        ("markup", "[bold][red]{0} %s ["),
        ("sql", "'; DROP TABLE faces; --"),
        ("shell", "$(touch escaped) `id` ; &"),
        ("backslash", "x\\..\\..\\x"),
        ("spaces", " x "),
        ("dots", "...x"[3:] + "..."),
        ("longest", "n" * 251),
        ("longest-in-bytes", "\u00e9" * 125),
        ("of-no-unicode", b"\xff\xfe\x80".decode("utf-8", "surrogateescape")),
        ("lone-surrogate", b"\xed\xa0\x80".decode("utf-8", "surrogateescape")),
    ):
        yield _case(f"name-{name}", content(".png", png, stem=stem), right())

    def both_forms(folder: Path) -> Path:
        (folder / "e\u0301.png").write_bytes(png)
        return content(".png", png, stem="\u00e9")(folder)

    both = Outcome(frames=PICTURE * 2, complete=True, faces=frozenset({1}))
    yield _case("name-in-both-forms", both_forms, both, sources=2)

    def deep(folder: Path) -> Path:
        path = folder
        for _ in range(12):
            path /= "d" * 200
        path.mkdir(parents=True)
        return content(".png", png)(path)

    yield _case("deep-below", deep, right())


def _things() -> Iterator[Case]:
    png = originals.picture("png")
    yield _case("fifo", _made(os.mkfifo), right(()), sources=0)
    yield _case("fifo-named", _made(os.mkfifo), refused(E.NOT_MEDIA), is_named=True)
    yield _case("socket", _made(_socket), right(()), sources=0)
    yield _case("socket-named", _made(_socket), refused(E.NOT_MEDIA, E.UNREACHABLE), is_named=True)
    yield _case("link-to-a-device", _link("/dev/zero"), right(()), sources=0)
    yield _case("link-to-a-device-named", _link("/dev/zero"), refused(E.NOT_MEDIA), is_named=True)
    yield _case("link-to-nothing", _link("nowhere.png"), refused(E.NOT_FOUND))
    yield _case("link-to-itself", _link("file.png"), refused(E.NOT_FOUND, E.UNREACHABLE))
    yield _case("folder-called-png", _made(os.mkdir), right(()), sources=0)

    def linked(folder: Path) -> Path:
        path = content(".data", png)(folder)
        (folder / "link.png").symlink_to(path.name)
        return folder / "link.png"

    yield _case("link-to-a-picture", linked, right())

    def loop(folder: Path) -> Path:
        (folder / "again").symlink_to(folder)
        return content(".png", png)(folder)

    yield _case("folder-in-itself", loop, right())

    def missing(folder: Path) -> Path:
        return folder / "never-there.mp4"

    yield _case("missing-named", missing, refused(E.NOT_FOUND), is_named=True)


def _case(name: str, write: Callable[[Path], Path], outcome: Outcome, **more: Any) -> Case:
    return Case(name=name, write=write, outcome=outcome, **more)


def _made(make: Callable[[str], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        make(str(folder / "file.png"))
        return folder / "file.png"

    return write


def _socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY)  # the address may not be longer than 107 bytes
        try:
            listener.bind(f"/proc/self/fd/{descriptor}/{os.path.basename(path)}")
        finally:
            os.close(descriptor)


def _link(target: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "file.png").symlink_to(target)
        return folder / "file.png"

    return write
