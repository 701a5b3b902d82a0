"""From INPUT arguments to sources: one entry per file or object, the same ids however the input was spelled."""
# Paths stay strings here: 100,000 files are listed in a second or two, and pathlib would rewrite their names.

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import fsspec
from fsspec.utils import glob_translate

from pipeline.errors import StoreError, UsageError
from pipeline.sniff import is_media_name, suffix

MISSING = "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One input file.

    source_id: 16 hex over uri and fingerprint. uri: identity and display; absolute and normalised, or relative to
    --root. location: what a worker opens (absolute path or URL). fingerprint: local `size:mtime_ns`, S3 `size:ETag`,
    or `missing` for a named input that isn't there.
    """

    source_id: str
    uri: str
    location: str
    fingerprint: str
    size_bytes: int


@dataclass(kw_only=True)
class Listing:
    """sources: sorted by uri, each once. skipped: files in directories that are no media by their names.
    unmatched: patterns and directories that gave nothing, as they were written."""

    sources: list[Source]
    skipped: int = 0
    unmatched: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Found:
    location: str
    fingerprint: str
    size_bytes: int


def source_id(uri: str, fingerprint: str) -> str:
    """16 hex over the normalised uri and the fingerprint."""
    return hashlib.sha256(f"{uri}\n{fingerprint}".encode()).hexdigest()[:16]


def list_sources(
    inputs: Sequence[str], *, root: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> Listing:
    """Expands files, directories, globs and URLs of any fsspec filesystem.

    A file that is named is taken whatever its suffix; directories, and globs that end in `*`, give known media only.
    Hidden files in directories are skipped. Raises UsageError when nothing at all is found, or outside of `root`.
    """
    base = _normalise(root) if root is not None else None
    listing = Listing(sources=[])
    found: dict[str, _Found] = {}
    for given in inputs:
        before = len(found), listing.skipped
        for item in _remote(given, listing, storage_options or {}) if _is_remote(given) else _local(given, listing):
            _add(found, item)
        if (len(found), listing.skipped) == before and not _covered(given, found):
            listing.unmatched.append(_without_secrets(given))
    if not found:
        names = ", ".join(_without_secrets(name) for name in inputs) or "no input was given"
        raise UsageError(f"no video, picture or archive in: {names}. Check the path, or name the files themselves")
    for uri, item in sorted(found.items()):
        uri = _relative(uri, base) if base is not None else uri
        listing.sources.append(
            Source(
                source_id=source_id(uri, item.fingerprint),
                uri=uri,
                location=item.location,
                fingerprint=item.fingerprint,
                size_bytes=item.size_bytes,
            )
        )
    return listing


def local_path(location: str) -> str | None:
    """The path of a local location, or None for a remote one."""
    if location.startswith("file://"):
        return os.fsdecode(unquote(urlsplit(location).path, errors="surrogateescape"))
    return None if _is_remote(location) else location


def local_fingerprint(status: os.stat_result) -> str:
    """Size and modification time in nanoseconds."""
    return f"{status.st_size}:{status.st_mtime_ns}"


def remote_fingerprint(info: Mapping[str, Any]) -> str:
    """Size and ETag (S3), or whatever version mark the filesystem gives."""
    mark = next(
        (info[key] for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created") if info.get(key)), ""
    )
    return f"{int(info.get('size') or 0)}:{str(mark).strip(chr(34))}"


def _add(found: dict[str, _Found], item: _Found) -> None:
    uri = _normalise(item.location)
    other = found.get(uri)
    if other is not None and other.location != item.location:
        uri = item.location  # two files whose names differ only in Unicode form: both count, the later one as written
    found[uri] = item


def _covered(given: str, found: Mapping[str, _Found]) -> bool:
    return not _is_glob(given) and _normalise(given) in found


def _relative(uri: str, base: str) -> str:
    prefix = base.rstrip("/") + "/"
    if not uri.startswith(prefix):
        raise UsageError(f"{uri} is outside of --root {base}: give a root that holds every input, or none")
    return uri[len(prefix) :]


# -- names -----------------------------------------------------------------------------------------------------------


def _is_remote(name: str) -> bool:
    return "://" in name and not name.startswith("file://")


def _is_glob(name: str) -> bool:
    return any(letter in name for letter in "*?[")


def _path_of(given: str) -> str:
    """The absolute path of a local input, lexically normalised; links are not resolved."""
    path = local_path(given) or given
    path = os.path.abspath(os.path.expanduser(path) if path.startswith("~") else path)
    return path[1:] if path.startswith("//") else path


def _normalise(location: str) -> str:
    if _is_remote(location):
        return unicodedata.normalize("NFC", _without_secrets(location)).rstrip("/")
    return unicodedata.normalize("NFC", _printable(_path_of(location)))


def _printable(path: str) -> str:
    """A path that is valid Unicode; a name in another encoding becomes a percent-encoded file URL."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def _without_secrets(url: str) -> str:
    """The URL without user info; without the query too, but in object stores, where `?` may belong to a key."""
    if not _is_remote(url):
        return url
    scheme, _, rest = url.partition("://")
    scheme = "s3" if scheme.lower() in ("s3a", "s3n") else scheme.lower()
    authority, slash, path = rest.partition("/")
    if scheme in ("http", "https", "ftp", "sftp", "webdav"):
        path = path.partition("?")[0].partition("#")[0]
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


# -- local files -----------------------------------------------------------------------------------------------------


def _local(given: str, listing: Listing) -> Iterator[_Found]:
    path = _path_of(given)
    if os.path.lexists(path) or not _is_glob(path):
        yield from _named(path, listing)
        return
    filtered = _ends_open(path)
    for match in glob.iglob(path, recursive=True, include_hidden=False):
        if os.path.isdir(match):
            if "**" not in path:  # `**` already visits what is below
                yield from _walk(match, listing, ())
        elif filtered and not is_media_name(match):
            listing.skipped += 1
        else:
            yield _file(match)


def _ends_open(pattern: str) -> bool:
    """Whether a pattern names no suffix, so that the known ones decide."""
    return _is_glob(suffix(pattern)) or not suffix(pattern)


def _named(path: str, listing: Listing) -> Iterator[_Found]:
    if os.path.isdir(path):
        yield from _walk(path, listing, ())
    else:
        yield _file(path)


def _file(path: str) -> _Found:
    try:
        status = os.stat(path)
    except OSError:
        return _Found(_printable(path), MISSING, 0)  # the probe says why: not there, or not allowed
    return _Found(_printable(path), local_fingerprint(status), status.st_size)


def _walk(folder: str, listing: Listing, above: tuple[tuple[int, int], ...]) -> Iterator[_Found]:
    """Media below a directory. Links to directories are followed, but never into a directory that holds them."""
    try:
        entries = list(os.scandir(folder))
        status = os.stat(folder)
    except OSError:
        yield _Found(_printable(folder), MISSING, 0)
        return
    above = (*above, (status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            listing.skipped += 1
        elif entry.is_dir():
            if entry.is_symlink() and (entry.stat().st_dev, entry.stat().st_ino) in above:
                continue
            yield from _walk(entry.path, listing, above)
        elif not is_media_name(entry.name):
            listing.skipped += 1
        else:
            yield _entry(entry, listing)


def _entry(entry: os.DirEntry[str], listing: Listing) -> _Found:
    try:
        status = entry.stat()
    except OSError:
        return _Found(_printable(entry.path), MISSING, 0)
    if not stat.S_ISREG(status.st_mode):
        listing.skipped += 1
    return _Found(_printable(entry.path), local_fingerprint(status), status.st_size)


# -- remote objects --------------------------------------------------------------------------------------------------


def open_filesystem(url: str, storage_options: Mapping[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec filesystem of a URL and the path in it. S3 listings are never taken from a cache."""
    options = dict(storage_options)
    if url.startswith("s3://"):
        options.setdefault("use_listings_cache", False)
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, path


def _remote(given: str, listing: Listing, storage_options: Mapping[str, Any]) -> Iterator[_Found]:
    clean = _without_secrets(given)
    given = clean if clean.startswith("s3://") else given
    try:
        filesystem, path = open_filesystem(given, storage_options)
    except (ImportError, ValueError, TypeError) as error:
        raise UsageError(f"{clean} can't be opened: {error}") from None
    try:
        names = _glob(filesystem, path, listing) if _is_glob(path) else None
        names = list(_directory_or_object(filesystem, path, listing) if names is None else names)
    except Exception as error:
        kind = type(error).__name__
        if kind in ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound"):
            raise UsageError(f"{clean} can't be listed ({kind}): check the name and the credentials") from None
        raise StoreError(f"{clean} can't be listed ({kind}): check the network and the endpoint, then run again") from None
    origin = given[: len(given) - len(path)] if given.endswith(path) else f"{given.partition('://')[0]}://"
    for name, info in names:
        yield _Found(
            origin + name,
            remote_fingerprint(info) if info else MISSING,
            int(info.get("size") or 0),
        )


_Objects = Iterator[tuple[str, Mapping[str, Any]]]


def _directory_or_object(filesystem: fsspec.AbstractFileSystem, path: str, listing: Listing) -> _Objects:
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
        if name.rstrip("/") == path.rstrip("/"):
            yield name, info  # it was named, so its suffix doesn't matter
        elif _taken(name, path):
            yield name, info
        elif not name.endswith("/"):
            listing.skipped += 1
    if not objects:
        try:
            info = filesystem.info(path)
        except (FileNotFoundError, PermissionError):
            info = {}
        if info.get("type") != "directory":
            yield path, info


def _glob(filesystem: fsspec.AbstractFileSystem, path: str, listing: Listing) -> _Objects | None:
    """Matches of a pattern, by one listing of the fixed part before it; None when an object has that very name."""
    if "*" not in path and filesystem.exists(path):
        return None
    fixed = path[: next(at for at, letter in enumerate(path) if letter in "*?[")].rpartition("/")[0]
    pattern = re.compile(glob_translate(path))
    filtered = _ends_open(path)
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
            listing.skipped += not name.endswith("/")
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
