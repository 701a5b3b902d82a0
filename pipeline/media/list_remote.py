"""Objects in S3 and other fsspec filesystems: one listing call per input, however much is below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import fsspec

from pipeline.errors import StoreError, UsageError
from pipeline.media.found import Found, Tally
from pipeline.media.locations import MISSING, is_glob, open_filesystem, remote_fingerprint, without_secrets
from pipeline.media.patterns import Pattern, is_shown_media
from pipeline.urls import without_credentials

#: Errors of the libraries below that say: what was asked for can't be right.
_OF_THE_ARGUMENTS = {"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound"}

_Objects = Iterator[tuple[str, Mapping[str, Any]]]


def list_remote(given: str, tally: Tally, storage_options: Mapping[str, Any]) -> Iterator[Found]:
    """What one URL gives: an object, what is below a prefix, or the matches of a pattern.

    Raises UsageError or StoreError when the store can't be listed.
    """

    def look(filesystem: fsspec.AbstractFileSystem, path: str) -> _Objects:
        pattern = path.partition("?")[0] if _is_web(filesystem) else path  # there a query follows
        matches = _glob(filesystem, path, tally) if is_glob(pattern) else None
        return _directory_or_object(filesystem, path, tally) if matches is None else matches

    return _found(given, storage_options, look)


def list_named(given: str, tally: Tally, storage_options: Mapping[str, Any]) -> list[Found]:
    """The object of exactly this name, by one request, or what is below the prefix. Raises as `list_remote`."""

    def look(filesystem: fsspec.AbstractFileSystem, path: str) -> _Objects:
        info = _answer(filesystem, lambda: filesystem.info(path))
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
        names = [(name, _known(filesystem, name, info)) for name, info in look(filesystem, path)]
    except Exception as error:
        kind = type(error).__name__
        if isinstance(error, ImportError | FileNotFoundError):
            raise UsageError(f"{clean} can't be opened: {without_credentials(str(error))}") from None
        if isinstance(error, ValueError | TypeError) or kind in _OF_THE_ARGUMENTS:
            raise UsageError(
                f"{clean} can't be listed ({kind}): check the name, the credentials and each --storage-option"
            ) from None
        raise StoreError(f"{clean} can't be listed ({kind}): check network and endpoint, then run again") from None
    origin = given[: len(given) - len(path)] if given.endswith(path) else f"{given.partition('://')[0]}://"
    for name, info in names:
        yield Found(
            origin + name,
            remote_fingerprint(info) if info else MISSING,
            int(info.get("size") or 0),
        )


def _known(filesystem: fsspec.AbstractFileSystem, name: str, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What tells one state of a file from another, where a listing has only names, as of an HTTP server's folder."""
    if not _is_web(filesystem) or info.get("size") is not None:
        return info
    return _answer(filesystem, lambda: filesystem.info(name))


def _answer(filesystem: fsspec.AbstractFileSystem, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the store says; nothing where there is nothing, or where listing is not allowed but reading may be.

    Each address on the web may be another server's. One that fails is a missing file, whose probe says why, and no
    other input suffers from it.
    """
    try:
        return ask()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except Exception as error:
        if _is_web(filesystem) and not isinstance(error, ValueError):  # the address itself
            return {}
        raise


def _is_web(filesystem: fsspec.AbstractFileSystem) -> bool:
    return "https" in filesystem.protocol


def _directory_or_object(filesystem: fsspec.AbstractFileSystem, path: str, tally: Tally) -> _Objects:
    """What is below a prefix, by one listing; else the object of that name; else the name as missing."""
    objects = _answer(filesystem, lambda: filesystem.find(path, detail=True))
    for name, info in objects.items():
        if name == path.rstrip("/"):
            yield name, info  # it was named, so its suffix doesn't matter
        elif is_shown_media(name, path):
            yield name, info
        else:
            tally.skip(name[len(path) :])
    if not objects:
        info = _answer(filesystem, lambda: filesystem.info(path))
        if info.get("type") != "directory":
            yield path, info


def _glob(filesystem: fsspec.AbstractFileSystem, path: str, tally: Tally) -> _Objects | None:
    """Matches of a pattern, by one listing of the fixed part before it; None when an object has that very name."""
    if "*" not in path and filesystem.exists(path):
        return None
    pattern = Pattern(path)
    objects = _answer(filesystem, lambda: filesystem.find(pattern.fixed, detail=True))
    matches = []
    for name, info in objects.items():
        taken = pattern.takes(name)
        if taken and not name.endswith("/"):
            matches.append((name, info))
        elif taken is False:
            tally.skip(name[len(pattern.fixed) :])
    return iter(matches)
