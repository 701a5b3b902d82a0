"""The packet index of a video: when every frame is shown, in whole ticks of the container's clock, without decoding.

decord reports times as float32 seconds; deciding a grid needs exact ones, so they come from the demuxer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, MediaError
from pipeline.sniff import Content

av.logging.set_level(None)  # libav's own lines would fill the actor's log; errors are classified here

_KEY, _CORRUPT = 1, 2
_HEADER_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class PacketIndex:
    """One entry per frame, in presentation order.

    pts: int64 ticks (absolute), strictly ascending. decode_order: place of each packet in the file. is_key: bool.
    time_base: seconds per tick. cut: the file ends before its container says so, or its last packet is incomplete.
    untimed: the container has no presentation times; pts are its sorted decode times.
    """

    pts: NDArray[np.int64]
    decode_order: NDArray[np.int64]
    dts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    time_base: Fraction
    packets: int
    cut: bool
    untimed: bool

    def __len__(self) -> int:
        return len(self.pts)

    def at_or_after(self, pts: int) -> int:
        """Index of the first frame shown at `pts` or later; len(self) if there is none."""
        return int(np.searchsorted(self.pts, pts))

    def keyframe_before(self, index: int) -> int:
        """Index of the last keyframe at or before a frame; 0 if there is none."""
        keys = np.flatnonzero(self.is_key)
        at = int(np.searchsorted(keys, index, side="right")) - 1
        return int(keys[at]) if at >= 0 else 0

    def save(self, path: Path) -> None:
        """Writes the index; `load` reads it."""
        with path.open("wb") as file:
            np.savez(
                file,
                pts=self.pts,
                decode_order=self.decode_order,
                dts=self.dts,
                is_key=self.is_key,
                rest=np.array(
                    [*self.time_base.as_integer_ratio(), self.packets, int(self.cut), int(self.untimed)], np.int64
                ),
            )

    @classmethod
    def load(cls, path: Path) -> PacketIndex:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            numerator, denominator, packets, cut, untimed = stored["rest"].tolist()
            return cls(
                pts=stored["pts"],
                decode_order=stored["decode_order"],
                dts=stored["dts"],
                is_key=stored["is_key"],
                time_base=Fraction(numerator, denominator),
                packets=packets,
                cut=bool(cut),
                untimed=bool(untimed),
            )

    @property
    def closed_groups(self) -> bool:
        """Whether decoding can start at any keyframe and frames come out as they are counted: no frame that is decoded
        after a keyframe is shown before it, and the reverse."""
        rank = np.empty(len(self), np.int64)
        rank[self.decode_order] = np.arange(len(self))  # presentation index of the n-th packet
        keys = np.flatnonzero(self.is_key)
        highest = np.maximum.accumulate(rank)
        return (
            bool(len(keys))
            and keys[0] == 0
            and bool((self.decode_order[keys] == keys).all() and (highest[keys] == keys).all())
        )


def open_container(path: Path, content: Content) -> av.container.InputContainer:
    """The file, by the demuxer that its first bytes name and no other. Raises MediaError."""
    try:
        return av.open(str(path), "r", format=content.format, options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise why_unreadable(path, content, error) from None


def video_stream(container: av.container.InputContainer) -> VideoStream:
    """The stream that FFmpeg and decord take as the best. Raises MediaError when there is none or no decoder for it."""
    stream = container.streams.best("video")
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not isinstance(stream, VideoStream) or not pictures:
        sound = " (sound only)" if container.streams.audio else ""
        raise MediaError(ErrorCode.UNSUPPORTED, f"no video stream in the file{sound}")
    if stream.disposition & Disposition.attached_pic:
        stream = pictures[0]
    if stream.codec_context is None:
        raise MediaError(ErrorCode.UNSUPPORTED, "no decoder for this video's codec")
    return stream


def why_unreadable(path: Path, content: Content, error: BaseException) -> MediaError:
    """Whether a container that can't be opened is cut off or broken."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        code = ErrorCode.NOT_FOUND if isinstance(error, FileNotFoundError) else ErrorCode.PERMISSION
        return MediaError(code, "the file can't be opened")
    reason = getattr(error, "strerror", None) or "invalid data"
    if is_cut(path, content):
        return MediaError(ErrorCode.TRUNCATED, f"the {content.format} file ends early and can't be opened ({reason})")
    return MediaError(ErrorCode.CORRUPT, f"the {content.format} file can't be opened ({reason})")


def read_index(path: Path, content: Content) -> PacketIndex:
    """Reads every packet's header once. Raises MediaError when no packet of video can be read."""
    packets: list[tuple[int | None, int | None, int]] = []
    beyond = is_cut(path, content)
    with open_container(path, content) as container:
        stream = video_stream(container)
        time_base = stream.time_base or Fraction(1, av.time_base)
        # AVI stores decode times only; what FFmpeg makes of them is wrong when frames are reordered
        untimed = content.format == "avi" and bool(stream.codec_context.has_b_frames)
        promised = len(stream.index_entries) if content.format == "mov" else 0
        read = 0
        try:
            for packet in container.demux(stream):
                read += bool(packet.size)
                if packet.size and not packet.is_discard:
                    packets.append((packet.pts, packet.dts, _KEY * packet.is_keyframe | _CORRUPT * packet.is_corrupt))
        except (av.FFmpegError, OSError):
            beyond = True
    cut = read < promised or (beyond and not 0 < promised <= read)
    while packets and packets[-1][2] & _CORRUPT:  # the last packet is there in part
        packets.pop()
        cut = True
    if not packets:
        code = ErrorCode.TRUNCATED if cut else ErrorCode.CORRUPT
        raise MediaError(code, "there is no frame of video in the file")
    shown = [pts for pts, _, _ in packets]
    decoded = [dts for _, dts, _ in packets]
    untimed = untimed or None in shown
    if untimed:
        given = [time for time in (shown if None not in shown else decoded) if time is not None]
        times = sorted(given) if len(set(given)) == len(packets) else list(range(len(packets)))
    else:
        times = [time for time in shown if time is not None]
    pts = np.array(times, np.int64)
    dts = np.array([time if time is not None else times[at] for at, time in enumerate(decoded)], np.int64)
    _, order = np.unique(pts, return_index=True)  # two packets of one time, the fields of a picture, are one frame
    return PacketIndex(
        pts=pts[order],
        dts=dts[order],
        decode_order=np.argsort(np.argsort(order)),
        is_key=np.array([flags & _KEY for _, _, flags in packets], bool)[order],
        time_base=time_base,
        packets=len(packets),
        cut=cut,
        untimed=untimed,
    )


def without(index: PacketIndex, gone: NDArray[np.bool_]) -> PacketIndex:
    """The index without some frames: those that no decoder can make, because what they refer to is not in the file."""
    kept = ~gone
    return replace(
        index,
        pts=index.pts[kept],
        dts=index.dts[kept],
        decode_order=np.argsort(np.argsort(index.decode_order[kept])),
        is_key=index.is_key[kept],
    )


def is_cut(path: Path, content: Content) -> bool:
    """Whether a container's outermost lengths reach beyond the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if content.format == "mov":
            return _boxes_end(file, size) > size
        if content.format == "avi":
            return _chunks_end(file, size) > size
        if content.format == "matroska":
            return _segment_end(file.read(_HEADER_BYTES)) > size
    return content.format == "mpegts" and size % 188 != 0 and size % 192 != 0


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last box of a QuickTime or MP4 file ends (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isascii():  # 0 means up to the end; anything else below 8 is no box
            return size
        at += length
    return at


def _chunks_end(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk of an AVI file ends; a large file has several."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length == 0:  # 0: a recording that was never finished
            return size
        at += 8 + length + length % 2
    return at - 1  # a last padding byte may be left out


def _segment_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends (RFC 8794, 4 and 5), or 0 when it doesn't say."""
    at = 4
    length, at = _variable_length(head, at)
    at += length
    if head[at : at + 4] != bytes.fromhex("18538067"):
        return 0
    first = at + 4
    length, at = _variable_length(head, first)
    unknown = length == (1 << 7 * (at - first)) - 1
    return 0 if unknown else at + length


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    width = 9 - data[at].bit_length() if at < len(data) and data[at] else 9
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return value, at + width
