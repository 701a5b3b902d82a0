"""The search for a segment that kills its actor: halves, then alone, then an error row; everything else gets done."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.passes import MOST_FRUITLESS, PassQueue
from pipeline.segments import PLAN


def plan_of(count: int) -> pa.Table:
    rows = [
        {
            "segment_id": f"s{number}",
            "source_id": "a",
            "source_uri": "/a.mp4",
            "location": "/a.mp4",
            "fingerprint": "1:1",
            "kind": "video",
            "size_bytes": 1,
            "window": number,
            "is_last": False,
            "attempts": 0,
        }
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


def test_a_cluster_that_works_after_all_is_asked_for_every_segment() -> None:
    passes, rows = PassQueue(plan_of(40)), 0
    while passes:
        attempted = passes.pop()
        rows += passes.lost(attempted, attempted.segments).num_rows
        if passes.is_stuck:
            passes.go_on()
    assert rows == 40


def test_executions_are_long_where_there_are_many_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.passes.WAVE_SEGMENTS", 4)
    monkeypatch.setattr("pipeline.passes.WAVE_PER_ACTOR", 3)
    for actors, waves in ((1, [4, 4, 2]), (2, [6, 4])):
        passes, rows = PassQueue(plan_of(10), actors), []
        while passes:
            rows.append(passes.pop().segments["segment_id"].to_pylist())
        assert [len(part) for part in rows] == waves
        assert [one for part in rows for one in part] == plan_of(10)["segment_id"].to_pylist()


def test_what_comes_to_light_runs_in_waves_of_usual_units_and_what_was_handed_back_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.passes.WAVE_SEGMENTS", 4)
    monkeypatch.setattr("pipeline.passes.WAVE_PER_ACTOR", 1)
    passes = PassQueue(plan_of(1))
    passes.pop()
    for unit_rows in (None, 1):
        passes.add(plan_of(10), unit_rows)
        rest = [passes.pop() for _ in range(3)]
        assert [one.segments.num_rows for one in rest] == [4, 4, 2]
        assert [name for one in rest for name in one.segments["segment_id"].to_pylist()] == [
            f"s{number}" for number in range(10)
        ]
        assert {one.unit_rows for one in rest} == {unit_rows}
    passes.add(plan_of(0))
    assert not passes


def test_a_pass_that_no_input_broke_runs_again_whole() -> None:
    passes = PassQueue(plan_of(6))
    attempted = passes.pop()
    passes.again(attempted, attempted.segments.slice(2))
    rest = passes.pop()
    assert rest.segments["segment_id"].to_pylist() == ["s2", "s3", "s4", "s5"]
    assert rest.unit_rows is None
    passes.again(rest, rest.segments.slice(0, 0))
    assert not passes


def test_a_cluster_that_loses_every_pass_is_given_up() -> None:
    passes = PassQueue(plan_of(6))
    for _ in range(MOST_FRUITLESS):
        assert not passes.is_stuck
        attempted = passes.pop()
        passes.again(attempted, attempted.segments)
    assert passes.is_stuck


@given(count=st.integers(1, 60), data=st.data())
def test_only_segments_that_kill_their_actor_become_errors(count: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1), max_size=4))
    passes = PassQueue(plan_of(count))
    done: set[str] = set()
    errors: set[str] = set()
    for _ in range(1000):
        if not passes:
            break
        attempted = passes.pop()
        ids = attempted.segments["segment_id"].to_pylist()
        bad = [segment for segment in ids if int(segment[1:]) in poison]
        # the execution ends when the first bad one is met; a few good ones may have come out before
        finished = ids if not bad else ids[: data.draw(st.integers(0, ids.index(bad[0])))]
        assert not done & set(finished)
        done.update(finished)
        missing = attempted.segments.filter(
            pc.invert(pc.is_in(attempted.segments["segment_id"], pa.array(finished, pa.string())))
        )
        if bad:
            failed = passes.lost(attempted, missing)["segment_id"].to_pylist()
            errors.update(failed)
            assert not passes.is_stuck
    assert errors == {f"s{number}" for number in poison}
    assert done == {f"s{number}" for number in range(count)} - errors


def test_an_error_needs_two_failures_alone() -> None:
    passes = PassQueue(plan_of(1))
    first = passes.pop()
    assert passes.lost(first, first.segments).num_rows == 0
    second = passes.pop()
    assert second.segments["attempts"].to_pylist() == [2]
    assert passes.lost(second, second.segments)["segment_id"].to_pylist() == ["s0"]
    assert not passes


def test_a_cluster_that_moves_nothing_is_given_up() -> None:
    passes = PassQueue(plan_of(4096))
    for _ in range(MOST_FRUITLESS):
        attempted = passes.pop()
        if passes.lost(attempted, attempted.segments).num_rows:
            pytest.fail("an input was blamed while nothing at all worked")
        if passes.is_stuck:
            return
    assert passes.is_stuck
