"""One source's bytes, as they were planned: where a local one lies, or a remote one copied to a file."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fsspec import AbstractFileSystem

from pipeline.errors import ErrorCode, MediaError, StoreError
from pipeline.media.locations import MISSING, local_fingerprint, local_path, open_filesystem, remote_fingerprint
from pipeline.media.spellings import other_keys, other_paths

ATTEMPTS = 4
_CHUNK_BYTES = 4 << 20

T = TypeVar("T")


def check_in_place(location: str, fingerprint: str) -> Path:
    """Where a local source lies: under this name, or another spelling of it if what lies there is what was planned.

    Raises MediaError not_found, permission or source_changed.
    """
    path = local_path(location) or location
    try:
        return _in_place(path, fingerprint)
    except MediaError:
        for other in other_paths(path):
            with contextlib.suppress(MediaError):
                return _in_place(other, fingerprint)
        raise


def _in_place(path: str, fingerprint: str) -> Path:
    try:
        status = Path(path).stat()
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        raise classify(error, path) from None
    _check(local_fingerprint(status), fingerprint)
    return Path(path)


def _check(now: str, planned: str) -> None:
    if planned == MISSING:
        raise MediaError(
            ErrorCode.SOURCE_CHANGED, "it wasn't there when it was listed, and is now; `run` with it again"
        )
    if now != planned:
        raise MediaError(
            ErrorCode.SOURCE_CHANGED,
            f"it has changed since it was listed (size and mark were {planned} and are {now}); `run` with it again, or "
            "put back what was there",
        )


def name_of_object(filesystem: AbstractFileSystem, path: str, fingerprint: str) -> str:
    """What the planned object is called: `path`, or another spelling of it.

    Raises MediaError source_changed, and what the filesystem says of `path` if there is none.
    """
    try:
        _check(remote_fingerprint(filesystem.info(path)), fingerprint)
    except (FileNotFoundError, PermissionError, MediaError):  # some stores forbid to look for what is not there
        for other in other_keys(path):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                if remote_fingerprint(filesystem.info(other)) == fingerprint:
                    return other
        raise
    return path


def fetch(location: str, fingerprint: str, target: Path, storage_options: Mapping[str, Any]) -> None:
    """Writes a remote source, if it is what was planned, to a file.

    Raises MediaError: not_found, permission, unreachable, source_changed; StoreError when the source's whole store is
    silent; OSError when the disk is full.
    """
    filesystem, path = open_filesystem(location, storage_options)

    def once() -> None:
        name = name_of_object(filesystem, path, fingerprint)
        with (
            filesystem.open(name, "rb", block_size=_CHUNK_BYTES, cache_type="readahead") as remote,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(remote, file, _CHUNK_BYTES)
        size, expected = target.stat().st_size, int(fingerprint.partition(":")[0])
        if expected and size != expected:  # some web servers don't tell a size: then it is noted as 0
            raise OSError(f"got {size} bytes of {expected}")

    try:
        retried(once, location)
    except MediaError as error:
        if error.code == ErrorCode.UNREACHABLE:
            _check_answers(filesystem, path, location)
        raise


def _check_answers(filesystem: AbstractFileSystem, path: str, location: str) -> None:
    """Raises StoreError if the store says nothing about its root either: then it is at fault and not one source."""
    if "://" in path:  # http and its like
        return
    root = path.partition("/")[0]
    try:
        retried(lambda: filesystem.info(root), root)
    except MediaError as error:
        if error.code == ErrorCode.UNREACHABLE:
            name = f"{location.partition('://')[0]}://{root}"
            raise StoreError(f"{name} does not answer; run the same command again to resume") from None


def retried(call: Callable[[], T], name: str) -> T:
    """`call`, again after transient errors, with growing and random pauses; what remains is raised as MediaError."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if isinstance(error, (MediaError, MemoryError)):
                raise
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            known = classify(error, name)
            if known.code != ErrorCode.UNREACHABLE or attempt == ATTEMPTS - 1:
                raise known from None
            time.sleep(0.2 * 2**attempt * (0.5 + random.random()))
    raise AssertionError("unreachable")


def classify(error: BaseException, name: str) -> MediaError:
    """What an error of a filesystem means for this one input. The message names no address and no secret."""
    kind = type(error).__name__
    status = _refusal(error)
    if status is not None:
        return MediaError(
            ErrorCode.PERMISSION,
            f"its server answers {status}; if its URL had a signature or a password: these are not stored, so `retry`, "
            "`reprocess` and `overlay` can't give them, and one given to `run` may have expired",
        )
    if isinstance(error, FileNotFoundError) and _is_silence(error.__cause__):
        return MediaError(ErrorCode.UNREACHABLE, f"its server does not answer ({type(error.__cause__).__name__})")
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else kind
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return MediaError(ErrorCode.NOT_FOUND, "there is no such file or object")
    if isinstance(error, PermissionError) or kind in ("NoCredentialsError", "PartialCredentialsError"):
        return MediaError(ErrorCode.PERMISSION, f"it may not be read ({reason})")
    if isinstance(error, IsADirectoryError):
        return MediaError(ErrorCode.NOT_MEDIA, "it is a directory")
    return MediaError(ErrorCode.UNREACHABLE, f"it can't be read ({reason})")


def _is_silence(cause: BaseException | None) -> bool:
    """Whether a server said nothing, or nothing of the file; fsspec calls that, too, a file that is not found."""
    status = getattr(cause, "status", None)
    return cause is not None and (status is None or status == 429 or status >= 500)


def _refusal(error: BaseException) -> int | None:
    """The HTTP status by which a web server refuses what may be there; fsspec calls that a file that is not found."""
    statuses = (getattr(one, "status", None) for one in (error, error.__cause__))
    return next((status for status in statuses if status in (401, 403)), None)
