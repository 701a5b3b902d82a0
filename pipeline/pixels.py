"""Faces' pixels as a column of a block, in and out without a copy: a segment's N faces, all of one shape, in a row.

Aligned faces (`pixels`) are S·S·3 bytes of RGB each, their regions (`crops`) R·C·I·I.
"""

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


def column_of(faces: NDArray[np.uint8], counts: Sequence[int]) -> pa.Array:
    """large_binary of faces (N, …), so many of each segment. Nothing is copied."""
    offsets = np.cumsum([0, *counts], dtype=np.int64) * (faces[0].size if len(faces) else 0)
    return pa.Array.from_buffers(pa.large_binary(), len(counts), [None, pa.py_buffer(offsets), pa.py_buffer(faces)])


def face_pictures(column: pa.ChunkedArray, size: int) -> list[NDArray[np.uint8]]:
    """All aligned faces of the column in order, in parts (n, S, S, 3)."""
    return arrays_of(column, (size, size, 3))


def arrays_of(column: pa.ChunkedArray, shape: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """What a column has of all faces in order, in parts (n, *shape). An Arrow scalar would be a copy of its segment."""
    parts = []
    for chunk in column.chunks:
        if not len(chunk):
            continue  # it may have no buffers
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        if ends[-1] > ends[0]:
            parts.append(np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(-1, *shape))
    return parts


def rows_of(parts: Sequence[NDArray[np.uint8]], begin: int, end: int) -> NDArray[np.uint8]:
    """Faces begin…end of the concatenation of `parts`, copying only those."""
    taken: list[NDArray[np.uint8]] = []
    offset = 0
    for part in parts:
        low, high = max(begin - offset, 0), min(end - offset, len(part))
        if low < high:
            taken.append(part[low:high])
        offset += len(part)
    return np.concatenate(taken)
