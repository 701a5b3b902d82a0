"""Progress on stderr: a bar with rate and ETA on a terminal, a plain line every so often in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from pipeline.summary import Summary
from pipeline.terminal import printable

LINE_INTERVAL_S = 15.0


class ProgressReporter:
    """Context manager. `phase` names what is going on; `update` is called with the running summary.

    notes: all that `note` was told, shown or not.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.notes: list[str] = []
        self._quiet = quiet
        self._bar: Progress | None = None
        self._last_line = float("-inf")
        self._last_text = ""

    def __enter__(self) -> ProgressReporter:
        if self._stream.isatty() and not self._quiet:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
                transient=False,
            )
            self._task = self._bar.add_task("starting", total=None, detail="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def phase(self, text: str) -> None:
        """Says what happens now: listing, probing, starting actors."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        else:
            self._print(text)

    def note(self, text: str) -> None:
        """A line that stays, above the bar; in the summary too."""
        self.notes.append(text)
        if self._bar is not None:
            self._bar.console.print(printable(text), highlight=False, markup=False)  # causes may hold brackets
        elif not self._quiet:
            self._print(text)

    def update(self, summary: Summary, *, final: bool = False) -> None:
        """Segments done of planned, frames, faces, faces per second, and on a terminal the time that is left."""
        if self._quiet:
            return
        seconds = summary.processing_s
        rate = summary.faces / seconds if seconds > 1 else 0.0
        failed = f", {summary.segments_failed} failed" if summary.segments_failed else ""
        detail = f"{summary.sampled_frames} frames, {summary.faces} faces, {rate:.1f} faces/s{failed}"
        if self._bar is not None:
            self._bar.update(
                self._task,
                description="segments",
                completed=summary.segments_done,
                total=summary.segments_planned,
                detail=detail,
            )
            return
        text = f"{summary.segments_done}/{summary.segments_planned} segments, {detail}{_eta(summary, seconds)}"
        now = time.monotonic()
        if text != self._last_text and (final or now - self._last_line >= LINE_INTERVAL_S):
            self._last_line, self._last_text = now, text
            self._print(text)

    def _print(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {printable(text)}", file=self._stream, flush=True)


def _eta(summary: Summary, seconds: float) -> str:
    left = summary.segments_planned - summary.segments_done
    if not summary.segments_done or left <= 0:
        return ""
    return f", about {left * seconds / summary.segments_done:.0f} s left"
