"""Pictures and videos in tar, tar.gz and zip: an index of members first, then each read through it. Nothing is ever
unpacked under its own name, and a tar.gz not at all: it is streamed forward (`pipeline.media.gunzip`).

Members count by ordinal, so equal names are two pictures. Links, directories and devices are no media, whatever they
are called; other files (a WebDataset sample's text, json or class) are left alone.
"""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.errors import ErrorCode, MediaError
from pipeline.media.gunzip import Gunzip
from pipeline.media.sniff import HEAD_BYTES, PICTURE_SUFFIXES, is_video_name, sniff, suffix
from pipeline.segments import Member

MAX_MEMBER_BYTES = 512 << 20
_CHUNK_BYTES = 1 << 20
_MEMBER_ERRORS = (
    OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError, ValueError,
    struct.error,
)  # fmt: skip
_ARCHIVE_ERRORS = (
    EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError,
    ValueError, OverflowError, RecursionError, LookupError, struct.error,  # what both modules let through
)  # fmt: skip
_LARGEST_BYTES = 1 << 43  # no member has more, and ext4 has offsets up to twice that
_MOST_HEADER_BYTES = 16 << 20
_LOST = -1  # size of the entry that stands for the rest of a damaged tar
_SPARSE = -2  # size of a file with holes, whose bytes are not together


class Archive:
    """An open tar, tar.gz or zip.

    Raises MediaError truncated, corrupt, unsupported, or not_media for gzip of something else.
    """

    def __init__(self, path: Path) -> None:
        file = path.open("rb")
        self._file: IO[bytes] | Gunzip = file
        self._zip: zipfile.ZipFile | None = None
        self._entries: list[zipfile.ZipInfo] = []
        content = sniff(file.read(HEAD_BYTES))
        file.seek(0)
        if content.format == "zip":
            with _explained():
                self._zip = zipfile.ZipFile(file)
                self._entries = self._zip.infolist()
        elif content.format == "tar.gz":
            file.close()
            self._file = Gunzip(path)
            _check_is_tar(self._file)
        elif content.format != "tar":
            raise MediaError(ErrorCode.UNSUPPORTED, f"{content.format} where a tar archive should be")

    def members(self) -> list[Member]:
        """Pictures and videos in archive order. Raises MediaError truncated or corrupt."""
        with _explained():
            return list(self._zip_members() if self._zip is not None else self._tar_members())

    def go_to(self, member: Member) -> None:
        """Takes the time that it takes to get there: much, only in a tar.gz."""
        if isinstance(self._file, Gunzip) and member.size >= 0:
            self._file.seek(member.offset)

    def read(self, member: Member) -> io.BytesIO:
        """A member's bytes. Raises MediaError with code archive_member; the other members can still be read."""
        if member.size == _LOST:
            raise MediaError(ErrorCode.ARCHIVE_MEMBER, f"damaged at byte {member.offset}: what follows is lost")
        _check_is_whole(member)
        if member.size > MAX_MEMBER_BYTES:
            raise _bad(member, f"{member.size} bytes; at most {MAX_MEMBER_BYTES} are read")
        try:
            with self._stream(member) as stream:
                data = stream.read(member.size)
        except _MEMBER_ERRORS as error:
            raise _bad(member, str(error) or type(error).__name__) from None
        if len(data) != member.size:
            raise _bad(member, f"{len(data)} of {member.size} bytes are there")
        return io.BytesIO(data)

    def copy(self, member: Member, target: Path) -> None:
        """Writes a member, of any size, to a file. What a tar that was cut off still has of it is copied.

        Raises MediaError archive_member; OSError when the disk is full.
        """
        _check_is_whole(member)
        with target.open("wb") as file:
            try:
                with self._stream(member) as stream:
                    while file.tell() < member.size and (
                        chunk := stream.read(min(_CHUNK_BYTES, member.size - file.tell()))
                    ):
                        file.write(chunk)
            except _MEMBER_ERRORS as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise _bad(member, str(error) or type(error).__name__) from None

    def close(self) -> None:
        """Closes the file."""
        if self._zip is not None:
            self._zip.close()
        self._file.close()

    def _tar_members(self) -> Iterator[Member]:
        start: int | None = 0
        ordinal = 0
        while start is not None:
            self._file.seek(start)
            file: Any = _Headers(self._file)
            with tarfile.open(fileobj=file, mode="r:", errorlevel=1) as archive:
                with contextlib.suppress(
                    tarfile.ReadError
                ):  # the end is missing; a last member, cut, says so when read
                    while (entry := archive.next()) is not None:
                        if not 0 <= entry.size <= _LARGEST_BYTES:  # below zero, reading would go round for ever
                            yield Member(ordinal=ordinal, name="", offset=entry.offset, size=_LOST)
                            return
                        if entry.isreg() and _is_wanted(entry.name):
                            size = _SPARSE if entry.issparse() else entry.size
                            yield _member(ordinal, entry.name, entry.offset_data, size)
                        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every entry otherwise
                        ordinal += 1
                end = archive.offset
            self._file.seek(end)
            if any(self._file.read(tarfile.BLOCKSIZE)):  # tarfile takes a damaged header for the end
                yield Member(ordinal=ordinal, name="", offset=end, size=_LOST)
                return
            start = self._next_part(end)

    def _next_part(self, end: int) -> int | None:
        """Where another tar begins behind the zeros that end one, if archives were joined (`cat a.tar b.tar`)."""
        self._file.seek(end)
        while block := self._file.read(tarfile.BLOCKSIZE):
            if any(block):
                try:
                    tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                except tarfile.HeaderError:  # whatever it is, tar's own programs don't look at it
                    return None
                return end
            end += tarfile.BLOCKSIZE
        return None

    def _zip_members(self) -> Iterator[Member]:
        for ordinal, entry in enumerate(self._entries):
            file_type = entry.external_attr >> 28  # of the Unix mode: 0 when not made on Unix, 8 for regular files
            if not entry.is_dir() and file_type in (0, 8) and _is_wanted(entry.filename):
                yield _member(ordinal, entry.filename, entry.header_offset, entry.file_size)

    @contextlib.contextmanager
    def _stream(self, member: Member) -> Iterator[IO[bytes] | Gunzip]:
        if self._zip is None:
            self._file.seek(member.offset)
            yield self._file
            return
        entry = self._entries[member.ordinal] if member.ordinal < len(self._entries) else None
        if entry is None or entry.header_offset != member.offset:
            raise ValueError("the archive's index has changed")
        if entry.flag_bits & 1:
            raise ValueError("it is encrypted")
        with self._zip.open(entry) as stream:
            yield stream


class _Headers:
    """A file of which only headers are read, and never much at once: one may say that a name has exabytes."""

    def __init__(self, file: IO[bytes] | Gunzip) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        return self._file.read(max(0, min(size, _MOST_HEADER_BYTES)))


def _check_is_tar(file: Gunzip) -> None:
    """Raises MediaError when something else was packed."""
    head = file.read(tarfile.BLOCKSIZE)
    if not head:
        raise MediaError(ErrorCode.TRUNCATED, "the archive ends early: nothing comes out of it")
    try:
        is_tar = sniff(head).format == "tar"
    except MediaError:
        is_tar = False
    if not is_tar:
        raise MediaError(ErrorCode.NOT_MEDIA, "gzip of something that is no tar archive")
    file.seek(0)


def _member(ordinal: int, name: str, offset: int, size: int) -> Member:
    printable = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Member(ordinal=ordinal, name=printable, offset=offset, size=size)


def _is_wanted(name: str) -> bool:
    hidden = name.rsplit("/", 1)[-1].startswith(".")  # ._name: attributes that macOS puts beside a picture
    return (suffix(name) in PICTURE_SUFFIXES or is_video_name(name)) and not hidden


def _check_is_whole(member: Member) -> None:
    if member.size == _SPARSE:
        raise _bad(member, "it is stored with holes, which are not read; pack it without --sparse")


def _bad(member: Member, reason: str) -> MediaError:
    return MediaError(ErrorCode.ARCHIVE_MEMBER, f"{member.name}: {reason}")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns what tarfile and zipfile raise about a whole archive into a MediaError."""
    try:
        yield
    except _ARCHIVE_ERRORS as error:
        text = str(error)
        if isinstance(error, EOFError) or "unexpected end of data" in text or "not a zip file" in text:
            raise MediaError(ErrorCode.TRUNCATED, f"the archive ends early: {text}") from None
        raise MediaError(ErrorCode.CORRUPT, f"the archive is damaged: {text}") from None
