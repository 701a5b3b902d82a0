"""Small charts as SVG inside a page: no script, no style sheet, no reference; their words are for screen readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

ACCENT, GREY, GROOVE = "#ec600c", "#c5cad1", "#e2e5ea"
ROW_PX = 18
BAR_PX, INTERVAL_PX = 220, 260
SHARES_PX = (1000, 100)  # units that shares over time are drawn in, whatever their size on the page


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A piece of a time axis. start, end: where it lies, fractions of the axis. height: of the stack, 0 to 1. shares:
    what the stack is made of, from its foot upwards, of sum 1."""

    start: float
    end: float
    height: float
    shares: Sequence[float]


def bar(share: float, *, colour: str = ACCENT, width: int = BAR_PX) -> str:
    """A share from 0 to 1 in its groove."""
    parts = [_rectangle(0, 4, width, ROW_PX - 8, GROOVE)]
    if share > 0:
        parts.append(_rectangle(0, 4, max(1.0, share * width), ROW_PX - 8, colour))
    return _svg(width, ROW_PX, f"{share:.1%}", parts)


def histogram(
    shares: Sequence[float], colours: Sequence[str], label: str, *, width: int = 480, height: int = 110
) -> str:
    """Columns side by side; the highest has the full height."""
    most, column = max(shares, default=0.0) or 1.0, width / max(1, len(shares))
    parts = [_rectangle(0, height - 1, width, 1, GREY)]
    for index, (share, colour) in enumerate(zip(shares, colours, strict=True)):
        tall = max(1.0, share / most * (height - 4)) if share else 0.0
        if tall:
            parts.append(_rectangle(index * column + 1, height - tall, column - 2, tall, colour))
    return _svg(width, height, label, parts)


def interval_mark(value: float, low: float | None, high: float | None, most: float) -> str:
    """A value and its interval on a strip from −most to +most."""

    def x(at: float) -> str:
        return f"{INTERVAL_PX / 2 + at / most * (INTERVAL_PX / 2 - 6):.1f}"

    low, high = value if low is None else low, value if high is None else high
    middle = ROW_PX / 2
    parts = [
        f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="{ROW_PX}" stroke="{GREY}"/>',
        f'<line x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}" stroke="{ACCENT}" stroke-width="3"/>',
        f'<circle cx="{x(value)}" cy="{middle}" r="4" fill="{ACCENT}"/>',
    ]
    return _svg(INTERVAL_PX, ROW_PX, f"{value:+.3f}", parts)


def shares_over_time(slices: Sequence[Slice], colours: Sequence[str], label: str) -> str:
    """Stacked steps, as wide as the page lets them be: one path per colour, so that a thousand slices stay small."""
    width, height = SHARES_PX
    grounds: list[str] = []
    paths = ["" for _ in colours]
    for each in slices:
        left, right = round(each.start * width), round(each.end * width)
        if right <= left:
            continue
        grounds.append(f"M{left} 0H{right}V{height}H{left}z")
        total = 0.0
        for index, share in enumerate(each.shares):
            foot = round(height - height * each.height * total)
            total += share
            top = round(height - height * each.height * min(1.0, total))
            if top < foot:
                paths[index] += f"M{left} {top}H{right}V{foot}H{left}z"
    parts = [f'<path d="{"".join(grounds)}" fill="{GROOVE}"/>'] if grounds else []
    parts += [f'<path d="{path}" fill="{colour}"/>' for path, colour in zip(paths, colours, strict=True) if path]
    return (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" class="wide" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _svg(width: int, height: int, label: str, parts: Iterable[str]) -> str:
    return f'<svg width="{width}" height="{height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
