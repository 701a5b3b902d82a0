"""What to run next when a pass over the plan came back with segments missing.

Ray gives up a whole execution when one unit keeps killing its actor, and doesn't say which. So what is missing runs
again in halves, until the unit at fault is alone. Only a segment that failed alone, twice, becomes an error row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

WAVE_SEGMENTS = 50_000  # of one execution; bounds the driver's and the object store's memory whatever the plan
WAVE_PER_ACTOR = 500  # at least, since each execution starts its actors anew
FAILURES_ALONE = 2
MOST_FRUITLESS = 32  # passes in a row that moved nothing: the cluster may be at fault, not an input


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Plan rows for one execution of the graph, in dispatch units of `unit_rows`; None takes the default units."""

    segments: pa.Table
    unit_rows: int | None = None


class PassQueue:
    """The passes still to run. `first` is the plan; the rest follows from what came to light and what was lost. actors:
    the most that there will be at a time."""

    def __init__(self, first: pa.Table, actors: int = 1) -> None:
        self._wave = max(WAVE_SEGMENTS, WAVE_PER_ACTOR * actors)
        self._waiting: list[Pass] = []
        self.add(first)
        self._failed_alone: Counter[str] = Counter()
        self._fruitless = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def pop(self) -> Pass:
        """The next pass; each row's `attempts` goes up by one."""
        taken = self._waiting.pop()
        index = taken.segments.schema.get_field_index("attempts")
        attempts = pc.cast(pc.add(taken.segments["attempts"], 1), taken.segments.schema.field(index).type)
        segments = taken.segments.set_column(index, taken.segments.schema.field(index), attempts)
        return Pass(segments=segments, unit_rows=taken.unit_rows)

    def add(self, segments: pa.Table, unit_rows: int | None = None) -> None:
        """Rows that are to run next, in waves: the plan, windows beyond a probed duration, or, in units of one, rows
        that a full block handed back."""
        self._waiting += [
            Pass(segments=segments.slice(start, self._wave), unit_rows=unit_rows)
            for start in reversed(range(0, segments.num_rows, self._wave))
        ]

    def lost(self, attempted: Pass, missing: pa.Table) -> pa.Table:
        """Plans the missing rows of a pass that broke. Returns those that are to become error rows."""
        fruitless = missing.num_rows == attempted.segments.num_rows
        self._fruitless = self._fruitless + 1 if fruitless else 0
        if missing.num_rows == 1:
            segment_id = missing["segment_id"][0].as_py()
            self._failed_alone[segment_id] += attempted.segments.num_rows == 1
            if self._failed_alone[segment_id] >= FAILURES_ALONE:
                return missing
            # last in line: by then others have come through, or have not, which says whether the cluster works
            self._waiting.insert(0, Pass(segments=missing, unit_rows=1))
        elif missing.num_rows:
            half = missing.num_rows // 2
            self._waiting += [
                Pass(segments=part, unit_rows=1) for part in (missing.slice(half), missing.slice(0, half))
            ]
        return missing.slice(0, 0)

    def again(self, attempted: Pass, missing: pa.Table) -> None:
        """Plans the missing rows of a pass that broke through no fault of an input, in units as before."""
        fruitless = missing.num_rows == attempted.segments.num_rows
        self._fruitless = self._fruitless + 1 if fruitless else 0
        if missing.num_rows:
            self._waiting.append(Pass(segments=missing, unit_rows=attempted.unit_rows))

    def go_on(self) -> None:
        """To be called when the cluster turned out to work: what fails are inputs."""
        self._fruitless = 0

    @property
    def is_stuck(self) -> bool:
        """So many passes moved nothing that something other than an input may be wrong."""
        return self._fruitless >= MOST_FRUITLESS
