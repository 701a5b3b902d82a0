"""The boxes of a QuickTime or MP4 file (ISO/IEC 14496-12, 4.2): found and replaced by path, sizes kept right."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence


def box(kind: bytes, payload: bytes) -> bytes:
    """One box."""
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def edited(data: bytes, path: Sequence[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """The file with the payload of the first box at `path` changed. Keep offsets right: `moov` must come last."""
    out, at, done = bytearray(), 0, False
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        length = length or len(data) - at
        payload = data[at + 8 : at + length]
        if kind == path[0] and not done:
            payload = change(payload) if len(path) == 1 else edited(payload, path[1:], change)
            done = True
        out += box(kind, payload)
        at += length
    assert done, f"no box {path!r}"
    return bytes(out)
