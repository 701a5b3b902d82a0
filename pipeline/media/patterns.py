"""Patterns of names, on disk and in object stores alike."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fsspec.utils import glob_translate

from pipeline.media.locations import is_glob
from pipeline.media.sniff import is_media_name, suffix


class Pattern:
    """A glob (`*`, `?`, `[…]`, and `**` for any number of folders) over absolute names.

    A file that it matches is taken; a folder that it matches gives the media below it. fixed: the folder before the
    first wildcard, which holds all matches.
    """

    def __init__(self, pattern: str) -> None:
        self.fixed = pattern[: next(at for at, letter in enumerate(pattern) if letter in "*?[")].rpartition("/")[0]
        self._regex = re.compile(glob_translate(pattern))
        self._is_open = ends_open(pattern)

    def takes(self, name: str) -> bool | None:
        """Whether a file is taken; None: the pattern has nothing to do with it."""
        below = any(self._regex.match(name[:at]) for at in _slashes(name, len(self.fixed)))
        if not below and not self._regex.match(name):
            return None
        return not (below or self._is_open) or is_shown_media(name, self.fixed)


def ends_open(pattern: str) -> bool:
    """Whether a pattern names no suffix, so that the known ones decide."""
    return is_glob(suffix(pattern)) or not suffix(pattern)


def is_shown_media(name: str, folder: str) -> bool:
    """Whether a file below `folder` is taken by its name: known media, nothing hidden."""
    return is_media_name(name) and not any(part.startswith(".") for part in name[len(folder) :].split("/"))


def _slashes(name: str, start: int) -> Iterator[int]:
    at = name.find("/", start + 1)
    while at != -1:
        yield at
        at = name.find("/", at + 1)
