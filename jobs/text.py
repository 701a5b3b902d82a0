"""Text for terminals and logs: plain tables, shares, byte counts, durations."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pipeline.terminal import printable


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns padded to their widest cell; numbers to the right."""
    header = [printable(name) for name in header]  # a query may make columns of values (PIVOT)
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(len(header[i]), *(len(row[i]) for row in cells)) if cells else len(header[i]) for i in range(len(header))
    ]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float | Decimal) for row in rows) for i in range(len(header))
    ]
    lines = ["  ".join(name.ljust(width) for name, width in zip(header, widths, strict=True)).rstrip()]
    lines.append("  ".join("─" * width for width in widths))
    for row in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.3f}".rstrip("0").rstrip(".")
    return printable(str(value))


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def points(share: float | None) -> str:
    """A share of 1 as points of a hundred: 0.1234 as 12.3, and a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}"


def human_bytes(count: float) -> str:
    """1536 as 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """75.2 as 1 min 15 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(member: str | None, timestamp: float | None) -> str:
    """Which picture or moment of a source, such as clip.mp4, 12.40 s; nothing for a picture of its own."""
    parts = [member] if member else []
    return ", ".join(parts if timestamp is None else [*parts, f"{timestamp:.2f} s"])
