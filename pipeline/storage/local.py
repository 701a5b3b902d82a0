"""A folder: every file appears whole and survives a power cut once the call has returned.

Data is written to a temporary file and fsynced, takes its name in one step (`rename`, or `link` where it must not
replace anything: `rename` overwrites, and O_EXCL leaves an empty file after a crash), and the folder is fsynced.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import fsspec

from pipeline.storage.backend import FileInfo

TEMPORARY = "_ran/tmp"
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}  # what systems say of a link where there are none


class NoLinksError(OSError):
    """The file system has no hard links, as exFAT and some network and user-space file systems."""


class LocalBackend:
    """Files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        return fsspec.filesystem("file")

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with (self._root / path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def write(self, path: str, data: bytes) -> None:
        self._rename(self._temporary(lambda file: file.write(data)), self._root / path)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        final = self._root / path
        if final.exists():
            return False
        temporary = self._temporary(lambda file: file.write(data))
        try:
            _make_folder(final.parent)
            os.link(temporary, final)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise NoLinksError(error.errno, "no hard links", str(final)) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)
        sync(final.parent)
        return True

    def upload(self, local_path: Path, path: str) -> None:
        with local_path.open("rb") as source:
            self._rename(self._temporary(lambda file: shutil.copyfileobj(source, file, 1 << 20)), self._root / path)

    def publish(self, staged: str, final: str) -> bool:
        target = self._root / final
        try:
            self._rename(self._root / staged, target)
        except FileNotFoundError:
            return target.exists()
        return True

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            (self._root / path).unlink(missing_ok=True)
        for folder in {(self._root / path).parent for path in paths}:
            if folder.exists():
                sync(folder)

    def info(self, path: str) -> FileInfo | None:
        try:
            status = (self._root / path).stat()
        except FileNotFoundError:
            return None
        return FileInfo(status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None

    def list(self, folder: str) -> dict[str, FileInfo]:
        found: dict[str, FileInfo] = {}
        pending = [self._root / folder]
        while pending:
            try:
                with os.scandir(pending.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(Path(entry.path))
                        elif (status := _stat(entry)) is not None:
                            found[Path(entry.path).relative_to(self._root).as_posix()] = status
            except FileNotFoundError:
                continue
        return found

    def why_unsafe(self) -> str | None:
        return None

    def _temporary(self, fill: Callable[[BinaryIO], object]) -> Path:
        folder = self._root / TEMPORARY
        _make_folder(folder)
        path = folder / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
        except Exception:
            path.unlink(missing_ok=True)
            raise
        return path

    def _rename(self, source: Path, target: Path) -> None:
        _make_folder(target.parent)
        source.replace(target)
        sync(target.parent)


def _stat(entry: os.DirEntry[str]) -> FileInfo | None:
    try:
        status = entry.stat()
    except FileNotFoundError:  # deleted while we looked
        return None
    return FileInfo(status.st_size, status.st_mtime)


def _make_folder(folder: Path) -> None:
    """Creates a folder and its parents, each durable in its own parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    sync(folder.parent)


def sync(path: Path) -> None:
    """Returns once a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
