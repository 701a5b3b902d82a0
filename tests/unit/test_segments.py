"""The plan: ids, windows, and that a long one is quick to make."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from pipeline import segments
from pipeline.config import Extraction
from pipeline.segments import (
    PLAN,
    Segment,
    plan_segments,
    plan_table,
    plan_tables,
    segment_id,
    windows_beyond,
)


def row(source_id: str = "0123456789abcdef", **changes: Any) -> dict[str, Any]:
    return {
        "source_id": source_id,
        "source_uri": "/a.mp4",
        "fingerprint": "1:2",
        "size_bytes": 1,
        "kind": "video",
        "duration_s": 60.0,
        "container_frames": 1500,
        "index": None,
        "error_code": None,
        "error_message": None,
    } | changes


def plan(tails: dict[str, int] | None = None, *, extraction: Extraction | None = None, **changes: Any) -> list[Segment]:
    return plan_segments(
        row(**changes), location="/a.mp4", extraction=extraction or Extraction(segment_frames=10), tails=tails
    )


def test_windows_of_a_video() -> None:
    segments = plan()
    assert [segment.window for segment in segments] == list(range(31))  # points 0 to 300
    assert [segment.is_last for segment in segments] == [False] * 30 + [True]
    assert len({segment.segment_id for segment in segments}) == 31
    every_frame = plan(extraction=Extraction(fps="all", segment_frames=100))
    assert len(every_frame) == 15


def test_ids_do_not_depend_on_what_the_probe_thought_of_the_duration() -> None:
    ids = [segment.segment_id for segment in plan()]
    assert [segment.segment_id for segment in plan(duration_s=20.0)] == ids[:11]
    longer = plan({row()["source_id"]: 33})
    assert [segment.segment_id for segment in longer][:31] == ids
    assert [segment.is_last for segment in longer] == [False] * 32 + [True]


def test_ids_depend_on_source_window_and_extraction() -> None:
    ids = {segment.segment_id for segment in plan()}
    assert ids.isdisjoint(segment.segment_id for segment in plan(source_id="fedcba9876543210"))
    assert ids.isdisjoint(segment.segment_id for segment in plan(extraction=Extraction(fps="4", segment_frames=10)))
    assert all(len(segment_id) == 20 for segment_id in ids)


def test_an_archive_is_cut_into_runs_of_members() -> None:
    index = [{"ordinal": n * 2, "name": f"{n}.png", "offset": n * 512, "size": 10} for n in range(23)]
    segments = plan(kind="archive", index=index, duration_s=None)
    assert [len(segment.members or ()) for segment in segments] == [10, 10, 3]
    assert [member.ordinal for segment in segments for member in segment.members or ()] == list(range(0, 46, 2))


def test_videos_in_an_archive_have_windows_of_their_own() -> None:
    names = ["a.mp4", *(f"{n}.png" for n in range(9)), *(f"{n}.webm" for n in range(10)), "last.jpg"]
    index = [{"ordinal": n * 2, "name": name, "offset": n * 512, "size": 10} for n, name in enumerate(names)]
    alone = plan(kind="archive", index=[entry for entry in index if "." in entry["name"]], duration_s=None)
    source_id, extraction_id = row()["source_id"], Extraction(segment_frames=10).id
    pictures = [segment for segment in alone if segment.kind == "archive"]
    # runs of the whole index: those without a picture are left out, the others keep their numbers and ids
    assert [(segment.window, len(segment.members or ())) for segment in pictures] == [(0, 9), (2, 1)]
    assert [segment.segment_id for segment in pictures] == [segment_id(source_id, n, extraction_id) for n in (0, 2)]
    videos = [segment for segment in alone if segment.kind == "video"]
    assert [[member.ordinal for member in segment.members or ()] for segment in videos] == [
        [n * 2] for n in (0, *range(10, 20))
    ]
    assert {(segment.window, segment.is_last) for segment in videos} == {(0, True)}
    assert len({segment.segment_id for segment in alone}) == len(alone)
    known = plan({f"{source_id}/20": 3}, kind="archive", index=index, duration_s=None)
    longer = [segment for segment in known if segment.video_key == f"{source_id}/20"]
    assert [(segment.window, segment.is_last) for segment in longer] == [(0, False), (1, False), (2, True)]
    assert longer[0].segment_id == videos[1].segment_id


def test_windows_beyond_the_plan_follow_the_last_one() -> None:
    index = [{"ordinal": 4, "name": "a.mp4", "offset": 0, "size": 10}]
    rows = [row(duration_s=3.0), row("00000000000000aa", kind="archive", index=index)]
    extraction, locations = Extraction(segment_frames=10), {entry["source_id"]: "/x" for entry in rows}
    first = plan_table(rows, locations=locations, extraction=extraction)
    ids = first["segment_id"].to_pylist()
    following = windows_beyond(first, {ids[1]: 2, ids[2]: 1}, extraction)
    assert [(entry["window"], entry["is_last"]) for entry in following.to_pylist()] == [
        (2, False),
        (3, True),
        (1, True),
    ]
    tails = {row()["source_id"]: 4, "00000000000000aa/4": 2}
    again = plan_table(rows, locations=locations, extraction=extraction, tails=tails)
    assert set(again["segment_id"].to_pylist()) == {*ids, *following["segment_id"].to_pylist()}
    assert windows_beyond(first, {}, extraction).schema == PLAN


def test_a_duration_that_cannot_be_true_is_not_believed() -> None:
    assert len(plan(duration_s=1e15)) == 1
    assert len(plan(extraction=Extraction(fps="all"), container_frames=2**62)) == 1


def test_a_picture_and_a_failed_probe_are_one_segment_each() -> None:
    (picture,) = plan(kind="picture", duration_s=None, container_frames=None)
    assert (picture.window, picture.is_last, picture.members, picture.error) == (0, True, None, None)
    (failed,) = plan(error_code="not_media", error_message="words", duration_s=None)
    assert failed.error is not None
    assert failed.error.code == "not_media"


def test_a_video_of_unknown_length_has_one_window() -> None:
    assert len(plan(duration_s=None, container_frames=None)) == 1
    assert len(plan(duration_s=0.0)) == 1


def test_rows_survive_the_table() -> None:
    index = [{"ordinal": 3, "name": "é.png", "offset": 512, "size": 10}]
    sources = [
        row(),
        row("00000000000000aa", kind="archive", index=index),
        row("00000000000000bb", error_code="corrupt"),
    ]
    locations = {source["source_id"]: f"/{n}" for n, source in enumerate(sources)}
    table = plan_table(sources, locations=locations, extraction=Extraction())
    assert table.schema == PLAN
    assert [Segment.from_row(entry).to_row() for entry in table.to_pylist()] == table.to_pylist()
    assert plan_table(pa.Table.from_pylist(sources), locations=locations, extraction=Extraction()) == table
    assert plan_table([], locations={}, extraction=Extraction()).num_rows == 0
    assert plan_table(sources, locations={}, extraction=Extraction()).schema == PLAN


def test_a_plan_is_made_in_parts_of_so_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    index = [{"ordinal": at, "name": f"{at}.png", "offset": at, "size": 1} for at in range(40)]
    rows = [row(f"{number:016x}", kind="archive", index=index) for number in range(6)] + [row("f" * 16)]
    sources = pa.table({name: pa.array([one[name] for one in rows]) for name in rows[0]})
    given: dict[str, Any] = {"locations": {one["source_id"]: "/x" for one in rows}, "extraction": Extraction()}
    whole = plan_table(rows, **given)
    monkeypatch.setattr(segments, "PLANNED_AT_ONCE", 100)
    parts = list(plan_tables(sources, **given))
    assert len(parts) == 3
    assert pa.concat_tables(parts).equals(whole)


def test_a_hundred_thousand_segments() -> None:
    sources = [row(f"{n:016x}", duration_s=640.0) for n in range(1000)]
    table = plan_table(sources, locations={source["source_id"]: "/x" for source in sources}, extraction=Extraction())
    assert table.num_rows == 101_000
    assert len(set(table["segment_id"].to_pylist())) == table.num_rows
