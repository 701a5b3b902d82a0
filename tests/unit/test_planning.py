"""plan − committed, windows beyond the probe, changed sources, and dispatch units that keep every row once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import planning, schema
from pipeline.config import Extraction
from pipeline.ledger.entry import Entry
from pipeline.ledger.log import LogState
from pipeline.ledger.staging import stage_table, to_commit
from pipeline.media.sources import Listing, Source
from pipeline.passes import Pass, PassQueue
from pipeline.segments import plan_table, segment_id, windows_beyond
from pipeline.storage.store import Store

EXTRACTION = Extraction(segment_frames=10)


def source(number: int, fingerprint: str = "1:1") -> Source:
    return Source(
        source_id=f"{number:015x}{len(fingerprint) % 16:x}", uri=f"/{number}", location=f"/{number}",
        fingerprint=fingerprint, size_bytes=1,
    )  # fmt: skip


def probed(*rows: dict[str, Any]) -> pa.Table:
    common = {"run_id": "r", "pipeline_version": "0"}
    return pa.Table.from_pylist([common | row for row in rows], schema=schema.SOURCES)


def row(of: Source, **values: Any) -> dict[str, Any]:
    return {
        "source_id": of.source_id, "source_uri": of.uri, "fingerprint": of.fingerprint, "size_bytes": 1,
        "kind": "video", "duration_s": 9.7, **values,
    }  # fmt: skip


def test_what_is_committed_is_not_planned_again() -> None:
    film = source(1)
    listing, known, state = Listing(sources=[film]), probed(row(film)), LogState()
    plan = planning.plan(listing, known, [], state, "m", EXTRACTION)
    windows = plan.todo["window"].to_pylist()
    assert windows == list(range(5))  # 9.7 s at five a second, ten to a window
    assert plan.todo["is_last"].to_pylist() == [False] * 4 + [True]
    done = plan.todo["segment_id"].to_pylist()[1:3]
    state.apply(Entry(run_id="r", model_id="m", segments=done))
    rest = planning.plan(listing, known, [], state, "m", EXTRACTION)
    assert rest.todo["window"].to_pylist() == [0, 3, 4]
    assert rest.already_done == 2
    assert planning.plan(listing, known, [], state, "another", EXTRACTION).already_done == 0


def test_an_error_speaks_only_for_windows_that_are_tried_with_it_or_have_no_row() -> None:
    film = source(1)
    listing, known, state = Listing(sources=[film]), probed(row(film)), LogState()
    plan = planning.plan(listing, known, [], state, "m", EXTRACTION)
    assert plan.todo["follows"].to_pylist() == [False, True, True, True, True]
    ids = plan.todo["segment_id"].to_pylist()
    state.apply(Entry(run_id="r", model_id="m", segments=[ids[0], ids[2]]))
    rest = planning.plan(listing, known, [], state, "m", EXTRACTION).todo
    assert dict(zip(rest["window"].to_pylist(), rest["follows"].to_pylist(), strict=True)) == {
        1: False, 3: False, 4: True,
    }  # fmt: skip
    state.apply(Entry(run_id="r", model_id="m", segments=[ids[3]], covered=[ids[3]]))
    rest = planning.plan(listing, known, [], state, "m", EXTRACTION).todo
    assert rest["follows"].to_pylist() == [False, True]
    assert windows_beyond(rest, {ids[4]: 2}, EXTRACTION)["follows"].to_pylist() == [True, True]


def test_an_error_row_speaks_for_the_windows_of_the_next_run_as_it_would_have_in_its_own(tmp_path: Path) -> None:
    film, other = source(1), source(2)
    store, state = Store(str(tmp_path)), LogState()
    listing, known = Listing(sources=[film, other]), probed(row(film), row(other, duration_s=3.0))

    def failed() -> pa.Array:
        asked.append(planning.failed_segments(store, state, "m"))
        return asked[-1]

    def plan() -> planning.Plan:
        return planning.plan(listing, known, [], state, "m", EXTRACTION, failed=failed)

    asked: list[pa.Array] = []
    ids = plan().todo["segment_id"].to_pylist()
    assert not asked
    for window, status in enumerate(("ok", "error", "partial")):
        rows = pa.Table.from_pylist([segment_row(film, status, window)], schema=schema.SEGMENTS)
        staged = stage_table(store, "r", "segments", rows)
        file = to_commit(staged, run_id="r", model_id="m", only_errors=status != "ok")
        state.apply(Entry(run_id="r", model_id="m", segments=rows["segment_id"].to_pylist(), add=[file]))
        rest = plan()
        assert rest.todo["window"].to_pylist()[:-2] == list(range(window + 1, 5))
        assert rest.todo["follows"].to_pylist()[0] == (status == "error"), "a good row tells nothing"
        assert rest.told == ids[1:2] * (status == "error")
    assert len(asked) == 3
    assert asked[-1].to_pylist() == ids[1:2]
    state.apply(Entry(run_id="r", model_id="m", segments=ids[3:4], covered=ids[3:4]))
    assert plan().told == ids[3:4]
    assert len(asked) == 3, "asked although nothing hangs on it"


def test_windows_that_came_to_light_are_remembered_by_the_next_plan() -> None:
    film = source(1)
    listing, known, state = Listing(sources=[film]), probed(row(film)), LogState()
    first = planning.plan(listing, known, [], state, "m", EXTRACTION).todo
    beyond = windows_beyond(first, {first["segment_id"][4].as_py(): 1}, EXTRACTION)
    assert beyond["window"].to_pylist() == [5]
    assert beyond["is_last"].to_pylist() == [True]
    assert beyond["segment_id"].to_pylist() == [segment_id(film.source_id, 5, EXTRACTION.id)]
    ids = first["segment_id"].to_pylist()
    state.apply(Entry(run_id="r", model_id="m", segments=ids, tails={film.source_id: 6}))
    resumed = planning.plan(listing, known, [], state, "m", EXTRACTION).todo
    assert resumed.drop_columns(["follows"]).equals(beyond.drop_columns(["follows"]))


def test_a_changed_source_is_one_error_and_one_that_only_failed_is_new(tmp_path: Path) -> None:
    good, failed, broken = source(1), source(2), source(3)
    known = probed(row(good), row(failed, error_code="not_media", error_message="no"), row(broken))
    store, state = Store(str(tmp_path)), LogState()
    statuses = [segment_row(good, "ok"), segment_row(good, "error", 1)]
    statuses += [segment_row(failed, "error"), segment_row(broken, "error")]
    staged = stage_table(store, "r", "segments", pa.Table.from_pylist(statuses, schema=schema.SEGMENTS))
    file = to_commit(staged, run_id="r", model_id="m")
    state.apply(Entry(run_id="r", model_id="m", segments=[r["segment_id"] for r in statuses], add=[file]))
    changed, mended, whole = (source(number, "22:22") for number in (1, 2, 3))
    listing = Listing(sources=[changed, mended, whole])
    unknown, different = planning.new_sources(store, state, listing, known)
    assert (unknown, different) == ([mended, whole], [changed])
    plan = planning.plan(listing, known, different, LogState(), "m", EXTRACTION)
    assert plan.todo["error_code"].to_pylist() == ["source_changed"]
    assert plan.todo["source_id"].to_pylist() == [changed.source_id]
    assert planning.superseded(store, state, listing, known) == {failed.source_id, broken.source_id}
    assert planning.superseded(store, state, Listing(sources=[good, failed, broken]), known) == set()


def test_whether_a_source_has_good_rows_is_told_by_two_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, failed = source(1), source(2)
    store, state = Store(str(tmp_path)), LogState()
    for one, status in ((good, "ok"), (failed, "error")):
        rows = pa.Table.from_pylist([segment_row(one, status)], schema=schema.SEGMENTS)
        file = to_commit(
            stage_table(store, "r", "segments", rows), run_id="r", model_id="m", only_errors=status == "error"
        )
        state.apply(Entry(run_id="r", model_id="m", segments=rows["segment_id"].to_pylist(), add=[file]))
    whole: list[str] = []
    read = Store.read_bytes
    monkeypatch.setattr(Store, "read_bytes", lambda self, path: whole.append(path) or read(self, path))
    listing = Listing(sources=[source(1, "22:22"), source(2, "22:22")])
    assert planning.superseded(store, state, listing, probed(row(good), row(failed))) == {failed.source_id}
    of_good, of_failed = state.files("segments")
    assert of_failed.path in whole
    assert not {of_good.path, of_good.staged} & set(whole)


def segment_row(of: Source, status: str, window: int = 0) -> dict[str, Any]:
    return {
        "segment_id": segment_id(of.source_id, window, EXTRACTION.id), "source_id": of.source_id, "source_uri": of.uri,
        "model_id": "m", "kind": "video", "frames": [], "timestamps": [], "face_counts": [], "faces_kept": 0,
        "status": status, "fetch_s": 0, "decode_s": 0, "detect_s": 0, "infer_s": 0, "attempts": 1, "run_id": "r",
        "node": "n",
    }  # fmt: skip


@given(videos=st.integers(0, 5), pictures=st.integers(0, 200), unit_rows=st.none() | st.integers(1, 9))
def test_dispatch_units_hold_every_row_once(videos: int, pictures: int, unit_rows: int | None) -> None:
    sources = [source(number) for number in range(videos + pictures)]
    rows = [row(s, kind="video" if n < videos else "picture") for n, s in enumerate(sources)]
    plan = plan_table(rows_of(rows), locations={s.source_id: s.location for s in sources}, extraction=EXTRACTION)
    units = planning.dispatch_units(Pass(segments=plan, unit_rows=unit_rows), actors=3)
    ids = [segment for unit in units for segment in unit["segment_id"].to_pylist()]
    assert sorted(ids) == sorted(plan["segment_id"].to_pylist())
    for unit in units:
        kinds = set(unit["kind"].to_pylist())
        assert len(kinds) == 1
        most = planning.PICTURE_UNIT_ROWS if kinds == {"picture"} else planning.UNIT_ROWS
        assert 1 <= unit.num_rows <= (unit_rows or most)


def test_one_long_video_spreads_over_more_units_than_actors() -> None:
    film = source(1)
    plan = plan_table(rows_of([row(film, duration_s=600.0)]), locations={film.source_id: "/1"}, extraction=EXTRACTION)
    assert plan.num_rows == 301
    for actors, most_rows in ((2, 8), (20, 3), (400, 1)):
        units = planning.dispatch_units(Pass(segments=plan), actors)
        assert max(unit.num_rows for unit in units) == most_rows
        assert len(units) > min(actors, 300)


def test_a_plan_of_any_size_runs_in_waves() -> None:
    film = source(1)
    rows = rows_of([row(film, duration_s=250_000.0)])
    plan = plan_table(rows, locations={film.source_id: "/1"}, extraction=EXTRACTION)
    passes = PassQueue(plan)
    waves = []
    while passes:
        waves.append(passes.pop().segments["window"].to_pylist())
    assert [len(wave) for wave in waves] == [50_000, 50_000, 25_001]
    assert waves[0][0] == 0


def test_a_limit_takes_with_a_window_those_that_need_its_answer() -> None:
    film = row(source(1))
    todo = plan_table(probed(film), locations={film["source_id"]: "/film"}, extraction=EXTRACTION)
    first, second, *others = todo["segment_id"].to_pylist()
    plan = planning.Plan(todo=todo, total=todo.num_rows)
    plan.cut(1, {first: frozenset(others[-1:]), second: frozenset(others)})
    assert plan.todo["segment_id"].to_pylist() == [first, *others[-1:]]
    assert plan.left == todo.num_rows - 2
    plan.cut(9, {})
    assert plan.left == 0


def rows_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    empty = dict.fromkeys(schema.SOURCES.names)
    return [{**empty, **row} for row in rows]


@pytest.mark.parametrize("count", [1, 3])
def test_each_pass_counts_as_an_attempt(count: int) -> None:
    film = source(1)
    plan = plan_table(rows_of([row(film)]), locations={film.source_id: "/1"}, extraction=EXTRACTION)
    passes = PassQueue(plan)
    for _ in range(count):
        taken = passes.pop()
        passes.add(taken.segments)
    assert set(taken.segments["attempts"].to_pylist()) == {count}


def test_sources_of_many_files_come_in_the_order_of_their_commits(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path)), LogState()
    films = [source(number) for number in range(50)]
    for film in films:
        staged = stage_table(store, "r", "sources", probed(row(film)))
        state.apply(Entry(run_id="r", sources=[film.source_id], add=[to_commit(staged, run_id="r", model_id="")]))
    known = planning.known_sources(store, state)
    assert known.equals(probed(*map(row, films)))
    assert planning.known_sources(store, LogState()).equals(schema.empty("sources"))
