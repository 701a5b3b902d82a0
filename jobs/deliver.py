"""A finished file put where the user wants it: in one step, so that a stopped command leaves no half."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.errors import UsageError
from pipeline.media.locations import open_filesystem
from pipeline.storage.options import fsspec_options

T = TypeVar("T")


def deliver(to: str, options: dict[str, str], write: Callable[[Path], T]) -> T:
    """What `write` returns, after it has written the file. `to` may be a URL.

    Raises UsageError if the folder does not exist.
    """
    if "://" in to and not to.startswith("file://"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"unfinished{Path(to).suffix}"
            what = write(path)
            filesystem, target = open_filesystem(to, fsspec_options(options))
            filesystem.put_file(str(path), target)
        return what
    target_path = Path(to.removeprefix("file://"))
    if not target_path.absolute().parent.is_dir():
        raise UsageError(f"--to {to}: there is no folder {target_path.absolute().parent}")
    unfinished = target_path.with_name(f".{target_path.stem}-{os.getpid()}{target_path.suffix}")
    try:
        what = write(unfinished)
        unfinished.replace(target_path)
    finally:
        unfinished.unlink(missing_ok=True)
    return what
