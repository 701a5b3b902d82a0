"""What a name that a user gives means among the sources of a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from pipeline.media.sources import location_of
from pipeline.media.spellings import composed


class Way(NamedTuple):
    """One way to understand a name. is_meant: whether the source of a uri is meant by the spelling, or by that
    beginning of it which is not the name of a member."""

    spelling: str
    is_meant: Callable[[str, str], bool]


def exact_ways(name: str, root: str | None, form: Callable[[str], str] = str) -> tuple[Way, ...]:
    """The path of a source, and if it is none's, a uri. root: what uris are relative to. form: of what of it is a
    uri."""
    given, path = spellings(name)
    return (
        Way(path, lambda uri, head: head in (uri, form(location_of(uri, root)))),
        Way(given, lambda uri, head: head == uri),
    )


def spellings(name: str) -> tuple[str, str]:
    """The name without detours, and as a path from `/`; a URL as it is."""
    if "://" in name:
        return name, name
    return os.path.normpath(name), os.path.normpath(Path(name).expanduser().absolute())


def exactly_named(uris: Collection[str], name: str, root: str | None) -> list[str]:
    """Those of the uris that the whole name means; none if it may only be the end of some, or a pattern."""
    for form in (str, composed):
        for way in exact_ways(name, root, form):
            found = [uri for uri in uris if way.is_meant(uri, form(way.spelling))]
            if found:
                return found
    return []
