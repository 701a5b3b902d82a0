"""The plan: one row per segment, the unit of work, of recovery and of memory.

A segment's id depends on its source, its window and the extraction; never on listing order, grouping or how long a
probe thought the video was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media.sampling import windows_for_duration, windows_for_frames

#: One picture in an archive. ordinal: its place among all entries; offset: of its data (tar) or its header (zip).
MEMBER = pa.struct(
    [
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)

PLAN = pa.schema(
    [
        pa.field("segment_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("location", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("is_last", pa.bool_(), nullable=False),
        pa.field("members", pa.list_(MEMBER)),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("attempts", pa.int16(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One picture in an archive, found through the index."""

    ordinal: int
    name: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One row of PLAN.

    window: k of the sampling grid, or of runs of members; 0 for a picture. is_last: the last planned window of a
    video, which says whether the video goes on. error_code, error_message: why the source can't be read at all.
    """

    segment_id: str
    source_id: str
    source_uri: str
    location: str
    fingerprint: str
    kind: str
    size_bytes: int
    window: int = 0
    is_last: bool = True
    members: tuple[Member, ...] | None = None
    error_code: str | None = None
    error_message: str | None = None
    attempts: int = 0

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Segment:
        """A row of PLAN as `to_pylist` gives it."""
        members = row["members"]
        return cls(**{**row, "members": None if members is None else tuple(Member(**member) for member in members)})

    def to_row(self) -> dict[str, Any]:
        """The row of PLAN."""
        members = None if self.members is None else [vars(member) for member in self.members]
        return {**vars(self), "members": members}

    @property
    def error(self) -> MediaError | None:
        """Why the probe failed, if it did."""
        return MediaError(ErrorCode(self.error_code), self.error_message or "") if self.error_code else None


def segment_id(source_id: str, window: int, extraction_id: str) -> str:
    """20 hex over source, window and extraction."""
    return hashlib.sha256(f"{source_id}/{window}/{extraction_id}".encode()).hexdigest()[:20]


def window_count(source: Mapping[str, Any], extraction: Extraction) -> int:
    """How many windows a row of SOURCES has, as far as the probe knows; at least one."""
    if source["error_code"] is not None:
        return 1
    if source["kind"] == "archive":
        return windows_for_frames(len(source["index"] or ()), extraction.segment_frames)
    if source["kind"] != "video":
        return 1
    if extraction.rate is None:
        return windows_for_frames(source["container_frames"] or 0, extraction.segment_frames)
    return windows_for_duration(source["duration_s"] or 0.0, extraction.rate, extraction.segment_frames)


def plan_segments(
    source_row: Mapping[str, Any], *, location: str, extraction: Extraction, extra_windows: int = 0
) -> list[Segment]:
    """The segments of one row of SOURCES. extra_windows: windows known to exist beyond those of the probe."""
    table = plan_table(
        [source_row],
        locations={source_row["source_id"]: location},
        extraction=extraction,
        extra_windows={source_row["source_id"]: extra_windows},
    )
    return [Segment.from_row(row) for row in table.to_pylist()]


def plan_table(
    sources: pa.Table | list[Mapping[str, Any]],
    *,
    locations: Mapping[str, str],
    extraction: Extraction,
    extra_windows: Mapping[str, int] | None = None,
) -> pa.Table:
    """The plan (PLAN) of many sources, in their order, windows ascending.

    locations: source_id -> what a worker opens; sources without one are left out. extra_windows: source_id -> windows
    known to exist beyond those of the probe.
    """
    rows = sources.to_pylist() if isinstance(sources, pa.Table) else sources
    rows = [row for row in rows if row["source_id"] in locations]
    extra = extra_windows or {}
    size, extraction_id = extraction.segment_frames, extraction.id
    counts = [
        window_count(row, extraction) + (extra.get(row["source_id"], 0) if row["kind"] == "video" else 0)
        for row in rows
    ]
    windows = np.concatenate([np.arange(count, dtype=np.int32) for count in counts] or [np.empty(0, np.int32)])
    is_last = np.zeros(len(windows), bool)
    is_last[np.cumsum(counts, dtype=np.int64) - 1] = True
    ids = [
        segment_id(row["source_id"], window, extraction_id)
        for row, count in zip(rows, counts, strict=True)
        for window in range(count)
    ]
    members: list[list[Any] | None] = []
    for row, count in zip(rows, counts, strict=True):
        index = row["index"] if row["kind"] == "archive" and row["error_code"] is None else None
        members += [None if index is None else index[k * size : (k + 1) * size] for k in range(count)]
    of_row = pa.array(np.repeat(np.arange(len(rows)), counts))

    def column(name: str, key: str | None = None) -> pa.Array:
        return pa.array([row[key or name] for row in rows], PLAN.field(name).type).take(of_row)

    columns = {
        "segment_id": pa.array(ids, pa.string()),
        "source_id": column("source_id"),
        "source_uri": column("source_uri"),
        "location": pa.array([locations[row["source_id"]] for row in rows], pa.string()).take(of_row),
        "fingerprint": column("fingerprint"),
        "kind": column("kind"),
        "size_bytes": column("size_bytes"),
        "window": pa.array(windows),
        "is_last": pa.array(is_last),
        "members": pa.array(members, PLAN.field("members").type),
        "error_code": column("error_code"),
        "error_message": column("error_message"),
        "attempts": pa.array(np.zeros(len(windows), np.int16)),
    }
    return pa.Table.from_arrays([columns[name] for name in PLAN.names], schema=PLAN)
