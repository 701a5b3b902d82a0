"""Windows of a video that have no row of their own, because a window before them has the error row of a break.

Whoever reads such a window finds that the one before it can't be read either, and does not know what became of that
one: another node, with a better copy of the file or a decoder that this one lacks, may have read it well. So a window
without a row waits until the one before it has an error row, or waits no more. What still waits when everything else is
read, is read again; so is one that was not committed, since another driver has a good row of the one before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.segments import PLAN, segment_id


class CoveredWindows:
    """Those of one run. told: windows with an error row, or covered, that were committed before and are not read by it.

    Memory: a manifest row for each window that waits or is not committed yet, an id for each failed one that no covered
    one follows.
    """

    def __init__(self, extraction_id: str, told: Iterable[str] = ()) -> None:
        self._extraction_id = extraction_id
        self._told = set(told)
        self._waiting: dict[str, dict[str, Any]] = {}  # by the window before, a manifest row
        self._uncommitted: dict[str, dict[str, Any]] = {}  # likewise, since the last commit
        self._plan = PLAN.empty_table()  # of those that wait, from passes that have ended

    def settle(self, manifest: pa.Table) -> pa.Table:
        """A unit's manifest without the rows that wait, and with earlier ones that don't any more."""
        covered = manifest["covered"]
        failed = pc.and_not(pc.equal(manifest["status"], "error"), covered)
        starts = manifest.filter(failed)["segment_id"].to_pylist()
        for row in manifest.filter(covered).to_pylist():
            before = self._before(row)
            self._waiting[before] = row | {"files": []}
            if before in self._told:
                starts.append(before)
        released = pa.Table.from_pylist(self._released(starts), manifest.schema)
        return pa.concat_tables([manifest.filter(pc.invert(covered)), released])

    def _released(self, told: Iterable[str]) -> list[dict[str, Any]]:
        """The rows that wait for these, and for one another."""
        rows = []
        for one in told:
            while one in self._waiting:
                self._told.discard(one)
                row = self._uncommitted[one] = self._waiting.pop(one)
                rows.append(row)
                one = row["segment_id"]
            self._told.add(one)
        return rows

    def tellers(self, settled: pa.Table) -> dict[str, str]:
        """Of each row of a settled manifest that is covered: the window before it."""
        return {row["segment_id"]: self._before(row) for row in settled.filter(settled["covered"]).to_pylist()}

    def committed(self, unspoken: Collection[str]) -> int:
        """To be called after each commit, with what `Committer.take_unspoken` gives, which waits again, to be read once
        more. Returns how many they are."""
        again = {before: row for before, row in self._uncommitted.items() if row["segment_id"] in unspoken}
        self._waiting |= again
        self._told.difference_update(unspoken)
        self._uncommitted = {}
        return len(again)

    def _before(self, row: Mapping[str, Any]) -> str:
        return segment_id(row["video_key"], row["window"] - 1, self._extraction_id)

    def remember(self, segments: pa.Table) -> None:
        """To be called with the plan rows of a pass that has ended, so that `untold` has those that wait."""
        ids = pa.array([row["segment_id"] for row in self._waiting.values()], pa.string())
        known = pa.concat_tables([self._plan, segments]) if len(ids) else self._plan
        self._plan = known.filter(pc.is_in(known["segment_id"], ids))

    def untold(self) -> pa.Table:
        """To be called when nothing else is left to read. Plan rows of what waits still, for another pass: the first of
        several in a row will answer for itself, and then somebody tells for the others."""
        waiting = {row["segment_id"]: (before, row) for before, row in self._waiting.items()}
        rows = []
        for row in self._plan.to_pylist():
            before, answer = waiting[row["segment_id"]]
            # windows beyond it are planned already
            rows.append(row | {"follows": before in waiting, "is_last": row["is_last"] and not answer["beyond"]})
        self._waiting, self._plan = {}, PLAN.empty_table()
        return pa.Table.from_pylist(rows, PLAN)
