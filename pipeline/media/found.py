"""What the listing of one input hands on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.media.sniff import suffix

HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Found:
    """A file or object, not yet named."""

    location: str
    fingerprint: str
    size_bytes: int


@dataclass
class Tally:
    """skipped: files in directories that are no media by their names, by suffix or as `hidden` or `no suffix`."""

    skipped: Counter[str] = field(default_factory=Counter)

    def skip(self, name: str) -> None:
        """Counts a file that is left out."""
        if not name.endswith("/"):  # else a folder's mark in an object store
            hidden = any(part.startswith(".") for part in name.split("/"))
            self.skipped[HIDDEN if hidden else suffix(name) or "no suffix"] += 1
