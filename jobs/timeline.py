"""Attention over time: a row of colour per region, under one time axis, so that a cover is seen to come and go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from jobs.drawing import FAINT, INK, MUTED, PAPER, Colour, region_label, text, weight_colour
from jobs.source_frames import SampledFrame, SourceFrames

LEFT, ROW_PX, TITLE_PX, AXIS_PX = 112, 18, 28, 30
TICK_PX = 90  # ticks are at least this far apart
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200)  # then whole days
DAY_S = 86400
LONG_GAP = 3  # times the usual step between frames: in a longer one, nothing was sampled


@dataclass(frozen=True, kw_only=True)
class TimeAxis:
    """The axis of a video's strip, from its first frame on. times: of the sampled frames, seconds; step_s: what usually
    lies between two. width: of the strip, pixels."""

    times: tuple[float, ...]
    step_s: float
    width: int

    @classmethod
    def of(cls, source: SourceFrames, width: int) -> TimeAxis:
        """That of a source with a frame or more."""
        times = tuple(frame.timestamp or 0.0 for frame in source.frames)
        return cls(times=times, step_s=float(np.median(np.diff(times))) if len(times) > 1 else 1.0, width=width)

    @property
    def end_s(self) -> float:
        """A step after the last frame."""
        return self.times[-1] + self.step_s

    def x_of(self, timestamp: float) -> float:
        """Where a moment lies on the strip."""
        return LEFT + timestamp / self.end_s * (self.width - 1 - LEFT)

    def ends(self) -> Iterator[float]:
        """Until when each frame stands for what is seen: the next one, or a step on where that is far off."""
        for time, following in zip(self.times, (*self.times[1:], self.end_s), strict=True):
            yield following if following - time <= LONG_GAP * self.step_s else time + self.step_s

    def ticks(self) -> tuple[float, list[float]]:
        """The step between ticks and their moments, seconds."""
        most = (self.width - LEFT) / TICK_PX
        days = math.ceil(self.end_s / most / DAY_S) * DAY_S
        step = next((step for step in STEPS_S if self.end_s / step <= most), days)
        return step, [index * step for index in range(int(self.times[-1] / step) + 1)]


def timeline(source: SourceFrames, width: int, *, moments: Sequence[SampledFrame] = ()) -> Image.Image:
    """The strip of a video: a column per sampled frame, hatched where no face was found, white where no frame was
    sampled or it could not be read. `moments` are marked.

    With several faces in a frame, it is the face of the highest score.
    """
    axis = TimeAxis.of(source, width)
    bottom = TITLE_PX + len(source.regions) * ROW_PX
    strip = Image.new("RGB", (width, bottom + AXIS_PX), PAPER)
    draw = ImageDraw.Draw(strip)
    _hatch(draw, width, bottom)
    draw.rectangle((0, TITLE_PX, LEFT - 1, bottom), fill=PAPER)
    unseen = _unseen(source, axis)
    for start_s, end_s in unseen:
        _column(draw, axis, (start_s, end_s), (TITLE_PX, bottom), PAPER)
    _draw_faces(draw, source, axis, bottom)
    which = " (face 1 of each frame)" if any(len(frame.faces) > 1 for frame in source.frames) else ""
    text(draw, (0, 0), f"what each region counted, over time{which}", 15)
    notes = ["hatched: no face found"] if any(frame.face_count == 0 for frame in source.frames) else []
    notes += ["white: no frame read"] if unseen else []
    if notes:
        text(draw, (width - 1, 2), ", ".join(notes), 13, MUTED, anchor="ra")
    for row, name in enumerate(source.regions):
        text(draw, (0, TITLE_PX + (row + 0.5) * ROW_PX), region_label(name), 13, MUTED, anchor="lm")
    _ticks(draw, axis, bottom)
    for moment in moments:
        x = axis.x_of(moment.timestamp or 0.0)
        draw.polygon([(x - 5, TITLE_PX - 8), (x + 5, TITLE_PX - 8), (x, TITLE_PX - 1)], fill=INK)
    return strip


def _hatch(draw: ImageDraw.ImageDraw, width: int, bottom: int) -> None:
    for start in range(LEFT, width + bottom, 9):
        draw.line((start, TITLE_PX, start - (bottom - TITLE_PX), bottom), fill=FAINT, width=1)


def _unseen(source: SourceFrames, axis: TimeAxis) -> list[tuple[float, float]]:
    """The spans of time, seconds, of which no frame was read."""
    spans, until_s = [], 0.0
    for frame, time_s, end_s in zip(source.frames, axis.times, axis.ends(), strict=True):
        if frame.face_count is not None:
            spans.append((until_s, time_s))
            until_s = end_s
    return [(start_s, end_s) for start_s, end_s in (*spans, (until_s, axis.end_s)) if end_s > start_s]


def _draw_faces(draw: ImageDraw.ImageDraw, source: SourceFrames, axis: TimeAxis, bottom: int) -> None:
    for frame, time_s, end_s in zip(source.frames, axis.times, axis.ends(), strict=True):
        if not frame.faces:
            continue
        _column(draw, axis, (time_s, end_s), (TITLE_PX, bottom), PAPER)
        for row, weight in enumerate(source.attention(frame.faces[0])):
            y = TITLE_PX + row * ROW_PX
            _column(draw, axis, (time_s, end_s), (y, y + ROW_PX - 2), weight_colour(float(weight)))


def _column(
    draw: ImageDraw.ImageDraw, axis: TimeAxis, span_s: tuple[float, float], rows: tuple[int, int], colour: Colour
) -> None:
    x0, x1 = map(axis.x_of, span_s)
    draw.rectangle((x0, rows[0], max(x0, x1 - 1), rows[1]), fill=colour)


def _ticks(draw: ImageDraw.ImageDraw, axis: TimeAxis, y: int) -> None:
    step, moments = axis.ticks()
    for moment in moments:
        x = axis.x_of(moment)
        draw.line((x, y, x, y + 4), fill=FAINT, width=1)
        text(draw, (x, y + 8), _clock(moment, step), 13, MUTED, anchor="ma" if moment else "la")


def _clock(seconds: float, step: float) -> str:
    if step < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes or step >= 60 else f"{rest} s"
