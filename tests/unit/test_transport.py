"""Continuity counters tell what a transport stream has lost, and nothing of one that is whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.media import transport
from pipeline.media.transport import damaged_times
from tests.media import write_video

PACKET = 188


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("ts") / "a.ts", frames=40, gop=10)


def pid_and_times(path: Path) -> tuple[int, list[int]]:
    """Of the video; the times in the order of the file."""
    with av.open(str(path)) as container:
        return container.streams.video[0].id, [p.pts for p in container.demux(video=0) if p.size and p.pts is not None]


def packets(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + PACKET] for at in range(0, len(data), PACKET)]


def of_video(path: Path) -> list[int]:
    """Places of the packets that carry video."""
    pid, _ = pid_and_times(path)
    return [at for at, packet in enumerate(packets(path)) if (packet[1] & 31) << 8 | packet[2] == pid]


def starts(path: Path) -> list[int]:
    return [at for at in of_video(path) if packets(path)[at][1] & 0x40]


def without(path: Path, target: Path, *lost: int) -> Path:
    target.write_bytes(b"".join(packet for at, packet in enumerate(packets(path)) if at not in lost))
    return target


def test_a_whole_stream_has_no_damage_also_when_joined_or_sent_twice(stream: Path, tmp_path: Path) -> None:
    pid, _ = pid_and_times(stream)
    assert damaged_times(stream, pid).tolist() == []
    joined = tmp_path / "joined.ts"
    joined.write_bytes(stream.read_bytes() * 3)
    assert damaged_times(joined, pid).tolist() == []
    twice = tmp_path / "twice.ts"
    second = of_video(stream)[5]
    twice.write_bytes(b"".join(packet * (2 if at == second else 1) for at, packet in enumerate(packets(stream))))
    assert damaged_times(twice, pid).tolist() == []


def test_the_frame_that_lost_a_packet_is_named(stream: Path, tmp_path: Path) -> None:
    pid, times = pid_and_times(stream)
    begins = starts(stream)
    for number in (0, 10):  # keyframes have several packets
        inside = begins[number] + 1
        assert inside in of_video(stream)
        assert inside not in begins
        lost = without(stream, tmp_path / "lost.ts", inside)
        assert damaged_times(lost, pid).tolist() == [times[number]]
    header = without(stream, tmp_path / "header.ts", begins[20])  # the frame is gone: the one before may lack its end
    assert damaged_times(header, pid).tolist() == [times[19]]


def test_a_table_before_a_keyframe_does_not_excuse_what_is_missing(stream: Path, tmp_path: Path) -> None:
    pid, times = pid_and_times(stream)
    begins = starts(stream)
    last = max(at for at in of_video(stream) if at < begins[10])  # of the frame before the second keyframe
    assert (packets(stream)[begins[10] - 2][1] & 31, packets(stream)[begins[10] - 2][2]) == (0, 0)
    lost = without(stream, tmp_path / "lost.ts", last)
    assert damaged_times(lost, pid).tolist() == [times[9 if last not in begins else 8]]


def test_a_packet_that_its_receiver_marked_as_wrong_is_damage(stream: Path, tmp_path: Path) -> None:
    pid, times = pid_and_times(stream)
    data = [bytearray(packet) for packet in packets(stream)]
    data[starts(stream)[10] + 2][1] |= 0x80
    (tmp_path / "wrong.ts").write_bytes(b"".join(data))
    assert damaged_times(tmp_path / "wrong.ts", pid).tolist() == [times[10]]


def test_damage_between_two_looks_at_the_file_is_seen(
    stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, times = pid_and_times(stream)
    lost = without(stream, tmp_path / "lost.ts", starts(stream)[10] + 1)
    for rows in (1, 2, 3, 7):
        monkeypatch.setattr(transport, "_ROWS", rows)
        assert damaged_times(lost, pid).tolist() == [times[10]]
        assert damaged_times(stream, pid).tolist() == []


def test_streams_joined_on_one_clock_have_no_damage(stream: Path, tmp_path: Path) -> None:
    pid, _ = pid_and_times(stream)
    more = write_video(tmp_path / "more.ts", frames=40, gop=10, pts=range(40, 80), time_base=Fraction(1, 25))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(stream.read_bytes() + more.read_bytes())
    assert damaged_times(joined, pid).tolist() == []


def test_packets_with_a_clock_of_their_own_are_read_too(stream: Path, tmp_path: Path) -> None:
    """Blu-ray and AVCHD put four bytes of time before each packet."""
    pid, times = pid_and_times(stream)
    kept = [packet for at, packet in enumerate(packets(stream)) if at != starts(stream)[10] + 1]
    path = tmp_path / "a.m2ts"
    path.write_bytes(b"".join(np.uint32(number).tobytes() + packet for number, packet in enumerate(kept)))
    assert damaged_times(path, pid).tolist() == [times[10]]


def test_what_is_no_transport_stream_has_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (b"", b"\x47", b"\x47" + bytes(5000), b"words " * 1000):
        path.write_bytes(data or b"\0")
        assert damaged_times(path, 256).tolist() == []
