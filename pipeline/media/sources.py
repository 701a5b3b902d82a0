"""From INPUT arguments to sources: one entry per file or object, the same ids however the input was spelled."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from pipeline.errors import UsageError
from pipeline.media.found import HIDDEN, Found, Tally
from pipeline.media.list_local import list_local, named
from pipeline.media.list_remote import list_named, list_remote
from pipeline.media.locations import (
    MISSING,
    is_remote,
    local_path,
    normalise,
    open_filesystem,
    spelled,
    without_secrets,
)
from pipeline.media.spellings import composed

__all__ = ["MISSING", "Listing", "Source", "list_sources", "local_path", "open_filesystem", "source_id"]


REQUESTS_AT_ONCE = 16  # of a list of objects
NAMES_AT_ONCE = 10_000  # of them; each that waits is several Python objects
MOST_NAMED = 8  # in a message
NOT_UNICODE = "file:"  # begins a uri that stands for a name's bytes


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
    """sources: sorted by uri, each once. skipped: files in directories that are no media by their names, by suffix.
    unmatched: patterns and directories that gave nothing, as they were written."""

    sources: list[Source]
    skipped: Counter[str] = field(default_factory=Counter)
    unmatched: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What somebody should hear who expects more sources than there are; a line each."""
        notes = []
        if self.unmatched:
            named, more = self.unmatched[:MOST_NAMED], len(self.unmatched) - MOST_NAMED
            rest = f" and {more} more" if more > 0 else ""
            notes.append(f"nothing was found by {', '.join(named)}{rest}: no media there, or the name differs")
        shown = Counter({suffix: count for suffix, count in self.skipped.items() if suffix != HIDDEN})
        if shown:
            suffixes = ", ".join(f"{suffix} {count}" for suffix, count in shown.most_common(MOST_NAMED))
            rest = ", …" if len(shown) > MOST_NAMED else ""
            notes.append(f"skipped: no media suffix ({suffixes}{rest}); name a file to force it")
        return notes


def source_id(uri: str, fingerprint: str) -> str:
    """16 hex over the normalised uri and the fingerprint."""
    return hashlib.sha256(f"{uri}\n{fingerprint}".encode()).hexdigest()[:16]


def list_sources(
    inputs: Sequence[str],
    *,
    listed: Sequence[str] = (),
    root: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Listing:
    """Expands files, directories, globs and URLs of any fsspec filesystem.

    A file that is named is taken whatever its suffix; directories, and globs that end in `*`, give known media only.
    Hidden files in directories are skipped. listed: more inputs, of which none is a glob, however many.
    Raises UsageError when nothing at all is found, no input is there, or one is outside of `root`.
    """
    base = None if root is None else normalise(root)
    listing, tally = Listing(sources=[]), Tally()
    found, twins = dict[str, Found](), dict[str, dict[str, Found]]()
    for given, items in _expanded(inputs, listed, tally, storage_options or {}):
        matched = False
        for item in items:
            _add(found, twins, item)
            matched = True
        if not matched:
            listing.unmatched.append(without_secrets(given))
    _name_apart(found, twins)
    if not found:
        names = ", ".join(without_secrets(name) for name in [*inputs, *listed][:20]) or "no input was given"
        raise UsageError(f"no video, picture or archive in: {names}. Check the path, or name the files themselves")
    if all(_is_absent(item) for item in found.values()):
        names = ", ".join(item.location for item in list(found.values())[:MOST_NAMED])
        raise UsageError(f"not one of the inputs is there, or may be looked at: {names}. Check the path")
    listing.skipped = tally.skipped
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


def _expanded(
    inputs: Sequence[str], listed: Sequence[str], tally: Tally, storage_options: Mapping[str, Any]
) -> Iterator[tuple[str, Iterable[Found]]]:
    for given in inputs:
        remote = is_remote(given)
        yield given, list_remote(given, tally, storage_options) if remote else list_local(given, tally)
    far = [given for given in listed if is_remote(given)]
    for given in listed:
        if not is_remote(given):
            yield given, named(given, tally)
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:  # each of them is a request of its own
        for start in range(0, len(far), NAMES_AT_ONCE):
            part = far[start : start + NAMES_AT_ONCE]
            answers = threads.map(lambda given: list_named(given, tally, storage_options), part)
            yield from zip(part, answers, strict=True)


def _is_absent(item: Found) -> bool:
    """Whether a local path leads nowhere; among others that are there, such a one gets an error row."""
    path = local_path(item.location) if item.fingerprint == MISSING else None
    return path is not None and not os.path.lexists(path)


def _add(found: dict[str, Found], twins: dict[str, dict[str, Found]], item: Found) -> None:
    """Notes an item under its uri. twins: items by name, under the uri that they share, where their names differ."""
    uri = normalise(item.location)
    other = found.setdefault(uri, item)
    if other is not item and spelled(other.location) != spelled(item.location):
        same = twins.setdefault(uri, {spelled(other.location): other})
        same[spelled(item.location)] = item


def _name_apart(found: dict[str, Found], twins: Mapping[str, Mapping[str, Found]]) -> None:
    """Gives files whose names differ in Unicode form alone a uri each. One has the composed one: the file that is
    called so, or the one that comes nearest. Of the others, the parts in which the names differ stay as they are."""
    for uri, by_name in twins.items():
        names = sorted(by_name, key=lambda name: (sum(part != composed(part) for part in name.split("/")), name))
        is_same = [len(set(parts)) == 1 for parts in zip(*(name.split("/") for name in names), strict=True)]
        found[uri] = by_name[names[0]]
        for name in names[1:]:
            parts = zip(name.split("/"), is_same, strict=True)
            found["/".join(composed(part) if same else part for part, same in parts)] = by_name[name]


def location_of(uri: str, root: str | None) -> str:
    """Where a source of a dataset lies, which has only its uri; the name there may be spelled in another form
    (`pipeline.media.spellings`)."""
    return uri if root is None else location_below(root, uri)


def location_below(root: str, uri: str) -> str:
    """Where a source lies whose uri is relative to `root`."""
    folder = root.rstrip("/")
    if not uri.startswith(NOT_UNICODE):
        return f"{folder}/{uri}"
    return (
        f"{folder if folder.startswith(NOT_UNICODE) else NOT_UNICODE + '//' + quote(folder)}/{uri[len(NOT_UNICODE) :]}"
    )


def _relative(uri: str, base: str) -> str:
    """The uri below `base`. A name that is no Unicode keeps its mark: `file:` and its bytes, percent-encoded."""
    folder, marked = base.rstrip("/") + "/", uri.startswith(NOT_UNICODE) and not base.startswith(NOT_UNICODE)
    prefix = f"{NOT_UNICODE}//{quote(folder)}" if marked else folder
    if not uri.startswith(prefix):
        raise UsageError(f"{uri} is outside of --root {base}: give a root that holds every input, or none")
    below = uri[len(prefix) :]
    if marked or base.startswith(NOT_UNICODE):
        return NOT_UNICODE + below
    return NOT_UNICODE + quote(below) if below.startswith(NOT_UNICODE) else below
