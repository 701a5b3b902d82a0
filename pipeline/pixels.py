"""Aligned faces as a column of a block, N·S·S·3 bytes of RGB per segment: in and out without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def pixels_column(segments: Sequence[bytes | bytearray]) -> pa.Array:
    """large_binary. Nothing is copied if only one segment has faces, as when a crowd fills a block."""
    offsets = np.cumsum([0, *map(len, segments)], dtype=np.int64)
    filled = [faces for faces in segments if faces]
    data = filled[0] if len(filled) == 1 else b"".join(filled)
    return pa.Array.from_buffers(pa.large_binary(), len(segments), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def face_pictures(column: pa.ChunkedArray, size: int) -> list[NDArray[np.uint8]]:
    """All faces of the column in order, in parts (n, S, S, 3). An Arrow scalar would be a copy of its segment."""
    parts = []
    for chunk in column.chunks:
        if not len(chunk):
            continue  # it may have no buffers
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        if ends[-1] > ends[0]:
            parts.append(np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(-1, size, size, 3))
    return parts
