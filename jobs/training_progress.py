"""How far a stage of training is, on stderr: a bar on a terminal, a plain line every so often in a log."""

from __future__ import annotations

import sys
import time
from typing import Protocol

LINE_INTERVAL_S, BAR_INTERVAL_S = 15.0, 0.5
BAR_WIDTH = 30


class Progress(Protocol):
    """To be called after each step, counted from 1, of so many."""

    def __call__(self, step: int, steps: int, loss: float | None = None) -> None: ...


def training_progress(stage: str, unit: str = "step") -> Progress:
    """Of a stage with that name. Its pace is that since the first call: a stage may go on from a checkpoint."""
    first: tuple[int, float] | None = None
    shown = float("-inf")

    def show(step: int, steps: int, loss: float | None = None) -> None:
        nonlocal first, shown
        now = time.monotonic()
        first = first or (step, now)
        is_terminal = sys.stderr.isatty()
        if now - shown < (BAR_INTERVAL_S if is_terminal else LINE_INTERVAL_S) and step < steps:
            return
        shown = now
        filled = BAR_WIDTH * step // steps
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] " if is_terminal else ""
        end = "\n" if step == steps or not is_terminal else "\r"
        told = "" if loss is None else f", loss {loss:.3f}"
        if step > first[0]:
            told += f", about {(now - first[1]) / (step - first[0]) * (steps - step):.0f} s left"
        sys.stderr.write(f"{stage}: {bar}{unit} {step} of {steps}{told}{end}")
        sys.stderr.flush()

    return show
