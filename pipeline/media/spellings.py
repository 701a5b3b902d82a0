"""Other spellings of a name: Unicode writes one word in several ways, and of them a uri has the composed one (NFC).

Files that come from a Mac mostly have decomposed names. Whoever knows only the uri finds them here.
"""

from __future__ import annotations

import functools
import itertools
import os
import unicodedata
from collections.abc import Iterator

_MOST_TRIED = 32  # requests for one object that is gone
_FOLDERS = 8  # whose names are remembered


def composed(name: str) -> str:
    """The name as a uri has it."""
    return unicodedata.normalize("NFC", name)


def other_paths(path: str) -> list[str]:
    """Paths of what is there, whose folders and last name are those of this absolute local path but for their form."""
    if path.isascii():
        return []
    found = [""]
    for name in path.split("/")[1:]:
        found = [f"{folder}/{one}" for folder in found for one in (name, *_other_names(folder or "/", name))]
        found = [one for one in found if os.path.lexists(one)]
    return [one for one in found if one != path]


def other_keys(path: str) -> Iterator[str]:
    """Names that an object may have instead: each part of this one, or all of them, decomposed (NFD).

    They are tried without a listing, which may be forbidden, or as long as the bucket. A part that mixes both forms is
    not among them.
    """
    forms = [dict.fromkeys((unicodedata.normalize("NFD", part), part)) for part in path.split("/")]
    spelled = ("/".join(parts) for parts in itertools.product(*forms))
    return itertools.islice((one for one in spelled if one != path), _MOST_TRIED)


def _other_names(folder: str, name: str) -> list[str]:
    if name.isascii():
        return []
    try:
        names = _not_composed(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return []
    return [one for one in names.get(composed(name), ()) if one != name]


@functools.lru_cache(_FOLDERS)
def _not_composed(folder: str, _mtime_ns: int) -> dict[str, list[str]]:
    """The names in a folder that are not in composed form, by that form. _mtime_ns: another one, another listing."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        if not unicodedata.is_normalized("NFC", name):
            names.setdefault(composed(name), []).append(name)
    return names
