"""The packet index of a video: when every frame is shown, in whole ticks of the container's clock, without decoding.

Deciding a grid needs exact times (decord reports float32 seconds), so they come from the demuxer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, MediaError
from pipeline.media.containers import (
    NO_FRAME,
    ends_within_fragment,
    is_clean_start,
    is_cut,
    open_container,
    packets_of,
    shows_nothing,
    video_stream,
)
from pipeline.media.sniff import Content
from pipeline.media.transport import CLOCK_MASK, damaged_times

_KEY, _CORRUPT = 1, 2
_JOINABLE = {"mpegts", "mpeg"}  # made to be cut and joined anywhere
_BACKWARDS_S = Fraction(1, 2)  # less is a muxer's carelessness


@dataclass(frozen=True, kw_only=True)
class PacketIndex:
    """One entry per frame, in presentation order.

    pts: int64 ticks (absolute), strictly ascending. decode_order: place of each packet in the file. is_key: bool.
    damaged: bool; a part of the packet was lost on its way, as far as the container tells.
    time_base: seconds per tick.
    clean_starts: every keyframe is one from which all that follows can be decoded; in H.264 and HEVC a container may
    also mark the first picture of a gradual refresh.
    packets: how many the file has, those without a time or a picture to show among them.
    cut: the file ends before its container says so, or its last packet is incomplete. left_out: frames that follow in
    the file, from the first whose time goes back; they are not here.
    reorder_depth: how many frames the decoder waits for before it shows the first, says the container; often too few.
    untimed: the container has no presentation times of its own; frames are counted as they come out of the decoder.
    splices: (K, 2) int64, for streams that were joined end to end and whose clock starts anew: the number of the first
    packet of each further part, and the ticks that pts and dts here have more than those in the file. None: (0, 2).
    """

    pts: NDArray[np.int64]
    decode_order: NDArray[np.int64]
    dts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    damaged: NDArray[np.bool_]
    time_base: Fraction
    clean_starts: bool
    packets: int
    cut: bool
    left_out: int
    reorder_depth: int
    untimed: bool
    splices: NDArray[np.int64]

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
                damaged=self.damaged,
                splices=self.splices,
                rest=np.array(
                    [
                        *self.time_base.as_integer_ratio(),
                        self.clean_starts,
                        self.packets,
                        self.cut,
                        self.left_out,
                        self.reorder_depth,
                        self.untimed,
                    ],
                    np.int64,
                ),
            )

    @classmethod
    def load(cls, path: Path) -> PacketIndex:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            numerator, denominator, *flags, reorder_depth, untimed = stored["rest"].tolist()
            clean_starts, packets, cut, left_out = flags
            return cls(
                pts=stored["pts"],
                decode_order=stored["decode_order"],
                dts=stored["dts"],
                is_key=stored["is_key"],
                damaged=stored["damaged"],
                time_base=Fraction(numerator, denominator),
                clean_starts=bool(clean_starts),
                packets=packets,
                cut=bool(cut),
                left_out=left_out,
                reorder_depth=reorder_depth,
                untimed=bool(untimed),
                splices=stored["splices"],
            )

    def later_than(self, depth: int) -> int | None:
        """Index of the first frame, in the file's order, that more than `depth` frames shown after it precede."""
        late = np.flatnonzero(self.decode_order - np.arange(len(self)) > depth)
        return int(late[np.argmin(self.decode_order[late])]) if len(late) else None

    @property
    def ends_early(self) -> bool:
        """Whether the file has, or had, more frames than are here."""
        return self.cut or self.left_out > 0

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


def read_index(path: Path, content: Content) -> PacketIndex:
    """Reads every packet's header once. Raises MediaError when no packet of video can be read."""
    packets: list[tuple[int | None, int | None, int, int]] = []  # pts, dts, flags, number
    beyond = is_cut(path, content)
    with open_container(path, content) as container:
        stream = video_stream(container)
        time_base = stream.time_base or Fraction(1, av.time_base)
        pid = stream.id if content.format == "mpegts" else None
        # AVI stores decode times only; what FFmpeg makes of them is wrong when frames are reordered
        reorder_depth = int(stream.codec_context.has_b_frames)
        rate = stream.average_rate if content.format == "mpegvideo" else None  # all that a bare stream says
        untimed = (content.format == "avi" and bool(reorder_depth)) or rate is not None
        promised = len(stream.index_entries) if content.format == "mov" else 0
        clean_starts, read, hidden = True, 0, 0
        try:
            for packet in packets_of(container, stream):
                read += bool(packet.size)
                if packet.is_keyframe and clean_starts:
                    clean_starts = is_clean_start(stream, packet)
                if packet.size and shows_nothing(stream, packet):
                    hidden += 1
                elif packet.size and not packet.is_discard:
                    flags = _KEY * packet.is_keyframe | _CORRUPT * packet.is_corrupt
                    packets.append((packet.pts, packet.dts, flags, read - 1))
        except MemoryError:
            raise  # FFmpeg's is one of its own errors too
        except (av.FFmpegError, OSError):
            beyond = True
    has_all = 0 < promised <= read and not ends_within_fragment(path, content)
    cut = read < promised or (beyond and not has_all)
    while packets and packets[-1][2] & _CORRUPT:  # the last packet is there in part
        packets.pop()
        cut = True
    if not packets:
        code = ErrorCode.TRUNCATED if cut else ErrorCode.CORRUPT
        raise MediaError(code, NO_FRAME)
    read = len(packets)
    timed = [packet for packet in packets if packet[0] is not None]
    if content.format in _JOINABLE and 2 * len(timed) > read:
        packets = timed  # the others lost their header on the way: frames without a time are no data
    shown = [pts for pts, _, _, _ in packets]
    decoded = [dts for _, dts, _, _ in packets]
    untimed = untimed or None in shown
    splices = (
        _splices(packets, time_base) if content.format in _JOINABLE and not untimed else np.empty((0, 2), np.int64)
    )
    if untimed:
        given = [time for time in (shown if None not in shown else decoded) if time is not None]
        times = sorted(given) if len(set(given)) == len(packets) else list(range(len(packets)))
        if rate is not None:
            times = [round(at / rate / time_base) for at in range(len(packets))]
    else:
        times = [time for time in shown if time is not None]
    added = ticks_added(splices, np.array([number for *_, number in packets]))
    pts = np.array(times, np.int64) + added
    dts = np.array([time if time is not None else times[at] for at, time in enumerate(decoded)], np.int64) + added
    damaged = np.zeros(len(pts), bool)
    if pid is not None and not untimed:
        damaged = np.isin((pts - added) & CLOCK_MASK, damaged_times(path, pid))
    _, order = np.unique(pts, return_index=True)  # two packets of one time, the fields of a picture, are one frame
    return PacketIndex(
        pts=pts[order],
        dts=dts[order],
        decode_order=np.argsort(np.argsort(order)),
        is_key=np.array([flags & _KEY for _, _, flags, _ in packets], bool)[order],
        damaged=damaged[order],
        time_base=time_base,
        clean_starts=clean_starts,
        packets=read + hidden,
        cut=cut,
        left_out=0,
        reorder_depth=reorder_depth,
        untimed=untimed,
        splices=splices,
    )


def ticks_added(splices: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """What a packet's number in the file (of those that hold data) says must be added to its times."""
    return np.concatenate([[0], splices[:, 1]])[np.searchsorted(splices[:, 0], numbers, side="right")]


def _splices(packets: list[tuple[int | None, int | None, int, int]], time_base: Fraction) -> NDArray[np.int64]:
    """Where the clock goes back, and what makes each part follow the one before by one frame."""
    pts, dts, number = (np.array([packet[at] or 0 for packet in packets], np.int64) for at in (0, 1, 3))
    starts = np.flatnonzero(np.diff(dts) < -_BACKWARDS_S / time_base) + 1
    found, end = [], 0
    for start, part in zip([0, *starts.tolist()], np.split(np.arange(len(pts)), starts), strict=True):
        steps = np.diff(np.unique(pts[part]))
        step = int(np.median(steps)) if len(steps) else int(Fraction(1, 25) / time_base)
        added = end - int(pts[part].min()) if start else 0
        if start:
            found.append((int(number[start]), added))
        end = int(pts[part].max()) + added + step
    return np.array(found, np.int64).reshape(-1, 2)


def without(index: PacketIndex, gone: NDArray[np.bool_]) -> PacketIndex:
    """The index without some frames: those that no decoder can make, because what they refer to is not in the file."""
    kept = ~gone
    return replace(
        index,
        pts=index.pts[kept],
        dts=index.dts[kept],
        decode_order=np.argsort(np.argsort(index.decode_order[kept])),
        is_key=index.is_key[kept],
        damaged=index.damaged[kept],
    )
