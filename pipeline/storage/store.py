"""Where a dataset lives: a local folder or any fsspec filesystem that can create a file only if it is absent.

Paths are posix and relative to the root. Transient errors are retried; what stays wrong becomes a StoreError that names
the path and the cause. A Store pickles; its options travel with it but are never shown.
"""

from __future__ import annotations

import errno
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import fsspec
import pyarrow.fs as pafs

from pipeline.errors import NoPlaceError, StoreError, UsageError
from pipeline.storage.backend import Backend, FileInfo
from pipeline.storage.local import LocalBackend, NoLinksError
from pipeline.storage.options import filesystem, fsspec_options
from pipeline.storage.ranged_file import RangedFile
from pipeline.storage.remote import RemoteBackend, is_bucket_missing
from pipeline.urls import without_credentials

__all__ = ["FileInfo", "Store", "fsspec_options"]

T = TypeVar("T")

_PERMANENT = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES,
    errno.ENOTDIR, errno.EISDIR, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOENT, errno.EEXIST,
}  # fmt: skip


class Store:
    """A dataset's root folder.

    url: a local path, file://… or another fsspec URL. storage_options: see `pipeline.storage.options`.
    attempts, backoff_s: a transient error is tried again this often, after backoff_s·2ⁿ seconds with jitter.
    Every method raises StoreError when the storage fails for good, NoPlaceError where there can be no such folder.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, str] | None = None,
        *,
        attempts: int = 6,
        backoff_s: float = 0.2,
    ) -> None:
        self.url = _normalised(url)
        self._options = dict(storage_options or {})
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._backend: Backend | None = None

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backend": None}

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine's file system (which may be shared)."""
        return "://" not in self.url

    def above(self) -> list[Store]:
        """The folders or prefixes that hold this one, up to the root or the bucket."""
        start = self.url.find("://") + 3 if not self.is_local else 0
        ends = [at for at, letter in enumerate(self.url) if letter == "/" and at > start]
        return [Store(self.url[:end], self._options) for end in ends]

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec filesystem, for readers such as DuckDB."""
        return fsspec.filesystem("file") if self.is_local else self._opened.filesystem

    @property
    def arrow_filesystem(self) -> pafs.FileSystem:
        """The pyarrow filesystem in which `path_of` names files."""
        return pafs.LocalFileSystem() if self.is_local else pafs.PyFileSystem(pafs.FSSpecHandler(self.filesystem))

    def url_of(self, path: str) -> str:
        """The full path or URL of a file, as DuckDB and Polars take it."""
        return f"{self.url}/{path}" if path else self.url

    def path_of(self, path: str) -> str:
        """The file's path inside `filesystem` and `arrow_filesystem`."""
        return self.url_of(path) if self.is_local else str(self.filesystem._strip_protocol(self.url_of(path)))

    def read_bytes(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError if there is none."""
        return self._call("read", path, lambda: self._opened.read(path))

    def open_ranges(self, path: str) -> RangedFile:
        """The file for readers that seek, such as Parquet's: it is fetched range by range, each retried like any read.

        Raises FileNotFoundError if there is none, now or while it is read.
        """
        return RangedFile(
            self.size(path),
            lambda start, end: self._call("read", path, lambda: self._opened.read_range(path, start, end)),
        )

    def write_bytes(self, path: str, data: bytes) -> None:
        """Creates or replaces the file, whole and durable or not at all."""
        self._call("write", path, lambda: self._opened.write(path, data))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Creates the file, whole and durable, unless it exists; of several racing writers one gets True.

        False may also mean that an earlier attempt of this very call succeeded and its answer was lost: data that must
        know carries a nonce, and the caller reads it back.
        """
        return self._call("put_if_absent", path, lambda: self._opened.put_if_absent(path, data))

    def upload(self, local_path: str | Path, path: str) -> None:
        """Copies a local file into the store, whole and durable or not at all."""
        self._call("upload", path, lambda: self._opened.upload(Path(local_path), path))

    def publish(self, staged: str, final: str) -> bool:
        """Moves a staged file to its final path in one step that no reader sees half of; again is harmless.

        Returns whether the final file exists afterwards: False means that neither does.
        """
        return self._call("publish", final, lambda: self._opened.publish(staged, final))

    def delete(self, path: str) -> None:
        """Deletes the file if it exists."""
        self._call("delete", path, lambda: self._opened.delete([path]))

    def delete_many(self, paths: Iterable[str]) -> None:
        """Deletes those of the files that exist."""
        listed = sorted(set(paths))
        if listed:
            self._call("delete", listed[0], lambda: self._opened.delete(listed))

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.info(path) is not None

    def size(self, path: str) -> int:
        """Size in bytes. Raises FileNotFoundError if there is no such file."""
        if (info := self.info(path)) is None:
            raise FileNotFoundError(self.url_of(path))
        return info.size

    def info(self, path: str) -> FileInfo | None:
        """Size and time of change by the store's clock, or None if there is no such file."""
        return self._call("info", path, lambda: self._opened.info(path))

    def list(self, folder: str) -> list[str]:
        """All files below a folder, sorted; none if it does not exist."""
        return sorted(self.list_info(folder))

    def list_info(self, folder: str) -> dict[str, FileInfo]:
        """All files below a folder with size and time of change."""
        return self._call("list", folder, lambda: self._opened.list(folder))

    def now(self) -> float:
        """Seconds since the epoch by the store's clock: the time of change of a file just written."""
        path = f"_ran/tmp/clock-{uuid.uuid4().hex}"
        self.write_bytes(path, b"")
        info = self.info(path)
        self.delete(path)
        if info is None:
            raise StoreError(f"{self.url_of(path)} vanished right after it was written")
        return info.modified

    def probe(self) -> None:
        """Checks that the store can be written and creates files only if absent.

        Raises UsageError if it can't, or can't be reached with the credentials there are.
        """
        path = f"_ran/tmp/probe-{uuid.uuid4().hex}"
        try:
            refused = self._opened.why_unsafe()
            if refused is None:
                self.put_if_absent(path, b"first")  # False may only mean that its answer was lost
                second, kept = self.put_if_absent(path, b"second"), self.read_bytes(path)
                self.delete(path)
                if (second, kept) != (False, b"first"):
                    refused = "a second file replaced the first instead of being refused"
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(error, NoPlaceError) and (isinstance(cause, PermissionError) or self.is_local):
                raise UsageError(f"output {self.url} can't be written: {_text(cause)}") from error
            raise
        if refused is not None:
            raise UsageError(
                f"output {self.url} can't hold a dataset: {refused}; use a local folder or S3 with conditional writes"
            )

    @property
    def _opened(self) -> Backend:
        if self._backend is None:
            if self.is_local:
                self._backend = LocalBackend(Path(self.url))
            else:
                self._backend = RemoteBackend(filesystem(self.url, self._options), self.url)
        return self._backend

    def _attempt(self, operation: str, path: str, act: Callable[[], T]) -> T:
        """One try of one operation. Fault tests override it."""
        return act()

    def _call(self, operation: str, path: str, act: Callable[[], T]) -> T:
        for attempt in range(self._attempts):
            try:
                return self._attempt(operation, path, act)
            except FileNotFoundError as error:
                if operation == "read" and not is_bucket_missing(error):
                    raise
                failure: BaseException = error
            except Exception as error:
                if not _is_storage_error(error):
                    raise
                failure = error
            if not _is_transient(failure) or attempt + 1 == self._attempts:
                break
            time.sleep(self._backoff_s * 2**attempt * random.uniform(0.5, 1.0))
        if (mend := self._mend(failure, path)) is not None:
            raise NoPlaceError(mend) from failure
        told = f"{operation} {self.url_of(path)}: {_text(failure)}"
        raise StoreError(f"{told}; run the same command again to resume") from failure

    def _mend(self, failure: BaseException, path: str) -> str | None:
        """What is wrong with the dataset's place, and what to do; None where that is not sure."""
        if is_bucket_missing(failure):
            bucket = self.url.split("/")[2]
            return f"{self.url}: there is no bucket {bucket}; correct the name, or make the bucket first"
        if isinstance(failure, NoLinksError):
            return (
                f"{self.url} can't hold a dataset: its file system has no hard links, without which nothing can be "
                "written only if it is absent; name a folder on another disk, or s3://"
            )
        if isinstance(failure, NotADirectoryError) and self.is_local:
            parents = Path(self.url_of(path)).parents
            file = next((parent for parent in parents if parent.exists() and not parent.is_dir()), None)
            if file is not None:
                return f"{self.url} can't hold a dataset: {file} is a file; name a folder, or move the file away"
        return None


def _normalised(url: str) -> str:
    if url.startswith("file:"):
        url = unquote(url.removeprefix("file:").removeprefix("//").removeprefix("localhost"))
    if "://" not in url:
        return str(Path(url).absolute())
    clean = without_credentials(url.replace("s3a://", "s3://", 1)).rstrip("/")
    if "://" not in clean:
        raise UsageError(f"output {url} names no bucket: give one, as in {url.rstrip('/')}//BUCKET/FOLDER")
    return clean


def _text(failure: BaseException | None) -> str:
    return without_credentials(str(failure)) or type(failure).__name__


def _is_storage_error(error: Exception) -> bool:
    """OSErrors, and those of aiobotocore and aiohttp that s3fs lets through; never a bug of ours."""
    return isinstance(error, (OSError, EOFError)) or type(error).__module__.split(".")[0] in (
        "botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs", "gcsfs", "adlfs", "azure", "google",
    )  # fmt: skip


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)):
        return False
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError"):
        return False
    return not (isinstance(error, OSError) and error.errno in _PERMANENT)
