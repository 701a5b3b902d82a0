"""Attention over time: a row of colour per region, under one time axis, so that a cover is seen to come and go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from jobs.drawing import FAINT, INK, MUTED, PAPER, region_label, text, weight_colour
from jobs.source_frames import SampledFrame, SourceFrames

LEFT, ROW_PX, TITLE_PX, AXIS_PX = 112, 18, 28, 30
TICK_PX = 90  # ticks are at least this far apart
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


def timeline(source: SourceFrames, width: int, *, moments: Sequence[SampledFrame] = ()) -> Image.Image:
    """The strip of a video: one column per sampled frame, hatched where no face was found. `moments` are marked.

    With several faces in a frame, it is the face of the highest score.
    """
    times = _times(source)
    height = TITLE_PX + len(source.regions) * ROW_PX + AXIS_PX
    strip = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(strip)
    which = " (face 1 of each frame)" if any(len(frame.faces) > 1 for frame in source.frames) else ""
    text(draw, (0, 0), f"what each region counted, over time{which}", 15)
    if not all(frame.faces for frame in source.frames):
        text(draw, (width - 1, 2), "hatched: no face found", 13, MUTED, anchor="ra")
    bottom = TITLE_PX + len(source.regions) * ROW_PX
    for start in range(LEFT, width + bottom, 9):  # hatched where nothing else is drawn
        draw.line((start, TITLE_PX, start - (bottom - TITLE_PX), bottom), fill=FAINT, width=1)
    draw.rectangle((0, TITLE_PX, LEFT - 1, bottom), fill=PAPER)
    for row, name in enumerate(source.regions):
        y = TITLE_PX + row * ROW_PX
        text(draw, (0, y + ROW_PX / 2), region_label(name), 13, MUTED, anchor="lm")
    edges = np.append(times, times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 1.0))
    for index, frame in enumerate(source.frames):
        if not frame.faces:
            continue
        x0, x1 = (x_of(source, float(edge), width) for edge in edges[index : index + 2])
        draw.rectangle((x0, TITLE_PX, max(x0, x1 - 1), bottom), fill=PAPER)
        for row, weight in enumerate(source.attention(frame.faces[0])):
            y = TITLE_PX + row * ROW_PX
            draw.rectangle((x0, y, max(x0, x1 - 1), y + ROW_PX - 2), fill=weight_colour(float(weight)))
    _axis(draw, source, width, bottom)
    for moment in moments:
        x = x_of(source, moment.timestamp or 0.0, width)
        draw.polygon([(x - 5, TITLE_PX - 8), (x + 5, TITLE_PX - 8), (x, TITLE_PX - 1)], fill=INK)
    return strip


def x_of(source: SourceFrames, timestamp: float, width: int) -> float:
    """Where a moment lies on a strip of this width."""
    times = _times(source)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    return LEFT + (timestamp - times[0]) / (times[-1] - times[0] + step) * (width - 1 - LEFT)


def _times(source: SourceFrames) -> list[float]:
    return [frame.timestamp or 0.0 for frame in source.frames]


def _axis(draw: ImageDraw.ImageDraw, source: SourceFrames, width: int, y: int) -> None:
    times = _times(source)
    duration = times[-1] - times[0]
    most = (width - LEFT) / TICK_PX
    step = next((step for step in STEPS_S if duration / step <= most), STEPS_S[-1])
    for index in range(int(duration / step) + 1):
        x = x_of(source, times[0] + index * step, width)
        draw.line((x, y, x, y + 4), fill=FAINT, width=1)
        text(draw, (x, y + 8), _clock(times[0] + index * step, step), 13, MUTED, anchor="la" if index == 0 else "ma")


def _clock(seconds: float, step: float) -> str:
    if step < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes or step >= 60 else f"{rest} s"
