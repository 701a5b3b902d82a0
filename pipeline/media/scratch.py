"""The node's cache of remote sources: each is fetched once, by whichever process comes first, under a size cap.

Several actors share one directory without talking: a lock file per source decides who fetches, an atomic rename makes
the result visible, and a shared lock on the data file keeps the evictor away while a reader has it open. Files without
a lock file beside them are not ours and are left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsspec import AbstractFileSystem

from pipeline.errors import ErrorCode, MediaError, StoreError
from pipeline.media.locations import MISSING, local_fingerprint, local_path, open_filesystem, remote_fingerprint
from pipeline.media.spellings import other_keys, other_paths

ATTEMPTS = 4
#: A full disk fails everything else on the node, and Ray moves no objects to one that is 95 % full. Above 400 GiB this
#: is less than those 5 %: there the cache's cap must leave the room.
KEEP_FREE_SHARE, KEEP_FREE_AT_MOST_BYTES = 0.1, 20 << 30
_CHUNK_BYTES = 4 << 20
_PART = ".part"  # a file that is being written

T = TypeVar("T")


@dataclass(kw_only=True)
class LocalFile:
    """A source's bytes on this node. The cache keeps the file while this is open. fetch_s: time spent fetching."""

    path: Path
    fetch_s: float = 0.0
    _lock: int | None = None

    def close(self) -> None:
        """Lets the cache evict the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> LocalFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Scratch:
    """directory: where fetched files lie, by default a folder for this user in the temporary directory.
    capacity_bytes: the most that they may take together; 0 means as much as the disk allows."""

    def __init__(self, directory: str | None = None, *, capacity_bytes: int = 0) -> None:
        self.directory = Path(directory or Path(tempfile.gettempdir()) / f"ran-scratch-{os.getuid()}")
        self.capacity_bytes = capacity_bytes

    def open(
        self, *, source_id: str, location: str, fingerprint: str, size_bytes: int, storage_options: Mapping[str, Any]
    ) -> LocalFile:
        """The source as a local file; local sources are used in place.

        Raises MediaError: not_found, permission, unreachable, source_changed, too_large; StoreError when the source's
        whole store is silent.
        """
        if local_path(location) is not None:
            return check_in_place(location, fingerprint)
        began = time.perf_counter()

        def fetch(target: Path) -> None:
            _fetch(location, fingerprint, target, storage_options)

        found = self.derived(source_id, size_bytes, fetch)
        found.fetch_s = time.perf_counter() - began
        return found

    def derived(self, name: str, size_bytes: int, make: Callable[[Path], None]) -> LocalFile:
        """A file that `make` writes unless the cache has it. size_bytes: room to make first; 0 for something small of
        unknown size, which may take half of what stays free.

        Raises MediaError too_large; StoreError when the disk is full of other things.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        target = self.directory / name
        while True:
            found = self._held(target)
            if found is not None:
                return found
            with self._locked(target) as lock:
                if target.exists():
                    continue
                part = self.directory / f"{name}{_PART}"
                try:
                    os.ftruncate(lock, max(0, size_bytes))  # a hole: takes nothing, and tells others what will come
                    part.touch()
                    self._make_room(size_bytes, part)
                    make(part)
                    part.replace(target)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise self._full(size_bytes) from None
                    raise
                finally:
                    part.unlink(missing_ok=True)
                    os.ftruncate(lock, 0)
                found = self._held(target)
                if found is not None:
                    return found

    def room_bytes(self) -> int:
        """How much can be fetched at once when all gives way that is cached and not in use: the cap, or what the disk
        has for it. Makes no folder."""
        total, free = disk_space(self.directory)
        if self.directory.is_dir():
            for entry, lock in self._files():
                if _is_idle(lock.path if _is_part(entry) else entry.path):
                    free += _size(entry)
        room = max(0, free - kept_free_bytes(total))
        return min(room, self.capacity_bytes) if self.capacity_bytes else room

    def _files(self) -> Iterator[tuple[os.DirEntry[str], os.DirEntry[str]]]:
        """The cache's files, finished ones and parts, each with its lock file."""
        entries = {entry.name: entry for entry in os.scandir(self.directory)}
        for name, entry in entries.items():
            lock = entries.get(f".{name.removesuffix(_PART)}.lock")
            if lock is not None:
                yield entry, lock

    def _free_bytes(self, wanted: int) -> int:
        """What the disk has left without what stays free; less than nothing when others have filled it."""
        total, free = disk_space(self.directory)
        kept = kept_free_bytes(total)
        return free - (kept if wanted > 0 else kept // 2)

    def _held(self, target: Path) -> LocalFile | None:
        try:
            lock = os.open(target, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            same = target.stat().st_ino == os.fstat(lock).st_ino
        except FileNotFoundError:
            same = False
        if not same:  # evicted between open and lock
            os.close(lock)
            return None
        os.utime(lock)  # last use decides what is evicted
        return LocalFile(path=target, _lock=lock)

    @contextlib.contextmanager
    def _locked(self, target: Path) -> Iterator[int]:
        """One process at a time for this file. The lock file is kept: removing it would let two in."""
        lock = os.open(self.directory / f".{target.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _make_room(self, wanted: int, part: Path) -> None:
        """Evicts until `wanted` bytes fit beside what others are fetching, or all is in use. part: of who asks."""
        if self.capacity_bytes and wanted > self.capacity_bytes:
            raise MediaError(
                ErrorCode.TOO_LARGE,
                f"{wanted} bytes, but the scratch cache may hold {self.capacity_bytes}: give it more",
            )
        cached, coming, unwritten = [], 0, 0
        for entry, lock in self._files():
            with contextlib.suppress(FileNotFoundError):
                if not _is_part(entry):
                    cached.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
                elif entry.path != str(part) and not _remove_if_idle(entry.path, lock.path):
                    written = entry.stat().st_size
                    size = max(written, lock.stat().st_size)
                    coming, unwritten = coming + size, unwritten + size - written
        used = sum(size for _, size, _ in cached)
        if self._free_bytes(wanted) + used < wanted:  # then it would be in vain
            raise self._full(wanted)
        for _, size, path in sorted(cached):
            if not self._too_full(used + coming, wanted, unwritten):
                return
            if _remove_if_idle(path, path):
                used -= size
        # What others are fetching may still take of what stays free: to wait for them could be for ever.
        if self._free_bytes(wanted) < wanted:
            raise self._full(wanted)

    def _too_full(self, used: int, wanted: int, unwritten: int) -> bool:
        over = bool(self.capacity_bytes) and used + wanted > self.capacity_bytes
        return over or self._free_bytes(wanted) - unwritten < wanted

    def _full(self, wanted: int) -> MediaError | StoreError:
        """One source's fault if even the empty disk could not hold it; else the disk's, which ends the run."""
        total, free = disk_space(self.directory)
        kept = kept_free_bytes(total)
        reason = (
            f"{wanted} bytes don't fit on the scratch disk ({free} free at {self.directory}, of which {kept} stay free)"
        )
        if wanted + kept > total:
            return MediaError(ErrorCode.TOO_LARGE, f"{reason}: give another --scratch")
        return StoreError(f"{reason}; free space or give another --scratch, and run the same command again to resume")


def kept_free_bytes(total: int) -> int:
    """What the cache leaves free on a disk of that size."""
    return min(int(total * KEEP_FREE_SHARE), KEEP_FREE_AT_MOST_BYTES)


def disk_space(path: Path) -> tuple[int, int]:
    """Total and free bytes of the disk where `path` is, or will be."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    usage = shutil.disk_usage(existing)
    return usage.total, usage.free


def _is_part(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(_PART)


def _size(entry: os.DirEntry[str]) -> int:
    """0 for what is gone by now."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _alone(path: str) -> Iterator[bool]:
    """Whether nobody has a lock on this file, or it is gone; until the end nobody gets one."""
    with contextlib.ExitStack() as stack:
        is_alone = True
        try:
            file = os.open(path, os.O_RDONLY)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass
        except (BlockingIOError, PermissionError):  # in use, or another user's
            is_alone = False
        yield is_alone


def _is_idle(lock: str) -> bool:
    """Whether nobody reads or writes the file that this lock is for."""
    with _alone(lock) as is_alone:
        return is_alone


def _remove_if_idle(path: str, lock: str) -> bool:
    """Removes a file that nobody reads, or a part whose writer was killed. Whether it is gone."""
    with _alone(lock) as is_alone:
        if is_alone:
            Path(path).unlink(missing_ok=True)
        return is_alone


def check_in_place(location: str, fingerprint: str) -> LocalFile:
    """A local source where it lies: under this name, or another spelling of it if what lies there is what was planned.

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


def _in_place(path: str, fingerprint: str) -> LocalFile:
    try:
        status = Path(path).stat()
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        raise classify(error, path) from None
    _check(local_fingerprint(status), fingerprint)
    return LocalFile(path=Path(path))


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


def _fetch(location: str, fingerprint: str, target: Path, storage_options: Mapping[str, Any]) -> None:
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
