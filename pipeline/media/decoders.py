"""The decoders that `--decoder` names: two that ship, or a class of the user's own, given as MODULE:CLASS.

A class of one's own is for containers or codecs that FFmpeg can't read, and for decoders on other hardware. It runs in
the decode process like the others, under the same deadline and memory limit; whatever it does there costs its file a
row and nothing else. Containers are still opened, and packets indexed, by FFmpeg.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

DECODERS = ("pyav", "decord")

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Frames(Protocol):
    """What a class of one's own provides. `pipeline.media.frames_pyav.PyavFrames` is the reference, and may be its
    base. It is made with (path, content, index, max_pixels), once per open file."""

    def __init__(self, path: Path, content: Any, index: Any, max_pixels: int) -> None: ...

    def at_or_after(self, pts: int) -> tuple[int, Any] | None:
        """The first frame shown at `pts` (ticks) or later, with its pts; None when no more come.

        Raises BrokenError when decoding can't get there.
        """

    def image(self, frame: Any) -> NDArray[np.uint8]:
        """A frame that `at_or_after` gave, as upright contiguous RGB (H, W, 3)."""

    def close(self) -> None:
        """Lets go of the file."""


def is_own(decoder: str) -> bool:
    """Whether the name is MODULE:CLASS."""
    return _OWN.fullmatch(decoder) is not None


def check_decoder(decoder: str) -> None:
    """Raises UsageError unless `decoder` ships or can be imported."""
    if is_own(decoder):
        own_frames(decoder)
    elif decoder not in DECODERS:
        raise UsageError(f"decoder is {decoder!r}: it must be {', '.join(DECODERS)}, or a class as MODULE:CLASS")


def own_frames(decoder: str) -> type[Frames]:
    """The class MODULE:CLASS. Raises UsageError, naming what is missing."""
    module, _, name = decoder.partition(":")
    try:
        found: type[Frames] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"decoder {decoder} can't be loaded: {error}") from None
    lacking = [method for method in ("at_or_after", "image", "close") if not hasattr(found, method)]
    if not isinstance(found, type) or lacking:
        raise UsageError(f"decoder {decoder} must be a class with {', '.join(lacking or ['a constructor'])}")
    return found
