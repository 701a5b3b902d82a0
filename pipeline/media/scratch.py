"""The node's cache of remote sources: each is fetched once, by whichever process comes first, under a size cap.

Several actors share one directory without talking: a lock file per source decides who fetches, an atomic rename makes
the result visible, and a shared lock on the data file keeps the evictor away while a reader has it open. Files without
a lock file beside them are not ours and are left alone.

There may be a million small pictures: what a fetch costs must not grow with what is cached. So what all take is kept
as a tally, and the folder is looked through only when something has to go; then a twentieth of the files goes with it.

    .incoming/NAME   being written       .NAME.lock   who writes NAME; its size: what will come
    NAME             cached              .tally       bytes that all that is cached takes
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ErrorCode, MediaError, StoreError
from pipeline.media.fetch import check_in_place, fetch
from pipeline.media.locations import local_path
from pipeline.storage.local import sync

#: A full disk fails everything else on the node, and Ray moves no objects to one that is 95 % full. Above 400 GiB this
#: is less than those 5 %: there the cache's cap must leave the room.
KEEP_FREE_SHARE, KEEP_FREE_AT_MOST_BYTES = 0.1, 20 << 30
SPARE_SHARE = 20  # of so many files one more goes than has to
_INCOMING, _TALLY = ".incoming", ".tally"


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
        self._incoming = self.directory / _INCOMING
        self._tally = _Tally(self.directory / _TALLY)

    def open(
        self, *, source_id: str, location: str, fingerprint: str, size_bytes: int, storage_options: Mapping[str, Any]
    ) -> LocalFile:
        """The source as a local file; local sources are used in place.

        Raises MediaError: not_found, permission, unreachable, source_changed, too_large; StoreError when the source's
        whole store is silent.
        """
        if local_path(location) is not None:
            return LocalFile(path=check_in_place(location, fingerprint))
        began = time.perf_counter()

        def make(target: Path) -> None:
            fetch(location, fingerprint, target, storage_options)

        found = self.derived(source_id, size_bytes, make)
        found.fetch_s = time.perf_counter() - began
        return found

    def derived(self, name: str, size_bytes: int, make: Callable[[Path], None]) -> LocalFile:
        """A file that `make` writes unless the cache has it. size_bytes: room to make first; 0 for something small of
        unknown size, which may take half of what stays free.

        Raises MediaError too_large; StoreError when the disk is full of other things.
        """
        self._incoming.mkdir(parents=True, exist_ok=True)
        target = self.directory / name
        while True:
            found = self._held(target)
            if found is not None:
                return found
            with self._locked(target) as lock:
                if target.exists():
                    continue
                self._write(target, lock, size_bytes, make)
                found = self._held(target)
                if found is not None:
                    return found

    def room_bytes(self) -> int:
        """How much can be fetched at once when all gives way that is cached and not in use: the cap, or what the disk
        has for it. Makes no folder."""
        total, free = disk_space(self.directory)
        if self.directory.is_dir():
            free += sum(one.size_bytes for one in self._cached() if _is_idle(one.path))
            free += sum(_size(part) for part in self._parts() if _is_idle(self._lock_path(part.name)))
        room = max(0, free - kept_free_bytes(total))
        return min(room, self.capacity_bytes) if self.capacity_bytes else room

    def _write(self, target: Path, lock: int, size_bytes: int, make: Callable[[Path], None]) -> None:
        part = self._incoming / target.name
        try:
            os.ftruncate(lock, max(0, size_bytes))  # a hole: takes nothing, and tells others what will come
            part.touch()
            self._make_room(size_bytes, part)
            make(part)
            sync(part)  # it is known by its name alone: after a power cut there must be no name without the bytes
            self._tally.add(part.stat().st_size)
            part.replace(target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(size_bytes) from None
            raise
        finally:
            part.unlink(missing_ok=True)
            os.ftruncate(lock, 0)

    def _held(self, target: Path) -> LocalFile | None:
        try:
            lock = os.open(target, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not _is_at(lock, target):  # evicted between open and lock
            os.close(lock)
            return None
        os.utime(lock)  # last use decides what is evicted
        return LocalFile(path=target, _lock=lock)

    @contextlib.contextmanager
    def _locked(self, target: Path) -> Iterator[int]:
        """One process at a time for this file. The lock file goes with what is evicted, so who had to wait for it looks
        whether it is still there."""
        path = self._lock_path(target.name)
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _is_at(lock, path):
                    yield lock
                    return
            finally:
                os.close(lock)

    def _lock_path(self, name: str) -> Path:
        return self.directory / f".{name}.lock"

    def _cached(self) -> list[_Cached]:
        """What is finished and ours, the least recently used first."""
        entries = {entry.name: entry for entry in os.scandir(self.directory)}
        cached = []
        for name, entry in entries.items():
            if f".{name}.lock" in entries:
                with contextlib.suppress(FileNotFoundError):
                    cached.append(_Cached(entry.stat().st_mtime_ns, entry.stat().st_size, Path(entry.path)))
        return sorted(cached)

    def _parts(self) -> list[os.DirEntry[str]]:
        """What is being written, or was when its writer was killed: as many as there are actors."""
        return list(os.scandir(self._incoming)) if self._incoming.is_dir() else []

    def _under_way(self, but: Path) -> tuple[int, int]:
        """What the others' parts will take when they are whole, and what of it the disk does not have yet. Removes
        those whose writer was killed."""
        coming = unwritten = 0
        for entry in self._parts():
            lock = self._lock_path(entry.name)
            if entry.name == but.name or _remove_if_idle(Path(entry.path), lock):
                continue
            with contextlib.suppress(FileNotFoundError):
                written = entry.stat().st_size
                size = max(written, lock.stat().st_size)
                coming, unwritten = coming + size, unwritten + size - written
        return coming, unwritten

    def _make_room(self, wanted: int, part: Path) -> None:
        """Evicts until `wanted` bytes fit beside what others are fetching, or all is in use. part: of who asks."""
        if self.capacity_bytes and wanted > self.capacity_bytes:
            raise MediaError(
                ErrorCode.TOO_LARGE,
                f"{wanted} bytes, but the scratch cache may hold {self.capacity_bytes}: give it more",
            )
        coming, unwritten = self._under_way(part)

        def is_too_full(used: int | None) -> bool:
            return used is None or self._too_full(used + coming, wanted, unwritten)

        if not is_too_full(self._tally.value()):
            return
        with self._tally.held() as tally:  # one process at a time; who had to wait may find that there is room by now
            if not is_too_full(tally.value):
                return
            cached = self._cached()
            tally.value = sum(one.size_bytes for one in cached)
            if self._free_bytes(wanted) + tally.value < wanted:  # then it would be in vain
                raise self._full(wanted)
            for one in self._to_evict(cached, lambda: is_too_full(tally.value)):
                if self._evict(one):
                    tally.value -= one.size_bytes
        # What others are fetching may still take of what stays free: to wait for them could be for ever.
        if self._free_bytes(wanted) < wanted:
            raise self._full(wanted)

    def _to_evict(self, cached: Sequence[_Cached], is_too_full: Callable[[], bool]) -> Iterator[_Cached]:
        """One by one, until it is not too full, and then some more, so that the next ones find room."""
        spare: int | None = None
        for one in cached:
            if is_too_full():
                spare = len(cached) // SPARE_SHARE
            elif not spare:
                return
            else:
                spare -= 1
            yield one

    def _evict(self, one: _Cached) -> bool:
        """Whether it is gone, with its lock file: nobody was reading it."""
        if not _remove_if_idle(one.path, one.path):
            return False
        lock = self._lock_path(one.path.name)
        _remove_if_idle(lock, lock)
        return True

    def _free_bytes(self, wanted: int) -> int:
        """What the disk has left without what stays free; less than nothing when others have filled it."""
        total, free = disk_space(self.directory)
        kept = kept_free_bytes(total)
        return free - (kept if wanted > 0 else kept // 2)

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


class _Cached(NamedTuple):
    used_at_ns: int
    size_bytes: int
    path: Path


@dataclass
class _HeldTally:
    """value: None where nobody has counted yet."""

    value: int | None


class _Tally:
    """How many bytes all that is cached takes, in a file that processes share. A killed process may leave it too high
    by what it was about to add, and whoever removes files by hand too: who has to evict counts anew."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def value(self) -> int | None:
        """None where nobody has counted yet."""
        try:
            return _number(self._path.read_bytes())
        except FileNotFoundError:
            return None

    def add(self, size_bytes: int) -> None:
        """Adds to it, if it is known."""
        with self.held() as tally:
            if tally.value is not None:
                tally.value += size_bytes

    @contextlib.contextmanager
    def held(self) -> Iterator[_HeldTally]:
        """For one process at a time, to read and to set."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            tally = _HeldTally(_number(os.pread(file, 32, 0)))
            try:
                yield tally
            finally:
                if tally.value is not None:
                    os.pwrite(file, b"%020d" % max(0, tally.value), 0)  # as long each time: a reader sees all of one
        finally:
            os.close(file)


def _number(content: bytes) -> int | None:
    return int(content) if content.isdigit() else None


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still what lies there."""
    try:
        return os.fstat(file).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


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


def _size(entry: os.DirEntry[str]) -> int:
    """0 for what is gone by now."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
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


def _is_idle(lock: Path) -> bool:
    """Whether nobody reads or writes the file that this lock is for."""
    with _alone(lock) as is_alone:
        return is_alone


def _remove_if_idle(path: Path, lock: Path) -> bool:
    """Removes a file that nobody reads, or a part whose writer was killed. Whether it is gone."""
    with _alone(lock) as is_alone:
        if is_alone:
            path.unlink(missing_ok=True)
        return is_alone
