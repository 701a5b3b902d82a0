"""Decoders that really do what bad media make decoders do; given to a run as `--decoder MODULE:CLASS`.

All are PyAV for every file that is not named after a fault, so the neighbours must come out as ever.
"""

from __future__ import annotations

import collections
import ctypes
import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.media.frames_pyav import PyavFrames

HOSTILE = f"{__name__}:HostileFrames"
HELD = f"{__name__}:HeldFrames"
DEADLY = f"{__name__}:DeadlyFrames"


class HostileFrames(PyavFrames):
    """Does to its process what the file's name says."""

    def __init__(self, path: Path, content: Any, index: Any, max_pixels: int) -> None:
        super().__init__(path, content, index, max_pixels)
        self._deed = {"loops": loop, "crashes": crash, "aborts": os.abort, "eats": eat}.get(path.stem)

    def at_or_after(self, pts: int) -> Any:
        if self._deed is not None:
            self._deed()
        return super().at_or_after(pts)


def loop() -> None:
    """Never returns: one call of C code that holds the GIL, so no signal handler and no thread gets its turn."""
    collections.deque(itertools.repeat(None), maxlen=0)


def crash() -> None:
    """Reads address 0."""
    ctypes.string_at(0)


def eat() -> None:
    """Takes memory, and touches it, until there is none."""
    taken = []
    while True:
        taken.append(np.ones(16 << 20, np.uint8))


class DeadlyFrames(PyavFrames):
    """Kills its actor if the file is called deadly, as a bug below Python might."""

    def __init__(self, path: Path, content: Any, index: Any, max_pixels: int) -> None:
        super().__init__(path, content, index, max_pixels)
        self._is_deadly = path.stem == "deadly"

    def at_or_after(self, pts: int) -> Any:
        if self._is_deadly:
            os.kill(os.getppid(), signal.SIGKILL)
        return super().at_or_after(pts)


class HeldFrames(PyavFrames):
    """Waits before a frame for as long as the file's `hold` is there, and says who waits: a moment to be killed in."""

    def __init__(self, path: Path, content: Any, index: Any, max_pixels: int) -> None:
        super().__init__(path, content, index, max_pixels)
        self._path_of_hold = path.with_suffix(".hold")

    def at_or_after(self, pts: int) -> Any:
        while self._path_of_hold.exists():
            self._path_of_hold.with_suffix(f".held-{os.getpid()}").touch()
            time.sleep(0.02)
        return super().at_or_after(pts)
