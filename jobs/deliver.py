"""A finished file put where the user wants it: in one step, so that a stopped command leaves no half."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.errors import UsageError
from pipeline.storage.store import Store

T = TypeVar("T")


def deliver(to: str, options: dict[str, str], write: Callable[[Path], T]) -> T:
    """What `write` returns, after it has written the file. `to` may be a URL, or a device or pipe to write through.

    Raises UsageError if there can be no such file, StoreError if a store does not take it.
    """
    if "://" in to and not to.startswith("file://"):
        folder, _, name = to.rpartition("/")
        if not name or folder.endswith(":/"):
            raise UsageError(f"--to {to} names no file: give a bucket and a name, like s3://bucket/name")
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / f"unfinished{Path(name).suffix}"
            what = write(path)
            Store(folder, options).upload(path, name)
        return what
    target = Path(to.removeprefix("file://")).absolute()
    if os.path.exists(target) and _is_stream(target):
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / f"unfinished{target.suffix}"
            what = write(path)
            # Appending: /dev/stdout may be a file that was opened to be added to.
            with path.open("rb") as finished, target.open("ab") as stream:
                shutil.copyfileobj(finished, stream)
        return what
    check_file_place(f"--to {to}", target)
    unfinished = target.with_name(f".unfinished-{os.getpid()}{target.suffix}")  # the name may be as long as can be
    try:
        what = write(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return what


def check_file_place(option: str, path: Path) -> None:
    """Raises UsageError, which begins with the option as it was given, where no such file can be written."""
    folder = path.absolute().parent
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{option}: the name is too long") from None
    if not folder.is_dir():
        raise UsageError(f"{option}: there is no folder {folder}")
    if path.is_dir():
        raise UsageError(f"{option} is a folder: name a file in it")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{option}: the folder {folder} can't be written")


def check_folder_place(option: str, path: Path) -> None:
    """The same of a folder that may be there already, and is made with those above it where it is not."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise UsageError(f"{option}: {there} is a file, and a folder is to be there")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{option}: the folder {there} can't be written")


def deliver_to_stdout(write: Callable[[Path], object]) -> None:
    """The bytes of the file that `write` writes, on standard output, however that was opened."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "unfinished"
        write(path)
        with path.open("rb") as finished:
            shutil.copyfileobj(finished, sys.stdout.buffer)
        sys.stdout.flush()


def _is_stream(path: Path) -> bool:
    """Whether the path is something other than a file to replace. /dev/stdout may lead to one, and stays a link."""
    return path.is_relative_to("/dev") or not (path.is_file() or path.is_dir())
