"""What a Store needs of a file system. Two kinds implement it: `store_local` and `store_remote`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import fsspec


class FileInfo(NamedTuple):
    """size in bytes; modified in seconds since the epoch by the store's clock."""

    size: int
    modified: float


class Backend(Protocol):
    """One try each, without retries. Errors are OSErrors or the library's own."""

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem: ...

    def read(self, path: str) -> bytes: ...

    def read_range(self, path: str, start: int, end: int) -> bytes: ...

    def write(self, path: str, data: bytes) -> None: ...

    def put_if_absent(self, path: str, data: bytes) -> bool: ...

    def upload(self, local_path: Path, path: str) -> None: ...

    def publish(self, staged: str, final: str) -> bool: ...

    def delete(self, paths: Sequence[str]) -> None: ...

    def info(self, path: str) -> FileInfo | None: ...

    def list(self, folder: str) -> dict[str, FileInfo]: ...

    def why_unsafe(self) -> str | None:
        """Why this file system can't create a file only if absent; None if it can, as far as can be told."""
        ...
