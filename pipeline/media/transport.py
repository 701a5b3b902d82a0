"""Which frames of an MPEG transport stream have lost a part on the way (ISO/IEC 13818-1, 2.4.3).

Decoders conceal what is missing, HEVC's without a word, and FFmpeg marks the packet before. But transport packets are
counted: a step in the continuity counter of the video's packets tells in which frame something is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.media.sniff import HEAD_BYTES, transport_packets

CLOCK_MASK = (1 << 33) - 1  # of the 90 kHz clock in the stream
_BACK, _AHEAD = 45_000, 10 * 90_000  # ticks between frames that follow each other; more is another clock
_TABLES = (0, 17)  # packet ids of what programs there are, and what they are called: sent at different intervals
_SYNC = 0x47
_TIME_CODE_BYTES = {192: 4}  # before each packet's sync byte, by the bytes from one to the next (BDAV)
_ROWS = 1 << 16  # packets looked at at once
_MOST_BREAKS = 0.5  # of the video's packets; more come from a muxer that doesn't count
_MOST_OUT_OF_STEP = 0.05  # of the packets; FFmpeg finds its way in a stream that lost single bytes, this does not


@dataclass(kw_only=True)
class _Scan:
    """What the packets' headers tell, by row in the file. starts: where a frame's packet starts. breaks: (K, 3): the
    last packet before a break and the first behind it; whether decoding may start with that one. new_tables: tables
    that are out of step."""

    starts: list[NDArray[np.int64]] = field(default_factory=list)
    breaks: list[NDArray[np.int64]] = field(default_factory=list)
    new_tables: list[NDArray[np.int64]] = field(default_factory=list)
    rows: int = 0
    video_rows: int = 0
    out_of_step: int = 0
    _last: dict[int, tuple[int, int]] = field(default_factory=dict)  # row and counter by packet id

    def add(self, head: NDArray[np.uint8], pid: int) -> None:
        """The first six bytes of each of the next packets."""
        in_step = head[:, 0] == _SYNC
        self.out_of_step += int((~in_step).sum())
        pids = (head[:, 1].astype(np.int32) & 0x1F) << 8 | head[:, 2]
        has_data = in_step & (head[:, 3] & 0x10 > 0)
        for table in _TABLES:
            row, steps = self._steps(np.flatnonzero(has_data & (pids == table)), head, table)
            self.new_tables.append(row[1:][steps > 1])
        at = np.flatnonzero(has_data & (pids == pid))
        row, steps = self._steps(at, head, pid)
        flags = np.where((head[at, 3] & 0x20 > 0) & (head[at, 4] > 0), head[at, 5], 0)  # of the adaptation field
        starts = head[at, 1] & 0x40 > 0
        self.starts.append(at[starts] + self.rows)
        if len(at):
            may_start = starts & (flags & 0x40 > 0)
            skipped = len(at) - len(steps)  # the file's first packet follows none
            missing = (steps > 1) & (flags[skipped:] & 0x80 == 0)  # 0: sent twice; 0x80: a break that is announced
            self.breaks.append(np.stack([row[:-1], row[1:], may_start[skipped:]], axis=1)[missing])
            wrong = at[head[at, 1] & 0x80 > 0] + self.rows  # so marked by who received it
            self.breaks.append(np.stack([wrong, wrong, np.zeros_like(wrong)], axis=1))
        self.rows += len(head)
        self.video_rows += len(at)

    def _steps(
        self, at: NDArray[np.int64], head: NDArray[np.uint8], pid: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the packets of a pid, from the last one seen before, and by how much each counter follows."""
        row, counter = at + self.rows, head[at, 3].astype(np.int64) & 15
        if pid in self._last:
            before = self._last[pid]
            row, counter = np.append(before[0], row), np.append(before[1], counter)
        if len(row):
            self._last[pid] = int(row[-1]), int(counter[-1])
        return row, np.diff(counter) & 15


def damaged_times(path: Path, pid: int) -> NDArray[np.int64]:
    """Presentation times of the damaged frames, in ticks of the stream's 33-bit clock. pid: of the video's packets.

    A step before a keyframe is where streams were joined, and nothing is missing there, if a table comes between that
    is out of step too, or the clock is set anew. Reads the file once, in flat memory.
    """
    nothing = np.empty(0, np.int64)
    with path.open("rb") as file:
        packets = transport_packets(file.read(HEAD_BYTES))
        if packets is None:
            return nothing
        (first, size), scan = packets, _Scan()
        sync = _TIME_CODE_BYTES.get(size, 0)
        for heads in _heads(file, first, size, sync):
            scan.add(heads, pid)
        breaks = np.concatenate([*scan.breaks, np.empty((0, 3), np.int64)])
        is_counted = scan.out_of_step <= _MOST_OUT_OF_STEP * scan.rows and len(breaks) <= _MOST_BREAKS * scan.video_rows
        if not len(breaks) or not is_counted:
            return nothing
        starts, new_tables = np.concatenate(scan.starts), np.sort(np.concatenate(scan.new_tables))

        def time_of(frame: int) -> int | None:  # of one whose header is lost: that of the one before
            found = (_time(file, first + int(starts[at]) * size + sync) for at in range(frame, -1, -1))
            return next((time for time in found if time is not None), None)

        hurt: set[int] = set()
        for before, row, may_start in breaks.tolist():
            # what was being sent is damaged, and what follows it hangs on it
            frame = int(np.searchsorted(starts, before, side="right")) - 1
            time = time_of(frame)
            new_table = np.searchsorted(new_tables, before) < np.searchsorted(new_tables, row)
            if time is not None and not (may_start and (new_table or _is_new_clock(time, time_of(frame + 1)))):
                hurt.add(time)
        return np.array(sorted(hurt), np.int64)


def _heads(file: BinaryIO, first: int, size: int, sync: int) -> Iterator[NDArray[np.uint8]]:
    """The first six bytes of every packet."""
    file.seek(first)
    while len(data := file.read(_ROWS * size)) >= size:
        yield np.frombuffer(data, np.uint8, len(data) // size * size).reshape(-1, size)[:, sync : sync + 6]


def _is_new_clock(before: int, time: int | None) -> bool:
    return time is not None and not -_BACK <= time - before <= _AHEAD


def _time(file: BinaryIO, at: int) -> int | None:
    """The time in the header (2.4.3.6) that begins in a transport packet; None if there is none."""
    file.seek(at)
    packet = file.read(188)
    header = packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]
    if len(header) < 14 or header[:3] != b"\0\0\1" or not header[7] & 0x80:
        return None
    high, middle, low = header[9] >> 1 & 7, header[10] << 7 | header[11] >> 1, header[12] << 7 | header[13] >> 1
    return high << 30 | middle << 15 | low
