"""What is made of passes that break, that find more windows, or that read with a bad copy of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.config import Extraction
from pipeline.errors import StartError, StoreError
from pipeline.execution import MOST_STARTS
from pipeline.passes import Pass
from pipeline.planning import dispatch_units
from pipeline.segments import Segment, plan_table
from tests.scripted_processing import Answer, ScriptedProcessing, failed_start
from tests.unit.test_planning import row, rows_of, source

EXTRACTION = Extraction(segment_frames=10)


@pytest.fixture
def processing(tiny_model: Path, tmp_path: Path) -> ScriptedProcessing:
    return ScriptedProcessing(tiny_model, str(tmp_path / "out"), EXTRACTION)


def films(count: int, windows: int = 1) -> pa.Table:
    """A plan of so many videos, each of so many windows."""
    sources = [source(number) for number in range(count)]
    rows = rows_of([row(one, duration_s=2.0 * windows - 0.3) for one in sources])
    plan = plan_table(rows, locations={one.source_id: "/" for one in sources}, extraction=EXTRACTION)
    assert plan.num_rows == count * windows
    return plan


def committed(processing: ScriptedProcessing) -> Counter[tuple[str, str | None]]:
    """How many segments have which row; "covered" for none."""
    processing.log.refresh()
    paths = processing.log.state.live_files("segments")
    tables = [pq.read_table(Path(processing.summary.output) / path) for path in paths]
    rows = pa.concat_tables(tables).to_pylist() if tables else []
    found = Counter((one["status"], one["error_code"]) for one in rows)
    assert len({one["segment_id"] for one in rows}) == len(rows)
    found["covered", None] = len(processing.log.state.covered(processing.model_id))
    assert found.total() == processing.log.state.count(processing.model_id) == processing.summary.segments_done
    return +found


class KilledError(Exception):
    """An actor's death."""


def test_windows_found_late_run_in_waves_and_units_as_those_planned(
    processing: ScriptedProcessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.passes.WAVE_SEGMENTS", 40)
    monkeypatch.setattr("pipeline.passes.WAVE_PER_ACTOR", 1)

    def found(segment: Segment) -> int | None:
        return 15 if segment.window == 0 else None

    processing.script = lambda attempted: [processing.unit(attempted.segments, beyond=found)]
    processing.process(films(10))
    assert [one.segments.num_rows for one in processing.passes] == [10, 40, 40, 40, 30]
    units = [unit for one in processing.passes[1:] for unit in dispatch_units(one, actors=1)]
    assert [unit.num_rows for unit in units] == [8] * 15 + [7, 7, 7, 7, 2]
    assert committed(processing) == {("ok", None): 160}


def test_a_stop_while_the_cluster_is_asked_blames_nobody(processing: ScriptedProcessing) -> None:
    def script(attempted: Pass) -> Iterable[Answer]:
        if len(processing.passes) == 3:
            processing.stop.set()
            return []
        return [KilledError("gone")]

    processing.script = script
    processing.process(films(1))
    assert len(processing.passes) == 3
    assert processing.passes[-1].segments["error_message"].to_pylist() == ["not read"]
    assert committed(processing) == {}


def test_a_cluster_that_fails_at_what_is_not_read_is_given_up(processing: ScriptedProcessing) -> None:
    processing.script = lambda attempted: [KilledError("gone")]
    with pytest.raises(StoreError, match=r"fails at whatever it is given: KilledError: gone"):
        processing.process(films(1))
    assert committed(processing) == {}


def test_a_cluster_is_asked_once_whether_it_works(processing: ScriptedProcessing) -> None:
    asked = []

    def script(attempted: Pass) -> Iterable[Answer]:
        if attempted.segments["error_message"].null_count:
            return [KilledError("gone")]
        asked.append(attempted)
        return [processing.unit(attempted.segments)]

    processing.script = script
    processing.process(films(3))
    assert committed(processing) == {("error", "internal"): 3}
    assert len(asked) == 1


def test_actors_have_all_their_attempts_to_start_whatever_failed_before(processing: ScriptedProcessing) -> None:
    def script(attempted: Pass) -> Iterable[Answer]:
        number = len(processing.passes)
        if number < MOST_STARTS:
            return [KilledError("gone")]
        if number < 2 * MOST_STARTS - 1:
            return [failed_start("OSError: no GPU here")]
        return [processing.unit(attempted.segments)]

    processing.script = script
    processing.process(films(8))
    assert committed(processing) == {("ok", None): 8}


def test_actors_that_do_not_start_end_the_run_with_the_reason(processing: ScriptedProcessing) -> None:
    processing.script = lambda attempted: [failed_start("OSError: no GPU here")]
    with pytest.raises(StoreError, match=r"actors don't start on the cluster: OSError: no GPU here; mend"):
        processing.process(films(8))
    assert len(processing.passes) == MOST_STARTS
    assert committed(processing) == {}


def test_decode_processes_that_do_not_come_up_again_are_told_as_actors_are(processing: ScriptedProcessing) -> None:
    processing.script = lambda attempted: [StartError("the decode process did not start within 180 s on n1")]
    told = r"^the decode process did not start within 180 s on n1; mend that and run the same command again to resume$"
    with pytest.raises(StoreError, match=told) as caught:
        processing.process(films(8))
    assert caught.value.exit_code == 5
    assert len(processing.passes) == MOST_STARTS
    assert committed(processing) == {}


def test_a_decode_process_that_comes_up_later_is_enough(processing: ScriptedProcessing) -> None:
    def script(attempted: Pass) -> Iterable[Answer]:
        if len(processing.passes) < MOST_STARTS:
            return [StartError("the decode process did not start within 180 s on n1")]
        return [processing.unit(attempted.segments)]

    processing.script = script
    processing.process(films(8))
    assert committed(processing) == {("ok", None): 8}


def broken_from(first: int, windows: pa.Table, processing: ScriptedProcessing) -> pa.Table:
    """The manifest of a unit that is read where the video is broken from that window on."""
    return processing.unit(
        windows,
        error=lambda segment: "corrupt" if segment.window >= first else None,
        covered=lambda segment: segment.window > first and segment.follows,
    )


def test_windows_read_with_a_bad_copy_have_an_error_row(processing: ScriptedProcessing) -> None:
    """One node reads the first eight windows well, another can't open the file: nobody would tell of the others."""

    def script(attempted: Pass) -> Iterable[Answer]:
        good = pc.less(attempted.segments["window"], 8)
        for windows, first in ((attempted.segments.filter(pc.invert(good)), 0), (attempted.segments.filter(good), 99)):
            if windows.num_rows:
                yield broken_from(first, windows, processing)

    processing.script = script
    processing.process(films(1, 16))
    assert [one.segments["follows"].to_pylist() for one in processing.passes[1:]] == [[False] + [True] * 7]
    assert committed(processing) == {("ok", None): 8, ("error", "corrupt"): 1, ("covered", None): 7}


def test_windows_behind_one_that_another_driver_read_well_are_not_left_without_a_row(
    processing: ScriptedProcessing, tiny_model: Path
) -> None:
    """Two drivers at once, and the file can be read where the other one works, which dies half way. Its good row is
    first, so the error row that would have told of the windows behind it is never there."""
    plan = films(1, 4)
    other = ScriptedProcessing(tiny_model, processing.summary.output, EXTRACTION)
    other.script = lambda attempted: [other.unit(attempted.segments)]

    def script(attempted: Pass) -> Iterable[Answer]:
        if len(processing.passes) == 1:
            other.process(plan.slice(0, 2))
        yield broken_from(1, attempted.segments, processing)

    processing.script = script
    processing.process(plan)
    assert [one.segments["window"].to_pylist() for one in processing.passes] == [[0, 1, 2, 3], [2, 3]]
    assert rows_of_windows(processing, plan) == [("ok", None), ("ok", None), ("error", "corrupt"), None]


def rows_of_windows(processing: ScriptedProcessing, plan: pa.Table) -> list[tuple[str, str | None] | None]:
    """Status and code of each window's row, which must be committed; None for one without a row."""
    state = processing.log.state
    processing.log.refresh()
    assert state.committed(processing.model_id).contains(plan["segment_id"]).all()
    tables = [pq.read_table(Path(processing.summary.output) / path) for path in state.live_files("segments")]
    rows = {one["segment_id"]: one for table in tables for one in table.to_pylist()}
    found = [rows.get(segment_id) for segment_id in plan["segment_id"].to_pylist()]
    return [None if one is None else (one["status"], one["error_code"]) for one in found]


def test_windows_that_another_node_can_read_after_all_have_their_rows(processing: ScriptedProcessing) -> None:
    def script(attempted: Pass) -> Iterable[Answer]:
        if len(processing.passes) == 1:
            yield broken_from(0, attempted.segments.slice(8), processing)
            yield processing.unit(attempted.segments.slice(0, 8))
        else:
            yield processing.unit(attempted.segments)

    processing.script = script
    processing.process(films(1, 16))
    assert committed(processing) == {("ok", None): 16}


def test_a_broken_video_has_one_error_row_also_where_its_windows_came_to_light_late(
    processing: ScriptedProcessing,
) -> None:
    def script(attempted: Pass) -> Iterable[Answer]:
        yield processing.unit(
            attempted.segments,
            error=lambda segment: "corrupt",
            covered=lambda segment: segment.follows,
            beyond=lambda segment: 5 if segment.window == 0 else None,
        )

    processing.script = script
    processing.process(films(2))
    assert committed(processing) == {("error", "corrupt"): 2, ("covered", None): 10}
    assert len(processing.passes) == 2
    assert len(processing.log.state.tails) == 2


def test_a_committed_error_row_tells_for_windows_of_the_next_run(processing: ScriptedProcessing) -> None:
    plan = films(1, 4)
    processing.script = lambda attempted: [broken_from(1, attempted.segments, processing)]
    processing.process(plan.slice(0, 2))
    processing.process(plan.slice(2), told=plan["segment_id"].to_pylist()[1:2])
    assert len(processing.passes) == 2
    assert committed(processing) == {("ok", None): 1, ("error", "corrupt"): 1, ("covered", None): 2}
