from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from pipeline.ledger import id_set
from pipeline.ledger.id_set import IdNumbers, IdSet, WantedIds

# Ids that end in zero bytes are the ones that numpy's byte strings could lose.
IDS = st.sampled_from(["00" * 10, "ab" + "00" * 9, "ab" * 9 + "00", "00" * 9 + "ab", *(f"{n:020x}" for n in range(8))])


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "settle", "reload"]), st.lists(IDS, max_size=6))))
def test_behaves_like_a_set(steps: list[tuple[str, list[str]]]) -> None:
    ids, model = IdSet(20), set[str]()
    for action, values in steps:
        if action == "add":
            ids.add(values)
            model |= set(values)
        elif action == "remove":
            ids.remove(values)
            model -= set(values)
        elif action == "reload":
            ids = IdSet.from_packed(20, ids.packed())
        else:
            ids.packed()
        assert len(ids) == len(model)
        assert ids.contains(values).tolist() == [value in model for value in values]
        assert ids.common(values) == model & set(values)
        assert ids.less(values) == sorted(model - set(values))
    assert list(ids) == sorted(model)


def test_many_removals_from_many_ids_do_not_make_the_array_of_all_anew_each_time() -> None:
    every = [f"{n:020x}" for n in range(20_000)]
    ids, arrays = IdSet(20), [np.empty(0)]
    ids.add(every)
    assert len(ids.packed()) == 20_000  # all in the array
    for first in range(0, 10_000, 20):
        part = every[first : first + 20]
        ids.remove(part)
        ids.add(part[:5])  # as `retry` does: their rows give way to new ones
        if ids._sorted is not arrays[-1]:
            arrays.append(ids._sorted)
    assert len(arrays) < 5, "500 removals"
    assert len(ids) == 12_500
    assert list(ids) == [one for n, one in enumerate(every) if n >= 10_000 or n % 20 < 5]


def test_large_removals_leave_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_set, "_MOST_RECENT", 10)
    every = [f"{n:020x}" for n in range(100)]
    ids = IdSet(20)
    ids.add(every)
    ids.packed()
    for first in range(0, 90, 7):
        ids.remove(every[first : first + 7])
        assert len(ids) == 93 - first
        assert len(ids._gone) <= 12
    assert ids.contains(every).tolist() == [False] * 91 + [True] * 9


@given(st.lists(IDS, max_size=4), st.lists(IDS, max_size=8))
def test_wanted_ids_are_found_in_short_columns_and_in_long_ones(wanted: list[str], there: list[str]) -> None:
    column = pa.chunked_array([there], pa.string())
    assert WantedIds(wanted).among(column) == set(wanted) & set(there)


def test_large_additions_move_to_the_sorted_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_set, "_MOST_RECENT", 10)
    ids = IdSet(20)
    for first in range(0, 100, 7):
        ids.add([f"{n:020x}" for n in range(first, first + 7)])
        ids.add([f"{first:020x}"])
    assert len(ids) == 105
    assert ids.contains(pa.chunked_array([[f"{104:020x}"], [f"{105:020x}"]])).tolist() == [True, False]


@pytest.mark.parametrize("wrong", ["", "ab", "0" * 19, "0" * 21, "g" * 20, " " * 20, "0" * 22])
def test_id_of_another_shape_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="20 hex digits"):
        IdSet(20).add(["0" * 20, wrong])


@given(st.dictionaries(IDS, st.integers(0, 3)), st.lists(IDS, max_size=6))
def test_numbers_tell_in_which_lists_ids_are(owners: dict[str, int], asked: list[str]) -> None:
    lists = [pa.array([one for one, number in owners.items() if number == at], pa.string()) for at in range(4)]
    early = IdNumbers(20, lists[:2])
    assert early.each(asked).tolist() == [number if number < 2 else -1 for number in (owners.get(a, 9) for a in asked)]
    for one in lists[2:]:
        early.add(one)
    for numbers in (early, IdNumbers(20, lists)):
        assert numbers.each(asked).tolist() == [owners.get(one, -1) for one in asked]
        assert numbers.of(asked).tolist() == sorted({owners[one] for one in asked if one in owners})
    assert IdNumbers(20).of(asked).tolist() == []
    assert IdNumbers(20).each(asked).tolist() == [-1] * len(asked)
