"""An object store behind fsspec: objects appear whole; a conditional put creates one only if it is absent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import has_magic

from pipeline.storage.backend import FileInfo

#: Protocols whose fsspec filesystem creates with one conditional request (memory: within one process, for tests).
CONDITIONAL = {"s3", "gs", "abfs", "memory"}
_S3_KEYS_AT_ONCE = 1000  # no request may name more


class RemoteBackend:
    """Objects below `url`."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, url: str) -> None:
        self._filesystem = filesystem
        self._root = str(filesystem._strip_protocol(url)).rstrip("/")

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        return self._filesystem

    def read(self, path: str) -> bytes:
        return bytes(self._filesystem.cat_file(self._key(path)))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return bytes(self._filesystem.cat_file(self._key(path), start=start, end=end))

    def write(self, path: str, data: bytes) -> None:
        self._filesystem.pipe_file(self._key(path), data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        try:
            self._filesystem.pipe_file(self._key(path), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if _is_precondition_failed(error):
                return False
            raise
        return True

    def upload(self, local_path: Path, path: str) -> None:
        self._filesystem.put_file(str(local_path), self._key(path))

    def publish(self, staged: str, final: str) -> bool:
        try:
            self._filesystem.cp_file(self._key(staged), self._key(final))
        except FileNotFoundError:
            return self.info(final) is not None
        self.delete([staged])
        return True

    def delete(self, paths: Sequence[str]) -> None:
        keys = [self._key(path) for path in paths]
        try:
            if len(keys) > 1 and not has_magic(self._root):
                self._delete_many(keys)
                return
        except FileNotFoundError:
            pass
        for key in keys:
            try:
                self._filesystem.rm_file(key)
            except FileNotFoundError:
                continue

    def _delete_many(self, keys: Sequence[str]) -> None:
        if not hasattr(self._filesystem, "call_s3"):
            self._filesystem.rm(list(keys))
            return
        # S3's own request for many, since s3fs does not look at what its answer says was not deleted
        for start in range(0, len(keys), _S3_KEYS_AT_ONCE):
            names = [self._filesystem.split_path(key)[:2] for key in keys[start : start + _S3_KEYS_AT_ONCE]]
            objects = [{"Key": key} for _, key in names]
            answer = self._filesystem.call_s3(
                "delete_objects", Bucket=names[0][0], Delete={"Objects": objects, "Quiet": True}
            )
            failed = [error for error in answer.get("Errors", ()) if error.get("Code") != "NoSuchKey"]
            if failed:
                code, reason = failed[0].get("Code"), failed[0].get("Message")
                kind = PermissionError if code == "AccessDenied" else OSError
                raise kind(
                    f"{len(failed)} of {len(objects)} were not deleted, {failed[0].get('Key')}: {code}: {reason}"
                )

    def info(self, path: str) -> FileInfo | None:
        try:
            details = self._filesystem.info(self._key(path))
        except FileNotFoundError as error:
            if is_bucket_missing(error):
                raise
            return None
        return _info(details) if details.get("type") == "file" else None

    def list(self, folder: str) -> dict[str, FileInfo]:
        try:
            found = self._filesystem.find(self._key(folder), detail=True)
        except FileNotFoundError as error:
            if is_bucket_missing(error):
                raise
            return {}
        return {
            key.removeprefix(self._root).lstrip("/"): _info(details)
            for key, details in found.items()
            if details.get("type") == "file"
        }

    def why_unsafe(self) -> str | None:
        protocols = self._filesystem.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        # Elsewhere fsspec looks first and writes then, which two drivers can do at once, unseen by any probe.
        return None if names & CONDITIONAL else f"{min(names)}:// has no way to create a file only if absent"

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}"


def is_bucket_missing(error: BaseException) -> bool:
    """Whether S3 said for sure that there is no such bucket, not only no such key."""
    return _s3_code(error) == "NoSuchBucket"


def _is_precondition_failed(error: OSError) -> bool:
    """Some S3-compatible servers leave out the condition by which s3fs knows this case."""
    return _s3_code(error) in ("PreconditionFailed", "412")


def _s3_code(error: BaseException) -> str | None:
    response: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code


def _info(details: dict[str, Any]) -> FileInfo:
    modified = next(
        (details[key] for key in ("LastModified", "mtime", "updated", "last_modified", "created") if details.get(key)),
        0.0,
    )
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    if isinstance(modified, datetime):
        modified = (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp()
    return FileInfo(int(details.get("size") or 0), float(modified))
