"""Frames by decord (`--decoder decord`), for files where its way of counting is right.

It is not the default, since it hands packets to its decoding thread until the first frame comes back, and that thread
then decodes all of them: on a two-minute clip of 640×360 it held 1.3 GB of frames (PyAV: one), on 1920×1080 over 3.8
GB, and with a jump every two seconds extraction took 1.7 times the processor time of PyAV's
(`python -m benchmarks decoders`).

decord counts frames as they come out of the decoder, so it is exact only where every packet is one frame and decoding
can start at any keyframe. It reads forward only: after a jump, frames that its thread had ready before may come (in one
clip of 15 frames every fifth time), and skipping drops wrong ones. All is decoded ahead anyway, so this costs little.
Measured with decord2 3.4: in files with open groups (x265's default, MPEG-2) a jump gives
frames 2 or 3 too late, with gradual refresh 10; a transport stream begins at its second keyframe; beside a cover
picture, frames have four channels and other pixels. And it hides damage: of 60 files with 1 to 400 bytes overwritten,
51 gave wrong pixels without an error. The decoder does tell libavutil's log (in all but 9 of the 60, whose damage no
decoder can see), so that is where we listen; at the first error there, PyAV, which sees damage frame by frame, reads
the file instead.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.media.packets import PacketIndex
from pipeline.media.sniff import Content

MAX_BYTES = 512 << 20  # opening reads the whole file; PyAV seeks at once
READ_AHEAD_BYTES = 2 << 30  # all frames together, since any number of them may be decoded ahead
_FORMATS = {"mov", "matroska", "avi"}
_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mjpeg"}
_AV_LOG_ERROR = 16


class DoubtError(Exception):
    """decord reported or hid something; what it gave since the last good frame is not to be trusted."""


def is_exact(path: Path, content: Content, codec: str, index: PacketIndex, frame_bytes: int) -> bool:
    """Whether decord's n-th frame is the n-th of the index, however it is reached, within a bounded memory."""
    return (
        content.format in _FORMATS
        and codec in _CODECS
        and path.stat().st_size <= MAX_BYTES
        and len(index) * frame_bytes <= READ_AHEAD_BYTES
        and not index.ends_early
        and not index.untimed
        and not len(index.splices)
        and index.packets == len(index)
        and index.closed_groups
        and index.clean_starts
        and _errors_logged() is not None
    )


class DecordFrames:
    """One open decord reader. See `at_or_after`."""

    def __init__(self, path: Path, index: PacketIndex) -> None:
        self._index = index
        self._path = path
        self._seen_errors = _errors_logged()
        self._next = 0
        try:
            self._open()
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            raise DoubtError(str(error)) from None
        if len(self._reader) != len(index):
            raise DoubtError(f"{len(self._reader)} frames instead of {len(index)}")

    def at_or_after(self, pts: int) -> tuple[int, Any] | None:
        """The first frame shown at `pts` or later, with its pts; None when no more come. Raises DoubtError."""
        wanted = self._index.at_or_after(pts)
        if wanted == len(self._index):
            return None
        try:
            if wanted < self._next:
                self._open()
            for _ in range(self._next, wanted):
                self._reader.next()
            frame = self._reader.next()
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            raise DoubtError(str(error)) from None
        self._next = wanted + 1
        if frame.shape[2] != 3:
            raise DoubtError(f"{frame.shape[2]} channels")
        if _errors_logged() != self._seen_errors:
            raise DoubtError("the decoder logged an error")
        return int(self._index.pts[wanted]), frame

    def _open(self) -> None:
        self._reader = importlib.import_module("decord").VideoReader(str(self._path), num_threads=1)
        self._next = 0

    def image(self, frame: Any) -> NDArray[np.uint8]:
        """The frame as upright contiguous RGB (H, W, 3)."""
        return np.ascontiguousarray(frame.asnumpy())

    def close(self) -> None:
        """Closes the file."""
        self._reader = None


def _errors_logged() -> int | None:
    """How many errors the FFmpeg inside decord has logged so far; None where its log can't be reached."""
    log = _listen()
    return None if log is None else log.errors


class _Log:
    errors = 0
    callback: Any = None


@functools.cache
def _listen() -> _Log | None:
    package = importlib.import_module("decord").__path__[0]
    library = _libavutil(Path(package))
    if library is None:
        return None
    log = _Log()

    def count(_: int, level: int, __: int, ___: int) -> None:
        if level & 0xFF <= _AV_LOG_ERROR:
            log.errors += 1

    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(count)
    library.av_log_set_callback(callback)
    # the callback must outlive decord's threads, and Python must not be called once it is going down
    atexit.register(lambda: library.av_log_set_callback(ctypes.cast(library.av_log_default_callback, ctypes.c_void_p)))
    log.callback = callback
    return log


def _libavutil(package: Path) -> Any:
    """The libavutil that decord's wheel brought along, already loaded."""
    for folder in (package.parent / "decord2.libs", package / ".dylibs", package):
        for path in sorted(folder.glob("libavutil*")):
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                continue
    return None
