"""What a reader gives back, how parts are chosen, and which layout is recognised."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ran_model.datasets import LAYOUTS, DataError, Item, Listing, read_listing
from ran_model.datasets.expressions import AFFECTNET_ORDER, FERPLUS_ORDER, RAF_DB_ORDER, expression_index
from ran_model.datasets.notes import Notes
from ran_model.datasets.splits import any_split, train_or_validation
from ran_model.datasets.votes import majority, vote_distribution
from ran_model.labels import EXPRESSIONS


def item(key: str, split: str = "train", label: int = 0) -> Item:
    return Item(key=key, picture=b"", split=split, label=label)


def listing(*items: Item, **lists: dict[str, int]) -> Listing:
    return Listing(name="faces", items=list(items), lists=lists, notes=[])


def test_splits_and_classes_of_a_listing() -> None:
    faces = listing(item("a", label=6), item("b", "test", 1), item("c", label=1), full={"b": 3})
    assert [each.key for each in faces.of("train")] == ["a", "c"]
    assert [each.key for each in faces.of("test")] == ["b"]
    assert faces.of("validation") == []
    assert faces.classes == ("happiness", "fear")
    with pytest.raises(ValueError, match="'val': it must be one of train, validation, test"):
        faces.of("val")


def test_all_pictures_can_be_test_ones() -> None:
    faces = listing(
        item("a", label=6), item("b", "test", 1), item("c", "validation", 2), full={"b": 3}, pose30={"b": 4}
    )
    tested = faces.all_tested()
    assert {each.key for each in tested.of("test")} == {"a", "b", "c"}
    assert tested.lists == {"full": {"a": 6, "b": 1, "c": 2}, "pose30": {"b": 4}}
    assert [each.split for each in faces.items] == ["train", "test", "validation"]
    assert replace(faces, parts_note="drawn").told == ["drawn"]
    assert replace(faces, parts_note="drawn").all_tested().told == []


def test_a_listing_is_checked() -> None:
    with pytest.raises(ValueError, match="key 'a' twice"):
        listing(item("a"), item("b"), item("a"))
    with pytest.raises(ValueError, match="names 'a', which is not in the test split"):
        listing(item("a"), full={"a": 0})
    with pytest.raises(ValueError, match="label of b is 8"):
        listing(item("b", "test"), full={"b": 8})
    with pytest.raises(ValueError, match="split 'val'"):
        item("a", "val")
    with pytest.raises(ValueError, match="label of a is -1"):
        item("a", label=-1)
    with pytest.raises(ValueError, match="sum to 1"):
        Item(key="a", picture=b"", split="test", label=0, votes=(0.5, 0, 0, 0, 0, 0, 0, 0))


def test_parts_by_hash_are_stable_and_of_their_size() -> None:
    keys = [f"happy/{number}.jpg" for number in range(5000)]
    halves = [train_or_validation(key) for key in keys]
    assert set(halves) == {"train", "validation"}
    assert halves.count("validation") == pytest.approx(500, abs=80)
    parts = [any_split(key) for key in keys]
    assert parts.count("validation") == pytest.approx(500, abs=80)
    assert parts.count("test") == pytest.approx(500, abs=80)
    # Written down: a change of the rule would move pictures of people's data between train and test.
    assert {key: any_split(key) for key in ("0.png", "1.png", "7.png")} == {
        "0.png": "validation", "1.png": "train", "7.png": "test",
    }  # fmt: skip
    assert [train_or_validation(key) for key in ("0.png", "1.png", "7.png")] == ["validation", "train", "train"]


def test_notes_count_and_show_the_first() -> None:
    notes = Notes()
    for row in (3, 17, 40, 41):
        notes.add("rows without a label", f"row {row}")
    notes.add("missing pictures", "a.png")
    assert notes.lines() == ["rows without a label: 4 (row 3, row 17, row 40, ...)", "missing pictures: 1 (a.png)"]


def test_votes_without_outliers_and_unknowns() -> None:
    assert vote_distribution([4, 0, 0, 1, 5, 0, 0, 0, 0, 0]) == (4 / 9, 0, 0, 0, 5 / 9, 0, 0, 0)
    assert vote_distribution([1] * 8 + [2, 0]) is None
    assert vote_distribution([0, 3, 0, 0, 0, 0, 0, 0, 7, 0]) == (0, 1, 0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="8 vote counts"):
        vote_distribution([1] * 8)


def test_majority_is_more_than_half_of_what_is_no_outlier() -> None:
    assert majority([6, 1, 1, 1, 0, 0, 0, 0, 1, 0]) == 0
    assert majority([0, 0, 0, 5, 5, 0, 0, 0, 0, 0]) is None
    assert majority([0, 0, 0, 5, 3, 0, 0, 0, 2, 0]) is None  # 5 of 10 are not more than half
    assert majority([0, 3, 0, 0, 0, 0, 0, 0, 7, 0]) == 8
    assert majority([0, 0, 0, 0, 0, 0, 0, 0, 0, 10]) == 9
    assert majority([1] * 10) is None


def test_expressions_by_name_and_number() -> None:
    assert [EXPRESSIONS[index] for index in RAF_DB_ORDER] == [
        "surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral",
    ]  # fmt: skip
    assert [EXPRESSIONS[index] for index in AFFECTNET_ORDER] == [
        "neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt",
    ]  # fmt: skip
    assert list(FERPLUS_ORDER) == list(range(8))
    for name, meant in {"Angry": "anger", "HAPPY": "happiness", "sad": "sadness", "fearful": "fear"}.items():
        assert expression_index(name) == EXPRESSIONS.index(meant)
    assert all(expression_index(name) == index for index, name in enumerate(EXPRESSIONS))
    assert expression_index("bored") is None


def test_auto_says_what_each_layout_needs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    for path, says in ((tmp_path, "no layout that is known"), (tmp_path / "gone", "does not exist")):
        with pytest.raises(DataError, match=says) as caught:
            read_listing(path)
        for name, need in {
            "ferplus-parquet": "ran_label", "fer2013-csv": "fer2013new.csv", "raf-db": "list_patition_label.txt",
            "affectnet": "val_set", "class-folders": "folders named after expressions", "kept-crops": "face_id",
        }.items():  # fmt: skip
            line = next(line for line in str(caught.value).splitlines() if line.startswith(f"  {name}: "))
            assert need in line
            assert name in LAYOUTS


def test_a_layout_by_name_and_labels_only_where_they_belong(tmp_path: Path) -> None:
    (tmp_path / "Happy").mkdir()
    cv2.imwrite(str(tmp_path / "Happy" / "a.png"), np.zeros((8, 8), np.uint8))
    assert len(read_listing(str(tmp_path), layout="class-folders").items) == 1
    with pytest.raises(DataError, match=r"list_patition_label\.txt is missing"):
        read_listing(tmp_path, layout="raf-db")
    with pytest.raises(DataError, match="layout is 'sfew': it must be auto or one of ferplus-parquet"):
        read_listing(tmp_path, layout="sfew")
    with pytest.raises(DataError, match=r"layout class-folders: only kept-crops takes labels"):
        read_listing(tmp_path, labels=tmp_path / "labels.csv")


def test_readers_import_neither_torch_nor_ray_nor_the_pipeline() -> None:
    code = "import sys, ran_model.datasets; print(sorted({'torch', 'ray', 'pipeline', 'jobs'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
