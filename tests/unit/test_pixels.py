"""Aligned faces go into a column and come out the same, without a copy where a crowd would pay for it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.pixels import face_pictures, pixels_column

SIZE = 4


def segment(first: int, count: int) -> bytes:
    """Faces that hold their own number."""
    return np.repeat(np.arange(first, first + count, dtype=np.uint8), SIZE * SIZE * 3).tobytes()


def numbers(column: pa.ChunkedArray) -> list[int]:
    return [int(face[0, 0, 0]) for part in face_pictures(column, SIZE) for face in part]


def test_faces_come_out_in_order_from_chunks_and_slices() -> None:
    column = pixels_column([segment(0, 2), b"", segment(2, 3), bytearray(segment(5, 1)), b""])
    assert column.to_pylist() == [segment(0, 2), b"", segment(2, 3), segment(5, 1), b""]
    chunked = pa.chunked_array([column.slice(0, 2), column.slice(2, 0), column.slice(2)])
    assert numbers(chunked) == [0, 1, 2, 3, 4, 5]
    assert numbers(chunked.slice(2, 1)) == [2, 3, 4]
    assert numbers(chunked.slice(1, 1)) == []


def test_nothing_comes_out_of_nothing() -> None:
    assert face_pictures(pa.chunked_array([], pa.large_binary()), SIZE) == []
    assert face_pictures(pa.chunked_array([pixels_column([]), pixels_column([b"", b""])]), SIZE) == []
    assert face_pictures(pa.chunked_array([pa.array([b""], pa.large_binary())]), SIZE) == []


def test_a_crowd_is_not_copied() -> None:
    faces = bytearray(segment(0, 9))
    (part,) = face_pictures(pa.chunked_array([pixels_column([b"", faces])]), SIZE)
    faces[0] = 200
    assert part[0, 0, 0, 0] == 200
