"""Where a source lies and how it is called: paths and URLs, normalised so that every spelling gives one name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import fsspec

from pipeline.media.spellings import composed
from pipeline.urls import without_user_info

MISSING = "missing"

#: Object stores, and what lies in a file; everywhere else a query may hold a signature.
_NAMES_MAY_HOLD_QUESTION_MARKS = {
    *("s3", "gs", "gcs", "abfs", "abfss", "az", "wasb", "wasbs", "adl", "oss", "oci", "cos", "obs", "b2"),
    *("hf", "hdfs", "file", "local", "memory", "zip", "tar", "libarchive"),
}


def local_path(location: str) -> str | None:
    """The path of a local location, or None for a remote one."""
    if location.startswith("file://"):
        return os.fsdecode(unquote(urlsplit(location).path, errors="surrogateescape"))
    return None if is_remote(location) else location


def open_filesystem(url: str, storage_options: Mapping[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec filesystem of a URL and the path in it. S3 listings are never taken from a cache."""
    options = dict(storage_options)
    if url.startswith("s3://"):
        options.setdefault("use_listings_cache", False)
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, path


def local_fingerprint(status: os.stat_result) -> str:
    """Size and modification time in nanoseconds."""
    return f"{status.st_size}:{status.st_mtime_ns}"


def remote_fingerprint(info: Mapping[str, Any]) -> str:
    """Size and ETag (S3), or whatever version mark the filesystem gives."""
    keys = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "mtime", "created")
    mark = next((info[key] for key in keys if info.get(key)), "")
    if isinstance(mark, datetime):
        mark = mark.timestamp()  # some filesystems give one form when listing, another for one file
    return f"{int(info.get('size') or 0)}:{str(mark).strip(chr(34))}"


def is_remote(name: str) -> bool:
    """Whether a name is a URL of another filesystem than the local one."""
    return "://" in name and not name.startswith("file://")


def is_glob(name: str) -> bool:
    """Whether a name may be a pattern."""
    return any(letter in name for letter in "*?[")


def path_of(given: str) -> str:
    """The absolute path of a local input, lexically normalised; links are not resolved."""
    path = local_path(given) or given
    path = os.path.abspath(os.path.expanduser(path) if path.startswith("~") else path)
    return path[1:] if path.startswith("//") else path


def normalise(location: str) -> str:
    """The uri of a location: absolute, NFC, without user info and query."""
    return composed(spelled(location))


def spelled(location: str) -> str:
    """The uri of a location in the Unicode form that its name has there."""
    return without_secrets(location).rstrip("/") if is_remote(location) else printable(path_of(location))


def printable(path: str) -> str:
    """A path that is valid Unicode; a name in another encoding becomes a percent-encoded file URL."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def without_secrets(url: str) -> str:
    """The URL without user info; without the query too, but in object stores, where `?` may belong to a key.

    So is every part of a chain (`zip://a.mp4::https://host/a.zip?signature=…`).
    """
    if not is_remote(url):
        return url
    return "::".join(_part_without_secrets(part) for part in without_user_info(url).split("::"))


def _part_without_secrets(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    scheme = "s3" if scheme.lower() in ("s3a", "s3n") else scheme.lower()
    authority, slash, path = rest.partition("/")
    if scheme not in _NAMES_MAY_HOLD_QUESTION_MARKS:
        authority = authority.partition("?")[0]
        path = path.partition("?")[0].partition("#")[0]
    return f"{scheme}://{authority}{slash}{path}"
