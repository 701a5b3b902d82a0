"""A window without a row of its own: only where the error row of one before it speaks for it, however the windows are
grouped, in whichever order they come back, and whichever nodes can read the file."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Extraction
from pipeline.covered import CoveredWindows
from pipeline.media.scratch import Scratch
from pipeline.segments import PLAN, Segment, plan_table
from pipeline.stage import MANIFEST
from pipeline.worker import SegmentExtractor, WorkerConfig
from tests.media import truncated, write_video
from tests.unit.test_planning import row, rows_of, source
from tests.unit.test_read import EXTRACTION, segments


def broken_after_the_probe(folder: Path, *, is_cut: bool) -> list[Segment]:
    """The windows of a video as a probe of it whole gave them; it is cut or overwritten since, which nobody can see."""
    path = write_video(folder / "v.mp4", frames=75, b_frames=0, container_options={"movflags": "faststart"})
    planned = segments(path, Scratch(None))
    content = truncated(path, folder / "cut.mp4", 0.4).read_bytes() if is_cut else b"this was a video" * 100
    status = path.stat()
    path.write_bytes(content.ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return planned


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_window_behind_a_break_has_its_own_error_unless_another_tells(
    tiny_model: Path, tmp_path: Path, is_cut: bool
) -> None:
    config = WorkerConfig(extraction=EXTRACTION, model_config=(tiny_model / "config.json").read_bytes())
    extractor = SegmentExtractor(config)
    *_, last = broken_after_the_probe(tmp_path, is_cut=is_cut)
    assert last.follows
    for segment in (last, replace(last, follows=False)):
        result = extractor.extract(segment, emit=lambda faces: None)
        assert (result.status, result.covered) == ("error", segment.follows)
        assert result.error_message


WINDOWS = 24
FILM = source(1)


def plan() -> pa.Table:
    known = rows_of([row(FILM, duration_s=WINDOWS * 2 - 0.3)])
    planned = plan_table(known, locations={FILM.source_id: "/"}, extraction=Extraction(segment_frames=10))
    assert planned.num_rows == WINDOWS
    return planned


def manifest(unit: list[Segment], broken_from: int) -> pa.Table:
    """What comes of a unit that is read where nothing of the video can be read from that window on."""
    rows = []
    for segment in unit:
        is_broken = segment.window >= broken_from
        rows.append(
            {
                "segment_id": segment.segment_id,
                "window": segment.window,
                "video_key": segment.video_key,
                "status": "error" if is_broken else "ok",
                "covered": segment.window > broken_from and segment.follows,
                "deferred": False,
                "beyond": 0,
                "files": [],
            }
        )
    return pa.Table.from_pylist(rows, MANIFEST)


@st.composite
def grouped(draw: st.DrawFn, count: int) -> list[range]:
    """Runs of consecutive numbers below `count`, in any order."""
    cuts = sorted(draw(st.sets(st.integers(1, count - 1)))) if count > 1 else []
    ends = [0, *cuts, count]
    return draw(st.permutations([range(start, end) for start, end in itertools.pairwise(ends)]))


@given(data=st.data(), broken_from=st.integers(0, WINDOWS))
def test_a_broken_video_has_one_error_row_however_it_is_grouped(data: st.DataObject, broken_from: int) -> None:
    windows = [Segment.from_row(one) for one in plan().to_pylist()]
    covered, rows = CoveredWindows(Extraction(segment_frames=10).id), []
    for unit in data.draw(grouped(WINDOWS)):
        rows += covered.settle(manifest([windows[number] for number in unit], broken_from)).to_pylist()
    covered.remember(plan())
    assert covered.untold().num_rows == 0
    assert sorted((one["window"], one["status"], one["covered"]) for one in rows) == [
        (window, "ok" if window < broken_from else "error", window > broken_from) for window in range(WINDOWS)
    ]


@given(data=st.data())
def test_whatever_some_nodes_can_read_each_window_has_a_row_or_one_that_tells(data: st.DataObject) -> None:
    waiting, covered = plan(), CoveredWindows(Extraction(segment_frames=10).id)
    rows: dict[int, dict[str, object]] = {}
    passes = 0
    while waiting.num_rows:
        passes += 1
        assert passes <= WINDOWS
        windows = [Segment.from_row(one) for one in waiting.to_pylist()]
        for unit in data.draw(grouped(len(windows))):
            broken_from = data.draw(st.sampled_from([0, 0, 5, WINDOWS]))
            for one in covered.settle(manifest([windows[number] for number in unit], broken_from)).to_pylist():
                assert rows.setdefault(one["window"], one) is one, "answered twice"
        covered.remember(waiting)
        waiting = covered.untold()
        assert waiting.schema == PLAN
    assert sorted(rows) == list(range(WINDOWS))
    for window, one in rows.items():
        assert not one["covered"] or rows[window - 1]["status"] == "error"


def test_windows_that_follow_what_was_committed_before_are_told() -> None:
    windows = [Segment.from_row(one) for one in plan().to_pylist()]
    covered = CoveredWindows(Extraction(segment_frames=10).id, told=[windows[9].segment_id])
    assert covered.settle(manifest(windows[10:], 9))["window"].to_pylist() == list(range(10, WINDOWS))


def test_windows_beyond_one_that_is_read_again_are_not_planned_twice() -> None:
    covered = CoveredWindows(Extraction(segment_frames=10).id)
    last = plan().slice(WINDOWS - 1)
    answer = manifest([Segment.from_row(one) for one in last.to_pylist()], 0)
    for beyond in (0, 3):
        values = pa.array([beyond], pa.int32())
        waits = answer.set_column(answer.schema.get_field_index("beyond"), MANIFEST.field("beyond"), values)
        assert covered.settle(waits).num_rows == 0
        covered.remember(last)
        again = covered.untold()
        assert (again["follows"].to_pylist(), again["is_last"].to_pylist()) == ([False], [beyond == 0])
