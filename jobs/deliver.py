"""A finished file put where the user wants it: in one step, so that a stopped command leaves no half."""

from __future__ import annotations

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
    if target.exists() and _is_stream(target):
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / f"unfinished{target.suffix}"
            what = write(path)
            # Appending: /dev/stdout may be a file that was opened to be added to.
            with path.open("rb") as finished, target.open("ab") as stream:
                shutil.copyfileobj(finished, stream)
        return what
    if not target.parent.is_dir():
        raise UsageError(f"--to {to}: there is no folder {target.parent}")
    if target.is_dir():
        raise UsageError(f"--to {to} is a folder: name a file in it")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"--to {to}: the folder {target.parent} can't be written")
    unfinished = target.with_name(f".{target.stem}-{os.getpid()}{target.suffix}")
    try:
        what = write(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return what


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
