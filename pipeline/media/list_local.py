"""Files, directories and patterns on local disks, listed by os.scandir: 100,000 files in a second or two.

Paths stay strings: pathlib would rewrite names, and takes longer.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator

from pipeline.media.found import Found, Tally
from pipeline.media.locations import MISSING, is_glob, local_fingerprint, path_of, printable
from pipeline.media.patterns import Pattern, ends_open
from pipeline.media.sniff import is_media_name


def list_local(given: str, tally: Tally) -> Iterator[Found]:
    """What one local input gives."""
    path = path_of(given)
    if os.path.lexists(path) or not is_glob(path):
        yield from named(path, tally)
        return
    if "**" in path:
        yield from _matches_below(Pattern(path), tally)
        return
    filtered = ends_open(path)
    for match in glob.iglob(path, include_hidden=False):
        if os.path.isdir(match):
            yield from _walk(match, tally)
        elif filtered and not is_media_name(match):
            tally.skip(os.path.basename(match))
        else:
            yield _file(match)


def named(given: str, tally: Tally) -> Iterator[Found]:
    """A file, or what is below a directory, of exactly this name."""
    path = path_of(given)
    if os.path.isdir(path):
        yield from _walk(path, tally)
    else:
        yield _file(path)


def _file(path: str) -> Found:
    try:
        status = os.stat(path)
    except OSError:
        return Found(printable(path), MISSING, 0)  # the probe says why: not there, or not allowed
    return Found(printable(path), local_fingerprint(status), status.st_size)


def _walk(folder: str, tally: Tally) -> Iterator[Found]:
    """Media below a directory."""
    for entry in _below(folder, tally):
        if isinstance(entry, Found):
            yield entry
        elif not is_media_name(entry.name):
            tally.skip(entry.name)
        else:
            yield from _entry(entry, tally)


def _matches_below(pattern: Pattern, tally: Tally) -> Iterator[Found]:
    """What a pattern with `**` gives; glob's own would follow links round in circles."""
    if not os.path.isdir(pattern.fixed or "/"):
        return
    for entry in _below(pattern.fixed or "/", tally):
        if isinstance(entry, Found):
            yield entry
            continue
        taken = pattern.takes(entry.path)
        if taken:
            yield from _entry(entry, tally)
        elif taken is False:
            tally.skip(entry.name)


def _below(folder: str, tally: Tally, above: tuple[tuple[int, int], ...] = ()) -> Iterator[os.DirEntry[str] | Found]:
    """All files below a directory, and what can't be listed as missing.

    Links to directories are followed, but never into a directory that holds them.
    """
    try:
        entries = list(os.scandir(folder))
        status = os.stat(folder)
    except OSError:
        yield Found(printable(folder), MISSING, 0)
        return
    above = (*above, (status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            tally.skip(entry.name)
        elif not _is_dir(entry):
            yield entry
        elif not entry.is_symlink() or (entry.stat().st_dev, entry.stat().st_ino) not in above:
            yield from _below(entry.path, tally, above)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: an entry whose probe says so
        return False


def _entry(entry: os.DirEntry[str], tally: Tally) -> Iterator[Found]:
    try:
        status = entry.stat()
    except OSError:
        yield Found(printable(entry.path), MISSING, 0)
        return
    if stat.S_ISREG(status.st_mode):
        yield Found(printable(entry.path), local_fingerprint(status), status.st_size)
    else:
        tally.skip(entry.name)
