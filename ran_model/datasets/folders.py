"""Which files there are, asked once per folder: cheap for hundreds of thousands of pictures on a network disk."""

from __future__ import annotations

import os
from pathlib import Path

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does, and it is not hidden (macOS keeps `._a.jpg` beside `a.jpg`)."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


class FileIndex:
    """Answers whether files exist, with one listing of each folder."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def has(self, path: Path) -> bool:
        """Whether the file exists, under exactly this name."""
        names = self._names.get(path.parent)
        if names is None:
            names = frozenset(os.listdir(path.parent)) if path.parent.is_dir() else frozenset()
            self._names[path.parent] = names
        return path.name in names
