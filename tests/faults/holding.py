"""A run that waits in the middle of a video, so that a test can choose who dies there (see `HeldFrames`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.faults.processes import is_alive


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


def waiting(media: Path, name: str = "b") -> list[psutil.Process]:
    """The processes that wait, those that died meanwhile left out."""
    found = []
    for file in media.glob(f"{name}.held-*"):
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(file.name.rpartition("-")[2])))
    return [process for process in found if is_alive(process)]
