"""What a run did: counts, rates per stage, and which stage was the bottleneck."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.resources import Resources


@dataclass(kw_only=True)
class Summary:
    """Tallied from manifest rows while the run goes on; written to runs/<run_id>/summary.json at the end.

    segments_left: what `--limit` left for later runs, as far as was known.
    skipped_files: in folders, no media by their names. unmatched_inputs: patterns and folders that gave no source.
    models: how many the dataset has rows of. notes: what was told beside the progress, such as rows that were replaced.
    Times are in seconds; fetch_s … infer_s are summed over actors. failed_sources counts live errors of this run's
    sources, from this run or an earlier one.
    """

    run_id: str = ""
    model_id: str = ""
    output: str = ""
    status: str = "running"
    sources: int = 0
    skipped_files: int = 0
    unmatched_inputs: list[str] = field(default_factory=list)
    sources_probed: int = 0
    segments_planned: int = 0
    segments_already_done: int = 0
    segments_left: int = 0
    segments_done: int = 0
    segments_failed: int = 0
    sampled_frames: int = 0
    faces: int = 0
    failed_sources: int = 0
    models: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    passes: int = 0
    startup_s: float = 0.0
    elapsed_s: float = 0.0
    fetch_s: float = 0.0
    decode_s: float = 0.0
    detect_s: float = 0.0
    infer_s: float = 0.0
    resources: Resources | None = None
    _began_at: float = field(default_factory=time.time)
    _started_at: float | None = None
    _ended_at: float | None = None

    @property
    def processing_s(self) -> float:
        """Seconds from the first segment that was taken up until now, or until the end; start-up is not in it."""
        if self._started_at is None:
            return 0.0
        return (self._ended_at or time.time()) - self._started_at

    def add(self, manifest: pa.Table) -> None:
        """Counts the rows of one manifest; deferred rows are not done."""
        done = manifest.filter(pc.invert(manifest["deferred"]))
        self.segments_done += done.num_rows
        self.sampled_frames += pc.sum(done["sampled_frames"]).as_py() or 0
        self.faces += pc.sum(done["faces_kept"]).as_py() or 0
        for stage in ("fetch_s", "decode_s", "detect_s", "infer_s"):
            setattr(self, stage, getattr(self, stage) + (pc.sum(done[stage]).as_py() or 0.0))
        codes = [code for code in done["error_code"].to_pylist() if code is not None]
        self.failures.update(codes)
        self.segments_failed += len(codes)
        started = self._by_our_clock(manifest)
        if started is not None and (self._started_at is None or started < self._started_at):
            self._started_at = started
            self.startup_s = started - self._began_at

    def _by_our_clock(self, manifest: pa.Table) -> float | None:
        """When the unit was taken up: as the node says, unless its clock differs so much that this can't be; then as
        long ago as its work took."""
        started: float | None = pc.min(manifest["started_at"]).as_py()
        if started is None:
            return None
        busy_s = sum(pc.sum(manifest[stage]).as_py() or 0.0 for stage in ("fetch_s", "decode_s", "detect_s", "infer_s"))
        latest = time.time() - busy_s
        return started if self._began_at <= started <= latest else max(self._began_at, latest)

    def finish(self, status: str) -> None:
        """Stops the clocks."""
        self.status = status
        self._ended_at = self._ended_at or time.time()
        self.elapsed_s = time.time() - self._began_at

    def processing_ended(self) -> None:
        """The last row is committed; what follows (leaving Ray) is no longer processing."""
        self._ended_at = time.time()

    def stages(self) -> dict[str, dict[str, float | None]]:
        """Per stage: items, busy seconds, items per second and actor, and the share of its actors' time it was busy.

        A stage that took no time, such as fetching local files, has no items per second. The share is None for a pool
        that may have grown: how many actors it had at which time is not known.
        """
        decode, ran = (self.resources.decode_pool, self.resources.ran_pool) if self.resources else ((1, 1), (1, 1))
        wall = max(self.processing_s, 1e-9)
        rows = {
            "fetch": (self.segments_done, self.fetch_s, decode),
            "decode": (self.sampled_frames, self.decode_s, decode),
            "detect": (self.sampled_frames, self.detect_s, decode),
            "infer": (self.faces, self.infer_s, ran),
        }
        return {
            name: {
                "items": items,
                "busy_s": round(busy, 3),
                "items_per_s": round(items / busy, 2) if busy > 0 else None,
                "busy_share": round(min(1.0, busy / (wall * fewest)), 3) if fewest == most else None,
            }
            for name, (items, busy, (fewest, most)) in rows.items()
        }

    def bottleneck(self) -> str | None:
        """The stage whose actors were busiest: more of those actors, or of their device, would help first. None if a
        pool may have grown, or nothing took time."""
        shares = {name: stage["busy_share"] for name, stage in self.stages().items()}
        known = {name: share for name, share in shares.items() if share is not None}
        if len(known) < len(shares) or not any(known.values()):
            return None
        if known["infer"] >= known["fetch"] + known["decode"] + known["detect"]:
            return "infer"
        return max(("fetch", "decode", "detect"), key=lambda name: known[name])

    def to_json(self) -> dict[str, Any]:
        """For summary.json and `--json`."""
        values = {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name not in ("failures", "resources")
        }
        values["failures"] = dict(self.failures)
        values["stages"] = self.stages()
        values["bottleneck"] = self.bottleneck() if self.segments_done else None
        values["faces_per_s"] = round(self.faces / self.processing_s, 3) if self.processing_s else 0.0
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
