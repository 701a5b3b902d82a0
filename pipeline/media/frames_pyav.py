"""Frames by PyAV: every frame carries its own time, so damage, missing frames and any order of frames are seen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, MediaError
from pipeline.media.containers import open_container, packets_of, video_stream
from pipeline.media.display import Display
from pipeline.media.packets import PacketIndex, ticks_added
from pipeline.media.sniff import Content

SEEK_GAP_FRAMES = 8  # decoding this far costs less than seeking


class BrokenError(Exception):
    """Decoding can't go on: a packet is damaged, or the frame it became. wanted: the index of the frame that can't be
    reached from its own keyframe."""

    wanted = 0


class PyavFrames:
    """Decodes forward from keyframes; holds one frame. See `at_or_after`."""

    def __init__(self, path: Path, content: Content, index: PacketIndex, max_pixels: int) -> None:
        self._path, self._content, self._index, self._max_pixels = path, content, index, max_pixels
        self._converter = VideoReformatter()
        self._container: av.container.InputContainer | None = None
        self._stream: VideoStream | None = None
        self._run: Iterator[tuple[int, VideoFrame]] | None = None
        self._start = 0  # the keyframe (presentation index) that the run began at
        self._passed: int | None = None  # pts of the frame before the held one
        self._held: tuple[int, VideoFrame] | None = None

    def at_or_after(self, pts: int) -> tuple[int, VideoFrame] | None:
        """The first frame shown at `pts` or later, with its pts; None when no more come.

        The answer is that of decoding from the frame's own keyframe, wherever the last call left off. Raises
        BrokenError when a packet between the two is damaged.
        """
        wanted = self._index.at_or_after(pts)
        if wanted == len(self._index):
            return None
        key = 0 if self._index.untimed else self._index.keyframe_before(wanted)
        if self._must_seek(pts, key):
            self._seek(key)
        try:
            try:
                found = self._advance(pts)
            except BrokenError:
                if self._start == key:
                    raise
                self._seek(key)  # damage before the frame's own keyframe is not in the way
                found = self._advance(pts)
        except BrokenError as broken:
            broken.wanted = wanted
            raise
        late = found is None or found[0] > self._index.pts[wanted]
        if late and self._passed is None and key > 0:
            # a keyframe that needs what was before it (gradual refresh): start one earlier
            self._seek(self._index.keyframe_before(key - 1))
            found = self._advance(pts)
        return found

    def image(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The frame as upright contiguous RGB (H, W, 3), its pixels square."""
        assert self._stream is not None
        display = Display.of(frame, self._stream)
        check_pixels(*display.size(frame.width, frame.height), self._max_pixels)
        return display.picture(frame, self._converter)

    def close(self) -> None:
        """Closes the file."""
        if self._container is not None:
            self._container.close()
        self._container = self._stream = self._run = self._held = None

    def _must_seek(self, pts: int, key: int) -> bool:
        if self._run is None or key < self._start:
            return True
        if self._held is None:
            return True
        if self._passed is not None and pts <= self._passed:
            return True
        at = self._index.at_or_after(self._held[0])
        return key > at + SEEK_GAP_FRAMES

    def _advance(self, pts: int) -> tuple[int, VideoFrame] | None:
        assert self._run is not None
        while self._held is None or self._held[0] < pts:
            try:
                following = next(self._run, None)
            except BrokenError:
                self._run = None  # whoever asks next begins at a keyframe
                raise
            if self._held is not None:
                self._passed = self._held[0]
            self._held = following
            if following is None:
                return None
        return self._held

    def _seek(self, key: int) -> None:
        self._start, self._held, self._passed = key, None, None
        self._run = self._decode(key)

    def _decode(self, key: int) -> Iterator[tuple[int, VideoFrame]]:
        """Frames from a keyframe on, in presentation order."""
        first = int(self._index.pts[key])
        last: int | None = None
        numbered = itertools.count()
        hole = False  # a part is missing among the frames before the keyframe; it may have taken the next along
        for packet in self._packets(key):
            leads = packet.pts is not None and packet.pts < first  # made from what was before the keyframe
            damaged = self._is_damaged(packet.pts) or (hole and not leads and not packet.is_keyframe)
            hole = damaged and leads
            broken: BrokenError | None = None
            try:
                # Not given to a decoder, which may conceal what is missing.
                frames = [] if damaged else packet.decode()
            except MemoryError:
                raise  # FFmpeg's is one of its own errors too
            except av.FFmpegError as error:
                broken = BrokenError(_reason(error))
            else:
                broken = BrokenError("a part of the stream is missing") if damaged else None
            if broken is not None:
                if leads:
                    continue
                frames = self._delayed(packet.pts)
            for frame in frames:
                pts = self._pts(frame, numbered)
                if pts is None or pts < first or pts == last:
                    continue
                if last is not None and pts < last:
                    if self._is_unknown(pts):
                        continue
                    raise BrokenError("a frame that comes after a later one")
                if frame.is_corrupt:
                    raise BrokenError("a damaged frame")
                last = pts
                yield pts, frame
            if broken is not None:
                raise broken

    def _delayed(self, before: int | None) -> list[VideoFrame]:
        """Frames that the decoder had finished before it met a bad packet, and that are shown before it."""
        assert self._stream is not None
        try:
            frames = self._stream.codec_context.decode(None)
        except MemoryError:
            raise
        except av.FFmpegError:
            return []
        return [frame for frame in frames if before is None or frame.pts is None or frame.pts < before]

    def _pts(self, frame: VideoFrame, numbered: Iterator[int]) -> int | None:
        if not self._index.untimed:
            return frame.pts
        at = next(numbered)
        return int(self._index.pts[at]) if at < len(self._index) else None

    def _packets(self, key: int) -> Iterator[Packet[VideoStream]]:
        """Packets from a keyframe's own on. Seeking is never exact in every container, so where it led is checked."""
        start = int(self._index.dts[key])
        earlier = key
        while key > 0 and earlier > 0 and not len(self._index.splices):  # a time is in several parts
            for time in (int(self._index.dts[earlier]), int(self._index.pts[earlier])):
                packets = self._from(time)
                first = next(packets, None)
                if first is not None and first.dts is not None and first.dts <= start:
                    yield from _since(itertools.chain([first], packets), int(self._index.pts[key]))
                    return
            earlier = self._index.keyframe_before(max(0, earlier - 50))
        yield from _since(self._from(None), int(self._index.pts[key]) if key else None)

    def _from(self, time: int | None) -> Iterator[Packet[VideoStream]]:
        if self._container is None or self._stream is None or time is None:
            self.close_container()
            self._container = open_container(self._path, self._content)
            self._stream = video_stream(self._container)
            self._stream.codec_context.thread_count = 1
            check_pixels(self._stream.codec_context.width, self._stream.codec_context.height, self._max_pixels)
        try:
            if time is not None:
                self._container.seek(time, stream=self._stream, backward=True)
            read = 0
            for packet in packets_of(self._container, self._stream):
                if len(self._index.splices) and packet.size:
                    added = int(ticks_added(self._index.splices, np.array(read)))
                    packet.pts, packet.dts = (None if t is None else t + added for t in (packet.pts, packet.dts))
                    read += 1
                if not (packet.is_corrupt and self._is_unknown(packet.pts)):  # cut off; the index leaves it out too
                    yield packet
        except MemoryError:
            raise
        except (av.FFmpegError, OSError) as error:
            raise BrokenError(_reason(error)) from None

    def _is_damaged(self, pts: int | None) -> bool:
        return pts is not None and not self._is_unknown(pts) and bool(self._index.damaged[self._index.at_or_after(pts)])

    def _is_unknown(self, pts: int | None) -> bool:
        at = len(self._index) if pts is None else self._index.at_or_after(pts)
        return at == len(self._index) or self._index.pts[at] != pts

    def close_container(self) -> None:
        """Lets go of the file; the next run opens it again."""
        if self._container is not None:
            self._container.close()
        self._container = self._stream = None


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raises MediaError too_large for frames above the limit, before they are decoded."""
    if width * height > max_pixels:
        raise MediaError(
            ErrorCode.TOO_LARGE,
            f"frames of {width}x{height} are {width * height} pixels; max_pixels of this dataset is {max_pixels}",
        )


def _since(packets: Iterator[Packet[VideoStream]], pts: int | None) -> Iterator[Packet[VideoStream]]:
    if pts is None:
        return packets
    return itertools.dropwhile(lambda packet: packet.pts != pts, packets)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
