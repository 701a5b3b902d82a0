"""Which frames are kept: a grid in presentation time, in whole numbers, so that 0.2 s at 5 fps is point 1, never 2.

A frame shown t seconds after the first one belongs to grid point ceil(t * rate); the first frame of each point is kept.
Containers round times to ticks of their clock: at 30 frames per second a Matroska file says 33, 67 and 100 ms. So a
point is rounded up to a whole tick, else 67 ms would be past 1/15 s and take the place of the next frame.
Window k holds the points [k * S, (k + 1) * S), so windows share no point and their union is everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, kw_only=True)
class Grid:
    """rate: grid points per second; time_base: seconds per tick of the container's clock. Both exact.

    exact: points lie between ticks where they fall, as in datasets whose extraction has `grid_version` 1.
    """

    rate: Fraction
    time_base: Fraction
    exact: bool = False

    def point(self, ticks: int) -> int:
        """The grid point of a frame that is shown `ticks` after the first frame."""
        step = self.rate * self.time_base
        if self.exact:
            return -(-ticks * step.numerator // step.denominator)
        return (ticks - 1) * step.numerator // step.denominator + 1 if ticks > 0 else 0

    def first_tick(self, point: int) -> int:
        """The earliest time, in ticks after the first frame, that belongs to `point` or a later one."""
        if point <= 0:
            return 0
        step = self.rate * self.time_base
        before = (point - 1) * step.denominator
        return (before // step.numerator if self.exact else -(-before // step.numerator)) + 1

    def window_ticks(self, window: int, segment_frames: int) -> tuple[int, int]:
        """[start, end) of a window, in ticks after the first frame."""
        return self.first_tick(window * segment_frames), self.first_tick((window + 1) * segment_frames)

    def window_of(self, ticks: int, segment_frames: int) -> int:
        """The window that holds a frame shown `ticks` after the first one."""
        return self.point(ticks) // segment_frames


def sample(ticks: Iterable[int], grid: Grid) -> Iterator[int]:
    """Positions of the kept frames among ascending `ticks`: the first frame of each grid point."""
    last = None
    for position, tick in enumerate(ticks):
        point = grid.point(tick)
        if point != last:
            last = point
            yield position


def windows_for_duration(duration_s: float, rate: Fraction, segment_frames: int) -> int:
    """How many windows a video of this length needs at least one; a last window that is empty costs little."""
    last_point = -(-Fraction(duration_s).limit_denominator(10**9) * rate // 1)
    return max(1, int(last_point) // segment_frames + 1)


def windows_for_frames(frames: int, segment_frames: int) -> int:
    """How many windows of frame indices a video with this many frames has, at least one."""
    return max(1, -(-frames // segment_frames))
