"""Intervals for shares and means over faces that come in groups: whole sources are resampled, never single faces.

Neighbouring frames of a video show nearly the same face, so a thousand faces of one video say less than a thousand
faces of a thousand videos. An interval over resampled faces would be far too narrow; sources are what is independent.
G sources, C columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLES = 10_000
CONFIDENCE = 0.95
FEWEST_SOURCES = 2
#: With fewer sources than this, percentile intervals are known to be too narrow.
TRUSTED_SOURCES = 20
_CHUNK = 256  # bootstrap samples at a time, so that memory is _CHUNK x G numbers


def mean_intervals(
    sums_GC: NDArray[np.float64],
    faces_G: NDArray[np.int64],
    *,
    samples: int = SAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Low and high, float64 (2, C), of each column's mean over all faces; NaN with fewer than two sources.

    sums_GC: each source's sum over its faces. faces_G: how many faces it has, at least one. Sources are drawn with
    replacement, all faces of a source or none; a sample's mean is its sum over its number of faces. Percentile
    intervals. Source: the pairs cluster bootstrap of Cameron, Gelbach and Miller, "Bootstrap-based improvements for
    inference with clustered errors", Review of Economics and Statistics 2008, which also shows that intervals are too
    narrow with few clusters. Raises ValueError for shapes that don't fit, a source without faces, or a confidence
    that is not between 0 and 1.
    """
    sources, columns = sums_GC.shape
    if faces_G.shape != (sources,) or (faces_G < 1).any():
        raise ValueError(f"faces must be {sources} numbers of at least 1, one per source")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: it must be between 0 and 1")
    if sources < FEWEST_SOURCES:
        return np.full((2, columns), np.nan)
    random = np.random.default_rng(seed)
    means_SC = np.empty((samples, columns))
    for start in range(0, samples, _CHUNK):
        count = min(_CHUNK, samples - start)
        draws_SG = random.integers(sources, size=(count, sources)) + sources * np.arange(count)[:, None]
        drawn_SG = np.bincount(draws_SG.ravel(), minlength=count * sources).reshape(count, sources).astype(np.float64)
        means_SC[start : start + count] = (drawn_SG @ sums_GC) / (drawn_SG @ faces_G)[:, None]
    tail = (1 - confidence) / 2
    low_high: NDArray[np.float64] = np.quantile(means_SC, (tail, 1 - tail), axis=0)
    return low_high
