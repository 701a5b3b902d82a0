from __future__ import annotations

import hypothesis.strategies as st
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
