"""Which frames of an MPEG transport stream have lost a part on the way (ISO/IEC 13818-1, 2.4.3).

Decoders conceal what is missing, HEVC's without a word, and FFmpeg marks the packet before. But transport packets are
counted: a step in the continuity counter of the video's packets tells in which frame something is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLOCK_MASK = (1 << 33) - 1  # of the 90 kHz clock in the stream
_SYNC = 0x47
_PACKET_BYTES = {0: 188, 4: 192}  # by where the first sync byte is; 192: four bytes of time before each (BDAV)
_ROWS = 1 << 18  # looked at at once
_MOST_OUT_OF_STEP = 0.05  # of the packets; FFmpeg finds its way in a stream that lost single bytes, this does not


@dataclass(frozen=True, kw_only=True)
class _Packets:
    """Of the video's packets that carry data: row in the file, counter, whether a frame's packet starts there, whether
    a break is announced, whether decoding may start there. tables: rows of the program's table of contents."""

    row: NDArray[np.int64]
    counter: NDArray[np.uint8]
    starts: NDArray[np.bool_]
    announced: NDArray[np.bool_]
    random_access: NDArray[np.bool_]
    tables: NDArray[np.int64]


def damaged_times(path: Path, pid: int) -> NDArray[np.int64]:
    """Presentation times of the damaged frames, in ticks of the stream's 33-bit clock. pid: of the video's packets.

    A step where a table of contents comes before a keyframe is where streams were joined: nothing is missing there.
    """
    nothing = np.empty(0, np.int64)
    file = np.memmap(path, np.uint8, "r")
    start = next((at for at in _PACKET_BYTES if len(file) > at and file[at] == _SYNC), None)
    if start is None:
        return nothing
    size = _PACKET_BYTES[start]
    rows = file[: len(file) // size * size].reshape(-1, size)[:, start:]
    packets = _video_packets(rows, pid)
    if packets is None or len(packets.row) < 2:
        return nothing
    steps = (packets.counter[1:] - packets.counter[:-1]) & 15
    at = np.flatnonzero((steps > 1) & ~packets.announced[1:]) + 1  # 0: a packet may be sent twice
    tables = np.searchsorted(packets.tables, packets.row)
    joined = packets.starts[at] & packets.random_access[at] & (tables[at] > tables[at - 1])
    frame_of = np.cumsum(packets.starts) - 1
    times = _times(rows, packets.row[packets.starts])
    hurt = np.unique(frame_of[at[~joined] - 1])  # the frame that was being sent; what follows it hangs on it
    known = times[hurt[hurt >= 0]]
    return np.unique(known[known >= 0])


def _video_packets(rows: NDArray[np.uint8], pid: int) -> _Packets | None:
    """None for a stream whose packets don't lie in step."""
    found: list[tuple[NDArray[np.int64], NDArray[np.uint8]]] = []
    tables: list[NDArray[np.int64]] = []
    out_of_step = 0
    for first in range(0, len(rows), _ROWS):
        head = np.asarray(rows[first : first + _ROWS, :6])
        in_step = head[:, 0] == _SYNC
        out_of_step += int((~in_step).sum())
        pids = (head[:, 1].astype(np.int32) & 0x1F) << 8 | head[:, 2]
        video = np.flatnonzero(in_step & (pids == pid) & (head[:, 3] & 0x10 > 0))
        found.append((video + first, head[video]))
        tables.append(np.flatnonzero(in_step & (pids == 0)) + first)
    if not found or out_of_step > _MOST_OUT_OF_STEP * len(rows):
        return None
    row, head = (np.concatenate(parts) for parts in zip(*found, strict=True))
    flags = np.where((head[:, 3] & 0x20 > 0) & (head[:, 4] > 0), head[:, 5], 0)  # of the adaptation field, if any
    return _Packets(
        row=row,
        counter=(head[:, 3] & 15).astype(np.uint8),
        starts=head[:, 1] & 0x40 > 0,
        announced=flags & 0x80 > 0,
        random_access=flags & 0x40 > 0,
        tables=np.concatenate(tables),
    )


def _times(rows: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The time in each of these packets' headers (2.4.3.6); in one without, that of the one before; -1 at first."""
    times, last = np.empty(len(starts), np.int64), -1
    for number, row in enumerate(starts.tolist()):
        packet = bytes(rows[row])
        header = packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]
        if len(header) >= 14 and header[:3] == b"\0\0\1" and header[7] & 0x80:
            high, middle, low = header[9] >> 1 & 7, header[10] << 7 | header[11] >> 1, header[12] << 7 | header[13] >> 1
            last = high << 30 | middle << 15 | low
        times[number] = last
    return times
