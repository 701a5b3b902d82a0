"""A run that waits in the middle of a video, so that a test can choose who dies there (see `HeldFrames`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def held(media: Path, name: str = "b") -> Iterator[Path]:
    """Whoever decodes that video waits there until the file that this gives is deleted."""
    hold = media / f"{name}.hold"
    hold.touch()
    try:
        yield hold
    finally:
        for file in media.glob(f"{name}.h*"):
            file.unlink()


def waiting(media: Path, name: str = "b", *, but: int = 0) -> list[psutil.Process]:
    """The processes that wait."""
    pids = {int(file.name.rpartition("-")[2]) for file in media.glob(f"{name}.held-*")} - {but}
    return [psutil.Process(pid) for pid in pids]
