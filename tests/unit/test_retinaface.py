"""RetinaFace's anchors, decoding and suppression against loops written from the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.retinaface import anchors, decode, decode_boxes, decode_landmarks, suppress


@pytest.mark.parametrize(("height", "width"), [(64, 64), (360, 640), (33, 70), (7, 5)])
def test_anchors_lie_in_the_middle_of_their_cells(height: int, width: int) -> None:
    expected = [
        ((column + 0.5) * stride, (row + 0.5) * stride, size)
        for stride, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
        for row in range(math.ceil(height / stride))
        for column in range(math.ceil(width / stride))
        for size in sizes
    ]
    np.testing.assert_allclose(anchors(height, width), np.array(expected, dtype=np.float32))


def test_decoding_follows_the_formula() -> None:
    random = np.random.default_rng(0)
    table = anchors(64, 96)
    offsets = random.normal(size=(len(table), 4)).astype(np.float32)
    points = random.normal(size=(len(table), 10)).astype(np.float32)
    boxes, landmarks = decode_boxes(offsets, table), decode_landmarks(points, table)
    for index in (0, 17, len(table) - 1):
        x, y, side = table[index].tolist()
        dx, dy, dw, dh = offsets[index].tolist()
        cx, cy = x + dx * 0.1 * side, y + dy * 0.1 * side
        width, height = side * math.exp(0.2 * dw), side * math.exp(0.2 * dh)
        corners = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
        np.testing.assert_allclose(boxes[index], corners, rtol=1e-4, atol=1e-3)
        nose = [x + points[index, 4] * 0.1 * side, y + points[index, 5] * 0.1 * side]
        np.testing.assert_allclose(landmarks[index, 2], nose, rtol=1e-4, atol=1e-3)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def test_suppression_keeps_the_best_of_each_cluster() -> None:
    random = np.random.default_rng(1)
    low = random.uniform(0, 60, size=(80, 2))
    corners = np.concatenate([low, low + random.uniform(10, 40, size=(80, 2))], axis=1).astype(np.float32)
    scores = random.permutation(80).astype(np.float32) / 80
    expected: list[int] = []
    for index in sorted(range(80), key=lambda i: -scores[i]):
        if all(_overlap(corners[index], corners[kept]) <= 0.4 for kept in expected):
            expected.append(index)
    assert suppress(corners, scores, 0.4).tolist() == expected
    assert 1 < len(expected) < 80


def test_a_picture_without_a_likely_face_gives_empty_arrays() -> None:
    table = anchors(32, 32)
    zeros = np.zeros((len(table), 10), dtype=np.float32)
    corners, scores, landmarks = decode(zeros[:, :4], zeros[:, 0], zeros, table, min_score=0.5)
    assert (corners.shape, scores.shape, landmarks.shape) == ((0, 4), (0,), (0, 5, 2))
