"""The sampling grid against a brute-force reading of its definition."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.sampling import Grid, sample, windows_for_duration, windows_for_frames

rates = st.one_of(
    st.integers(1, 120).map(Fraction),
    st.sampled_from([Fraction(30000, 1001), Fraction(24000, 1001), Fraction(1, 2), Fraction(1, 60), Fraction("0.9")]),
)
time_bases = st.sampled_from([Fraction(1, n) for n in (1, 24, 25, 600, 1000, 11988, 12800, 30000, 90000)])
grids = st.builds(
    lambda rate, time_base, exact: Grid(rate=rate, time_base=time_base, exact=exact), rates, time_bases, st.booleans()
)
times = st.lists(st.integers(0, 200_000), unique=True, max_size=80).map(sorted)


def test_a_frame_on_a_grid_point_belongs_to_it() -> None:
    grid = Grid(rate=Fraction(5), time_base=Fraction(1, 12800))
    at_25_fps = [grid.point(512 * frame) for frame in range(11)]
    assert at_25_fps == [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert list(sample((512 * frame for frame in range(11)), grid)) == [0, 1, 6]


@given(grids, st.integers(0, 10**12))
def test_a_point_is_the_first_whose_beginning_in_whole_ticks_is_not_before_the_frame(grid: Grid, tick: int) -> None:
    assert grid.point(tick) == (ceil(tick * grid.time_base * grid.rate) if grid.exact else rounded_point(grid, tick))


def rounded_point(grid: Grid, tick: int) -> int:
    """The first point at or after the frame, if points are rounded up to ticks; by looking about."""
    step = grid.rate * grid.time_base
    near = ceil(tick * step)
    beginnings = {point: ceil(point / step) for point in range(max(0, near - ceil(step) - 2), near + 1)}
    return min(point for point, beginning in beginnings.items() if beginning >= tick)


@given(rates, st.integers(0, 10**6), st.sampled_from([1000, 12800, 90000]), st.integers(0, 999))
def test_rounded_times_lose_no_frame_of_a_steady_rate(rate: Fraction, frame: int, clock: int, start: int) -> None:
    """Frame k of a video at this rate is point k, though the container rounds its time, and the first one's too."""
    grid = Grid(rate=rate, time_base=Fraction(1, clock))
    first = Fraction(start, 1000)
    ticks = [floor((first + at / rate) * clock + Fraction(1, 2)) for at in (0, frame)]
    assert grid.point(ticks[1] - ticks[0]) == frame


def test_a_grid_of_exact_times_stays_what_it_was() -> None:
    times_ms = [0, 33, 67, 100, 133, 167, 200]  # 30 frames per second in Matroska
    exact = Grid(rate=Fraction(30), time_base=Fraction(1, 1000), exact=True)
    assert [exact.point(tick) for tick in times_ms] == [0, 1, 3, 3, 4, 6, 6]
    assert [Grid(rate=Fraction(30), time_base=Fraction(1, 1000)).point(tick) for tick in times_ms] == list(range(7))


@given(grids, st.integers(0, 10**7))
def test_the_first_tick_of_a_point_is_the_earliest_that_reaches_it(grid: Grid, point: int) -> None:
    tick = grid.first_tick(point)
    assert tick >= 0
    assert grid.point(tick) >= point
    assert tick == 0 or grid.point(tick - 1) < point


@given(grids, times, st.integers(1, 9))
def test_windows_are_disjoint_and_their_union_is_the_whole_sampling(grid: Grid, ticks: list[int], size: int) -> None:
    whole = [ticks[at] for at in sample(ticks, grid)]
    points = [grid.point(tick) for tick in ticks]
    assert whole == [tick for at, tick in enumerate(ticks) if points[at] not in points[:at]]
    parts = []
    for window in sorted(
        {point // size + near for point in points for near in (-1, 0, 1) if point // size + near >= 0}
    ):
        start, end = grid.window_ticks(window, size)
        inside = [tick for tick in ticks if start <= tick < end]
        parts += [inside[at] for at in sample(inside, grid)]
        assert all(grid.window_of(tick, size) == window for tick in inside)
    assert parts == whole


@given(rates, st.integers(1, 64), st.floats(0, 10_000))
def test_planned_windows_reach_the_end_of_the_duration(rate: Fraction, size: int, duration_s: float) -> None:
    windows = windows_for_duration(duration_s, rate, size)
    assert (windows - 1) * size <= ceil(Fraction(duration_s) * rate) + 1
    assert windows * size > Fraction(duration_s) * rate - 1


def test_windows_of_frames() -> None:
    assert [windows_for_frames(count, 32) for count in (0, 1, 32, 33)] == [1, 1, 1, 2]
