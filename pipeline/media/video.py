"""A window of a video: the frames that the sampling grid keeps, with true times, up to the first one that is damaged.

A frame counts as readable when decoding from its own keyframe reaches it without an error. That doesn't depend on what
was read before, so windows give the same frames in any order, on any machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media.containers import open_container, video_stream
from pipeline.media.decoders import Frames, is_own, own_frames
from pipeline.media.display import Display, first_frame
from pipeline.media.frames_decord import DecordFrames, DoubtError, is_exact
from pipeline.media.frames_pyav import BrokenError, PyavFrames, check_pixels
from pipeline.media.packets import PacketIndex, read_index, without
from pipeline.media.sampling import Grid
from pipeline.media.sniff import HEAD_BYTES, Content, sniff
from pipeline.segments import most_windows

MOST_REORDERED = 16  # frames, in any codec

_PROGRESSIVE = 1  # FFmpeg's AVFieldOrder; above, the two fields of a frame may have a packet each


@dataclass(frozen=True, kw_only=True)
class VideoFrame:
    """frame: index in the file's presentation order. timestamp: seconds from the first frame. image: upright RGB."""

    frame: int
    timestamp: float
    image: NDArray[np.uint8]


class VideoReader:
    """An open video file.

    decoder: `pyav`; `decord` (where it is exact and reads ahead little, else PyAV), with the same frames; or a class
    of the user's own, see `pipeline.media.decoders`.
    Whether a file can be opened at all is for PyAV to say: both are FFmpeg, and the times come from its demuxer.

    Raises MediaError: not_media, unsupported, truncated, corrupt, too_large.
    """

    def __init__(
        self, path: Path, *, extraction: Extraction, index: PacketIndex | None = None, decoder: str = "pyav"
    ) -> None:
        self.path, self._extraction = path, extraction
        self._content = video_content(path)
        with open_container(path, self._content) as container:
            stream = video_stream(container)
            context = stream.codec_context
            check_pixels(context.width, context.height, extraction.max_pixels)
            codec = context.name
            self._may_pair = context.field_order > _PROGRESSIVE
            frame_bytes = context.width * context.height * 3
            first = first_frame(container, stream) if decoder == "decord" else None
            turned_only = first is not None and Display.of(first, stream).is_rotation
            alone = len(container.streams.video) == 1
        self.index = index or full_index(path, self._content, extraction.max_pixels)
        self._grid = None
        if extraction.rate is not None:
            is_exact_grid = extraction.grid_version == 1
            self._grid = Grid(rate=extraction.rate, time_base=self.index.time_base, exact=is_exact_grid)
        if self.last_window() >= most_windows(len(self.index)):
            span_s = float((int(self.index.pts[-1]) - int(self.index.pts[0])) * self.index.time_base)
            raise MediaError(
                ErrorCode.CORRUPT,
                f"the times of its {len(self.index)} frames reach over {span_s:.3g} s, which can't be true",
            )
        self._name = decoder if is_own(decoder) else "pyav"
        kind: type[Frames] = own_frames(decoder) if is_own(decoder) else PyavFrames
        self._frames = kind(path, self._content, self.index, extraction.max_pixels)
        self._decord: DecordFrames | None = None
        if turned_only and alone and is_exact(path, self._content, codec, self.index, frame_bytes):
            self._decord = self._open_decord()

    @property
    def decoder(self) -> str:
        """Which one is in use: decord, pyav or MODULE:CLASS."""
        return self._name if self._decord is None else "decord"

    def read(self, window: int, *, is_last: bool = False) -> WindowFrames:
        """The sampled frames of a window. Read them before asking for another window."""
        return WindowFrames(self, window, is_last=is_last)

    def close(self) -> None:
        """Closes the file."""
        self._frames.close()
        self._decord = None

    def frames(self, window: int) -> Iterator[VideoFrame]:
        """The sampled frames of a window, in order. Raises BrokenError at the first that can't be read.

        Afterwards `missed` has the frames for which the decoder gave nothing, without an error.
        """
        self.missed: list[int] = []
        start, end = self.bounds(window)
        origin, time_base = int(self.index.pts[0]), self.index.time_base
        wanted = start
        while wanted < end:
            found = self._at_or_after(wanted)
            if not self._may_pair:
                reached = end if found is None else min(found[0], end)
                self.missed += range(self.index.at_or_after(wanted), self.index.at_or_after(reached))
            if found is None:
                return
            pts, image = found
            if pts >= end or pts > self.index.pts[-1]:
                return
            ticks = pts - origin
            yield VideoFrame(frame=self.index.at_or_after(pts), timestamp=float(ticks * time_base), image=image)
            following = ticks + 1 if self._grid is None else self._grid.first_tick(self._grid.point(ticks) + 1)
            wanted = origin + following

    def bounds(self, window: int) -> tuple[int, int]:
        """[start, end) of a window in the container's ticks."""
        size, pts = self._extraction.segment_frames, self.index.pts
        if self._grid is not None:
            start, end = self._grid.window_ticks(window, size)
            return int(pts[0]) + start, int(pts[0]) + end
        beyond = int(pts[-1]) + 1
        return tuple(  # type: ignore[return-value]
            int(pts[at]) if at < len(pts) else beyond for at in (window * size, (window + 1) * size)
        )

    def last_window(self) -> int:
        """The window of the last frame; in a file that ends early, that which says so."""
        if self.index.ends_early:
            return self.end_window()
        size = self._extraction.segment_frames
        if self._grid is None:
            return (len(self.index) - 1) // size
        return self._grid.window_of(int(self.index.pts[-1]) - int(self.index.pts[0]), size)

    def end_window(self) -> int:
        """The window in which the frame after the last one would be."""
        size = self._extraction.segment_frames
        if self._grid is None:
            return len(self.index) // size
        return self._grid.window_of(int(self.index.pts[-1] - self.index.pts[0]) + 1, size)

    def is_unreadable(self, window: int) -> bool:
        """Whether a window's first frame can't be read, or the window lies behind the end of a file that ends early."""
        if window < 0:
            return False
        try:
            empty = next(self.frames(window), None) is None
        except (BrokenError, MediaError):
            return True
        return empty and self.index.ends_early and window >= self.end_window()

    def _at_or_after(self, pts: int) -> tuple[int, NDArray[np.uint8]] | None:
        if self._decord is not None:
            try:
                seen = self._decord.at_or_after(pts)
                return None if seen is None else (seen[0], self._decord.image(seen[1]))
            except DoubtError:
                self._decord = None  # for good: PyAV decides where the damage is
        found = self._frames.at_or_after(pts)
        return None if found is None else (found[0], self._frames.image(found[1]))

    def _open_decord(self) -> DecordFrames | None:
        try:
            return DecordFrames(self.path, self.index)
        except DoubtError:
            return None


class WindowFrames:
    """Iterate once; then `error`, `covered`, `more` and `decode_s` are known.

    error: why the window's frames end early; those before it are good data. beyond: how many windows follow this last
    planned one. covered: nothing of this window can be read, nor of the one before it, which (or one further back)
    has the error row.
    """

    def __init__(self, reader: VideoReader, window: int, *, is_last: bool) -> None:
        self._reader, self._window = reader, window
        self.beyond = max(0, reader.last_window() - window) if is_last else 0
        self.error: MediaError | None = None
        self.covered = False
        self.decode_s = 0.0

    @property
    def decoder(self) -> str:
        """The one that gave the last frame; a window that decord began may be ended by PyAV."""
        return self._reader.decoder

    def __iter__(self) -> Iterator[VideoFrame]:
        reader, count, last = self._reader, 0, None
        frames = reader.frames(self._window)
        began = time.perf_counter()
        try:
            while (frame := next(frames, None)) is not None:
                self.decode_s += time.perf_counter() - began
                count, last = count + 1, frame.timestamp
                yield frame
                began = time.perf_counter()
        except BrokenError as broken:
            self.error = self._break(broken, last)
        except MediaError as error:  # of a frame: too large, or the file is gone
            self.error = error
        if self.error is None and reader.index.ends_early and self._window >= reader.end_window():
            self.error = self._end()
        if self.error is None and reader.missed:
            self.error = self._missed()
        if self.error is not None and not count:
            self.covered = reader.is_unreadable(self._window - 1)
        self.decode_s += time.perf_counter() - began

    def _end(self) -> MediaError:
        index = self._reader.index
        end_s = float(int(index.pts[-1] - index.pts[0]) * index.time_base)
        if not index.left_out:
            return MediaError(ErrorCode.TRUNCATED, f"the file ends early, after {end_s:.3f} s of video")
        return MediaError(
            ErrorCode.CORRUPT,
            f"the times of its frames go back after {end_s:.3f} s; {index.left_out} frames from there on are left out; "
            "its container needs repair",
        )

    def _missed(self) -> MediaError:
        index, missed = self._reader.index, self._reader.missed
        at_s = float(int(index.pts[missed[0]] - index.pts[0]) * index.time_base)
        return MediaError(
            ErrorCode.CORRUPT,
            f"the decoder gives nothing for {len(missed)} frames of window {self._window}, the first at {at_s:.3f} s",
        )

    def _break(self, broken: BrokenError, last: float | None) -> MediaError:
        index = self._reader.index
        at = f"after {last:.3f} s" if last is not None else "at its first frame"
        keys = np.flatnonzero(index.is_key)
        ends = index.cut and (not len(keys) or keys[-1] <= broken.wanted)
        code = ErrorCode.TRUNCATED if ends else ErrorCode.CORRUPT
        return MediaError(code, f"decoding breaks {at} of window {self._window} ({broken})")


def video_content(path: Path) -> Content:
    """The container, by its first bytes. Raises MediaError when it is none."""
    with path.open("rb") as file:
        content = sniff(file.read(HEAD_BYTES))
    if content.kind != "video":
        raise MediaError(ErrorCode.NOT_MEDIA, f"not a video but {content.format}")
    return content


def full_index(path: Path, content: Content, max_pixels: int) -> PacketIndex:
    """The packet index without frames at the beginning that can't be decoded: those that a cut from a longer stream
    left without what they refer to."""
    index = _up_to_a_step_back(path, content, read_index(path, content))
    keys = np.flatnonzero(index.is_key)
    if index.untimed or not len(keys):
        return index
    first = int(keys[np.argmin(index.decode_order[keys])])
    if first == 0 and index.decode_order[0] == 0:
        return index
    head = index.pts[first]
    shown = _decoded_until(path, content, int(head))
    gone = (index.pts < head) & ~np.isin(index.pts, shown) & ~index.damaged  # a lost keyframe is no cut
    return without(index, gone) if gone.any() else index


def _up_to_a_step_back(path: Path, content: Content, index: PacketIndex) -> PacketIndex:
    """The frames before the first that doesn't come in the order of its time: read by their times, some of the others
    would be passed over. Only decoding tells, since what a container says of reordering is not exact."""
    if index.untimed or len(index.splices):
        return index
    depth = index.reorder_depth
    while (late := index.later_than(depth)) is not None:
        if _goes_back(path, content, index, late):
            after = index.decode_order >= index.decode_order[late]
            return replace(without(index, after), left_out=int(after.sum()))
        depth = int(index.decode_order[late]) - late
    return index


def _goes_back(path: Path, content: Content, index: PacketIndex, late: int) -> bool:
    """Whether the decoder gives a frame, from `late` on, after a later one."""
    keys = np.flatnonzero(index.is_key & (index.decode_order <= index.decode_order[late]))
    key = int(keys[np.argmax(index.decode_order[keys])]) if len(keys) else None
    last, since = None, 0
    with open_container(path, content) as container:
        stream = video_stream(container)
        stream.codec_context.thread_count = 1
        if key is not None and index.decode_order[key] > 0:
            container.seek(int(index.dts[key]), stream=stream, backward=True)
        for packet in container.demux(stream):
            if since or packet.pts == index.pts[late]:
                since += 1
            try:
                frames = packet.decode()
            except MemoryError:
                raise  # FFmpeg's is one of its own errors too
            except av.FFmpegError:
                continue
            for frame in frames:
                if frame.pts is None or frame.is_corrupt:
                    continue
                if since and last is not None and frame.pts < last:
                    return True
                last = frame.pts
            if since > MOST_REORDERED:
                break
    return False


def _decoded_until(path: Path, content: Content, pts: int) -> list[int]:
    """The times of the frames that really come out of the decoder, up to `pts`."""
    shown: list[int] = []
    with open_container(path, content) as container:
        stream = video_stream(container)
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except MemoryError:
                raise  # FFmpeg's is one of its own errors too
            except av.FFmpegError:
                continue
            for frame in frames:
                if frame.pts is not None and frame.pts >= pts:
                    return shown
                if frame.pts is not None and not frame.is_corrupt:
                    shown.append(frame.pts)
    return shown
