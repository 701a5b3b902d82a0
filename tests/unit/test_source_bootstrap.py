"""Intervals over resampled sources, against all samples there are and against simulated truth."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ran_model.source_bootstrap import mean_intervals


def test_interval_is_that_of_all_samples_there_are() -> None:
    sums, faces = np.array([1.0, 9.0, 2.0, 40.0, 3.0]), np.array([4, 10, 9, 50, 3])
    means = np.sort([sums[list(drawn)].sum() / faces[list(drawn)].sum() for drawn in product(range(5), repeat=5)])
    low, high = mean_intervals(sums[:, None], faces, samples=40_000, confidence=0.8)[:, 0]
    assert (means < low - 1e-9).mean() - 0.01 < 0.1 < (means < low + 1e-9).mean() + 0.01
    assert (means > high + 1e-9).mean() - 0.01 < 0.1 < (means > high - 1e-9).mean() + 0.01
    assert means[0] < low < sums.sum() / faces.sum() < high < means[-1]


def test_interval_covers_the_truth_where_faces_of_a_source_are_alike() -> None:
    """60 sources of 1 to 40 equal faces: over resampled faces the interval would cover far less than it says."""
    random, covered, covered_by_faces = np.random.default_rng(3), 0, 0
    for seed in range(300):
        faces = random.integers(1, 41, size=60)
        is_same = random.random(60) < 0.7
        low, high = mean_intervals((is_same * faces)[:, None].astype(float), faces, samples=400, seed=seed)[:, 0]
        covered += low <= 0.7 <= high
        share = (is_same * faces).sum() / faces.sum()
        covered_by_faces += abs(share - 0.7) < 1.96 * np.sqrt(share * (1 - share) / faces.sum())
    assert 0.88 < covered / 300 < 0.98
    assert covered_by_faces / 300 < 0.5


def test_columns_share_their_samples_and_constants_have_no_width() -> None:
    faces = np.array([3, 8, 5])
    sums = np.stack([faces * 1.0, faces * [0.1, 0.5, 0.2], faces * [0.2, 1.0, 0.4]], axis=1)
    low, high = mean_intervals(sums, faces, samples=500)
    assert low[0] == high[0] == 1
    np.testing.assert_allclose([low[2], high[2]], [2 * low[1], 2 * high[1]])


def test_one_source_has_no_interval() -> None:
    assert np.isnan(mean_intervals(np.ones((1, 2)), np.array([50]))).all()


@pytest.mark.parametrize("faces", [[3, 0], [3], [[1], [2]]])
def test_numbers_of_faces_that_do_not_fit_are_refused(faces: list[int]) -> None:
    with pytest.raises(ValueError, match="2 numbers of at least 1"):
        mean_intervals(np.ones((2, 1)), np.array(faces))
    with pytest.raises(ValueError, match="confidence is 1"):
        mean_intervals(np.ones((2, 1)), np.array([1, 1]), confidence=1)
