"""The plan: one row per segment, the unit of work, of recovery and of memory.

A segment's id depends on its source, its window and the extraction; never on listing order, grouping or how long a
probe thought the video was. An archive's pictures are cut into runs of its index; each of its videos has windows of its
own, as many as its first reader finds, so that one that crashes a decoder costs nothing but itself.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media.sampling import windows_for_duration, windows_for_frames
from pipeline.media.sniff import is_video_name

#: The most windows that one video can have. A header or a time stamp that promises more is wrong.
MAX_WINDOWS = 1_000_000
SPARSE_WINDOWS = 10_000  # 18 hours at 5 frames per second, whatever few pictures are shown in them
PLANNED_AT_ONCE = 10_000

#: One picture or video in an archive. ordinal: its place among all entries; offset: of its data (zip: header).
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
        pa.field("follows", pa.bool_(), nullable=False),
        pa.field("members", pa.list_(MEMBER)),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("attempts", pa.int16(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One picture or video in an archive, found through the index."""

    ordinal: int
    name: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One row of PLAN.

    kind: what is read, so `video` for a video inside an archive. window: k of the sampling grid, or of runs of members;
    0 for a picture. is_last: the last planned window of a video, which says whether the video goes on. follows: the
    window before it is read by the same run, or has an error row, or none because of an error before it: so that one's
    error may speak for this one too (`pipeline.covered`). members: the pictures of a run, or the one video. error_code,
    error_message: why the source can't be read at all.
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
    follows: bool = False
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
    def video_key(self) -> str:
        """Which video this is a window of; see `video_key`."""
        return video_key(self.source_id, self.members[0].ordinal if self.members else None)

    @property
    def error(self) -> MediaError | None:
        """Why the probe failed, if it did."""
        return MediaError(ErrorCode(self.error_code), self.error_message or "") if self.error_code else None


def segment_id(key: str, window: int, extraction_id: str) -> str:
    """20 hex over source (or `video_key`), window and extraction."""
    return hashlib.sha256(f"{key}/{window}/{extraction_id}".encode()).hexdigest()[:20]


def video_key(source_id: str, ordinal: int | None) -> str:
    """What a video is called in `tails` and in its segments' ids: a source, or the ordinal-th entry of an archive."""
    return source_id if ordinal is None else f"{source_id}/{ordinal}"


def most_windows(frames: int | None) -> int:
    """More windows than this are not believed of a video with so many frames: nearly all of them would be empty."""
    return min(MAX_WINDOWS, SPARSE_WINDOWS + 64 * frames) if frames else MAX_WINDOWS


def window_count(source: Mapping[str, Any], extraction: Extraction) -> int:
    """How many windows a row of SOURCES has, as far as the probe knows; at least one. Without an archive's videos."""
    if source["error_code"] is not None:
        return 1
    if source["kind"] == "archive":
        return windows_for_frames(len(source["index"] or ()), extraction.segment_frames)
    if source["kind"] != "video":
        return 1
    if extraction.rate is None:
        count = windows_for_frames(source["container_frames"] or 0, extraction.segment_frames)
    else:
        count = windows_for_duration(source["duration_s"] or 0.0, extraction.rate, extraction.segment_frames)
    # a header that can't be true: whoever reads the video counts
    return count if count <= most_windows(source["container_frames"]) else 1


def plan_segments(
    source_row: Mapping[str, Any], *, location: str, extraction: Extraction, tails: Mapping[str, int] | None = None
) -> list[Segment]:
    """The segments of one row of SOURCES. tails: as in `plan_table`."""
    table = plan_table([source_row], locations={source_row["source_id"]: location}, extraction=extraction, tails=tails)
    return [Segment.from_row(row) for row in table.to_pylist()]


def plan_table(
    sources: pa.Table | list[Mapping[str, Any]],
    *,
    locations: Mapping[str, str],
    extraction: Extraction,
    tails: Mapping[str, int] | None = None,
) -> pa.Table:
    """The plan (PLAN) of many sources, in their order, windows ascending.

    locations: source_id -> what a worker opens; sources without one are left out. tails: `video_key` -> windows that
    the video is known to have, whatever the probe thought.
    """
    tables = list(plan_tables(sources, locations=locations, extraction=extraction, tails=tails))
    return pa.concat_tables(tables) if tables else PLAN.empty_table()


def plan_tables(
    sources: pa.Table | list[Mapping[str, Any]],
    *,
    locations: Mapping[str, str],
    extraction: Extraction,
    tails: Mapping[str, int] | None = None,
) -> Iterator[pa.Table]:
    """`plan_table` in parts of about PLANNED_AT_ONCE sources and archives' members. While a part is made, each of them
    is several Python objects, ten times as large as the row that it becomes."""
    for part in _in_parts(sources) if isinstance(sources, pa.Table) else [sources]:
        rows = part.to_pylist() if isinstance(part, pa.Table) else part
        parts = [
            part
            for row in rows
            if row["source_id"] in locations
            for part in _parts({**row, "location": locations[row["source_id"]]}, extraction, tails or {})
        ]
        yield _table(parts, extraction)


def _in_parts(sources: pa.Table) -> Iterator[pa.Table]:
    members = pc.fill_null(pc.list_value_length(sources["index"]), 0).to_numpy()
    part = np.cumsum(members + 1) // PLANNED_AT_ONCE
    bounds = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(part)]
    return (sources.slice(start, end - start) for start, end in itertools.pairwise(bounds) if end > start)


def windows_beyond(segments: pa.Table, beyond: Mapping[str, int], extraction: Extraction) -> pa.Table:
    """The windows (PLAN) that follow last planned ones. beyond: segment_id -> how many its reader saw."""
    last = segments.filter(pc.is_in(segments["segment_id"], pa.array(list(beyond), pa.string())))
    tables = [PLAN.empty_table()]
    for start in range(0, last.num_rows, PLANNED_AT_ONCE):
        parts = []
        for row in last.slice(start, PLANNED_AT_ONCE).to_pylist():
            windows = range(row["window"] + 1, row["window"] + 1 + beyond[row["segment_id"]])
            key, members = Segment.from_row(row).video_key, [row["members"]] * len(windows)
            parts.append(_Part(row=row, key=key, kind="video", windows=windows, members=members))
        tables.append(_table(parts, extraction))
    return pa.concat_tables(tables)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Windows of one video, one archive's pictures, or one picture. members: of each window."""

    row: Mapping[str, Any]
    key: str
    kind: str
    windows: range | list[int]
    members: list[list[Any] | None]


def _parts(row: Mapping[str, Any], extraction: Extraction, tails: Mapping[str, int]) -> Iterator[_Part]:
    key, kind = row["source_id"], row["kind"]
    count = window_count(row, extraction)
    if kind != "archive" or row["error_code"] is not None:
        count = max(count, tails.get(key, 0)) if kind == "video" else count
        yield _Part(row=row, key=key, kind=kind, windows=range(count), members=[None] * count)
        return
    index, size = row["index"] or [], extraction.segment_frames
    videos = [member for member in index if is_video_name(member["name"])]
    # a window is a run of the whole index, so that its id means the same pictures whatever becomes of the videos
    runs = [index[k * size : (k + 1) * size] for k in range(count)]
    if videos:
        runs = [[member for member in run if not is_video_name(member["name"])] for run in runs]
    windows = [k for k, run in enumerate(runs) if run]
    yield _Part(row=row, key=key, kind=kind, windows=windows, members=[runs[k] for k in windows])
    for member in videos:
        member_key = video_key(key, member["ordinal"])
        count = max(1, tails.get(member_key, 0))
        yield _Part(row=row, key=member_key, kind="video", windows=range(count), members=[[member]] * count)


def _table(parts: list[_Part], extraction: Extraction) -> pa.Table:
    parts = [part for part in parts if part.windows]
    counts = np.array([len(part.windows) for part in parts], np.int64)
    of_part = pa.array(np.repeat(np.arange(len(parts)), counts))
    ends = np.cumsum(counts)
    is_last = np.zeros(counts.sum(), bool)
    is_last[ends - 1] = True
    windows = np.array([window for part in parts for window in part.windows], np.int32)
    is_video = np.repeat([part.kind == "video" for part in parts], counts).astype(bool)
    extraction_id = extraction.id

    def column(name: str) -> pa.Array:
        return pa.array([part.row[name] for part in parts], PLAN.field(name).type).take(of_part)

    columns: dict[str, Any] = {
        "segment_id": [segment_id(part.key, window, extraction_id) for part in parts for window in part.windows],
        "kind": pa.array([part.kind for part in parts], pa.string()).take(of_part),
        "window": windows,
        "is_last": is_last,
        "follows": is_video & (windows > 0),
        "members": [members for part in parts for members in part.members],
        "attempts": np.zeros(len(is_last), np.int16),
    }
    columns |= {name: column(name) for name in PLAN.names if name not in columns}
    return pa.Table.from_pydict({name: columns[name] for name in PLAN.names}, schema=PLAN)
