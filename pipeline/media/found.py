"""What the listing of one input hands on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.media.locations import is_glob
from pipeline.media.sniff import suffix


@dataclass(frozen=True, slots=True)
class Found:
    """A file or object, not yet named."""

    location: str
    fingerprint: str
    size_bytes: int


@dataclass
class Tally:
    """skipped: files in directories that are no media by their names."""

    skipped: int = 0


def ends_open(pattern: str) -> bool:
    """Whether a pattern names no suffix, so that the known ones decide."""
    return is_glob(suffix(pattern)) or not suffix(pattern)
