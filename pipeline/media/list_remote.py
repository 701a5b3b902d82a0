"""Objects in S3 and other fsspec filesystems: one listing call per input, however much is below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import fsspec
from fsspec.utils import glob_translate

from pipeline.errors import StoreError, UsageError
from pipeline.media.found import Found, Tally, ends_open
from pipeline.media.locations import MISSING, is_glob, open_filesystem, remote_fingerprint, without_secrets
from pipeline.media.sniff import is_media_name

_Objects = Iterator[tuple[str, Mapping[str, Any]]]


def list_remote(given: str, tally: Tally, storage_options: Mapping[str, Any]) -> Iterator[Found]:
    """What one URL gives: an object, what is below a prefix, or the matches of a pattern.

    Raises UsageError or StoreError when the store can't be listed.
    """

    def look(filesystem: fsspec.AbstractFileSystem, path: str) -> _Objects:
        matches = _glob(filesystem, path, tally) if is_glob(path) else None
        return _directory_or_object(filesystem, path, tally) if matches is None else matches

    return _found(given, storage_options, look)


def list_named(given: str, tally: Tally, storage_options: Mapping[str, Any]) -> list[Found]:
    """The object of exactly this name, by one request, or what is below the prefix. Raises as `list_remote`."""

    def look(filesystem: fsspec.AbstractFileSystem, path: str) -> _Objects:
        try:
            info = filesystem.info(path)
        except (FileNotFoundError, PermissionError):
            info = {}
        return _directory_or_object(filesystem, path, tally) if info.get("type") != "file" else iter([(path, info)])

    return list(_found(given, storage_options, look))


def _found(
    given: str,
    storage_options: Mapping[str, Any],
    look: Callable[[fsspec.AbstractFileSystem, str], _Objects],
) -> Iterator[Found]:
    clean = without_secrets(given)
    given = clean if clean.startswith("s3://") else given
    try:
        filesystem, path = open_filesystem(given, storage_options)
    except (ImportError, ValueError, TypeError) as error:
        raise UsageError(f"{clean} can't be opened: {error}") from None
    try:
        names = list(look(filesystem, path))
    except Exception as error:
        kind = type(error).__name__
        if kind in ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound"):
            raise UsageError(f"{clean} can't be listed ({kind}): check the name and the credentials") from None
        raise StoreError(f"{clean} can't be listed ({kind}): check network and endpoint, then run again") from None
    origin = given[: len(given) - len(path)] if given.endswith(path) else f"{given.partition('://')[0]}://"
    for name, info in names:
        yield Found(
            origin + name,
            remote_fingerprint(info) if info else MISSING,
            int(info.get("size") or 0),
        )


def _directory_or_object(filesystem: fsspec.AbstractFileSystem, path: str, tally: Tally) -> _Objects:
    """What is below a prefix, by one listing; else the object of that name; else the name as missing."""
    try:
        objects = filesystem.find(path, detail=True)
    except NotADirectoryError:
        objects = {}
    except FileNotFoundError:
        objects = {}
    except PermissionError:  # reading an object may be allowed where listing is not
        objects = {}
    for name, info in objects.items():
        if name == path.rstrip("/"):
            yield name, info  # it was named, so its suffix doesn't matter
        elif _taken(name, path):
            yield name, info
        elif not name.endswith("/"):
            tally.skipped += 1
    if not objects:
        try:
            info = filesystem.info(path)
        except (FileNotFoundError, PermissionError):
            info = {}
        if info.get("type") != "directory":
            yield path, info


def _glob(filesystem: fsspec.AbstractFileSystem, path: str, tally: Tally) -> _Objects | None:
    """Matches of a pattern, by one listing of the fixed part before it; None when an object has that very name."""
    if "*" not in path and filesystem.exists(path):
        return None
    fixed = path[: next(at for at, letter in enumerate(path) if letter in "*?[")].rpartition("/")[0]
    pattern = re.compile(glob_translate(path))
    filtered = ends_open(path)
    try:
        objects = filesystem.find(fixed, detail=True)
    except FileNotFoundError:
        objects = {}
    matches = []
    for name, info in objects.items():
        # a pattern that matches a directory takes the media below it, as on disk
        below = next((at for at in _slashes(name, len(fixed)) if pattern.match(name[:at])), None)
        if below is None and not pattern.match(name):
            continue
        if (filtered or below is not None) and not _taken(name, fixed):
            tally.skipped += not name.endswith("/")
        elif not name.endswith("/"):
            matches.append((name, info))
    return iter(matches)


def _slashes(name: str, start: int) -> Iterator[int]:
    at = name.find("/", start + 1)
    while at != -1:
        yield at
        at = name.find("/", at + 1)


def _taken(name: str, folder: str) -> bool:
    """Whether an object below `folder` is taken: known media, nothing hidden."""
    return is_media_name(name) and not any(part.startswith(".") for part in name[len(folder) :].split("/"))
