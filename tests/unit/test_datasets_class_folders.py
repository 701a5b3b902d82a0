"""Folders of classes: SFEW and others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ran_model.datasets import DataError, read_listing
from ran_model.datasets.class_folders import DRAWN, DRAWN_VALIDATION
from ran_model.labels import EXPRESSIONS

SFEW = {"Angry": "anger", "Disgust": "disgust", "Fear": "fear", "Happy": "happiness", "Neutral": "neutral",
        "Sad": "sadness", "Surprise": "surprise"}  # fmt: skip


def write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((8, 8, 3), np.uint8))


def splits(folder: Path) -> dict[str, str]:
    return {item.key: item.split for item in read_listing(folder).items}


def test_sfew_reports_on_val_and_holds_validation_out_of_train(tmp_path: Path) -> None:
    folder = tmp_path / "SFEW"
    for name in SFEW:
        write_pictures(folder, *(f"Train/{name}/{number}.png" for number in range(12)), f"Val/{name}/a.png")
    write_pictures(folder, "Test/unlabelled.png")
    listing = read_listing(folder)
    assert listing.name == "SFEW"
    assert listing.classes == tuple(name for name in EXPRESSIONS if name != "contempt")
    expected = {f"Val/{name}/a.png": EXPRESSIONS.index(meant) for name, meant in SFEW.items()}
    assert listing.lists == {"full": expected}
    assert {item.key for item in listing.of("test")} == set(expected)
    assert len(listing.of("train")) + len(listing.of("validation")) == 84
    assert 1 <= len(listing.of("validation")) <= 20
    assert listing.told == [
        "pictures outside class folders: 1 (Test/unlabelled.png)",
        "validation folders that are test here, as no test folder has labels: 1 (Val)",
        DRAWN_VALIDATION,
    ]


def test_sfews_faces_are_preferred_over_its_frames(tmp_path: Path) -> None:
    for name in SFEW:
        write_pictures(tmp_path, *(f"Train_Aligned_Faces/{name}/{number}.png" for number in range(12)))
        write_pictures(tmp_path, f"Val_Aligned_Faces_new/{name}/a.png", f"Train/{name}/0.png", f"Val/{name}/a.png")
    write_pictures(tmp_path, "Test_Aligned_Faces/unlabelled.png")
    listing = read_listing(tmp_path)
    assert {item.key.split("/")[0] for item in listing.of("test")} == {"Val_Aligned_Faces_new"}
    assert {item.key.split("/")[0] for item in listing.items} == {"Train_Aligned_Faces", "Val_Aligned_Faces_new"}
    assert len(listing.of("train")) + len(listing.of("validation")) == 84
    assert "folders of whole frames, whose faces are there cut out: 2 (Train, Val)" in listing.told


def test_three_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    write_pictures(tmp_path, "train/happy/a.jpg", "valid/SADNESS/b.jpeg", "test/fearful/c.PNG", "test/contempt/d.bmp")
    listing = read_listing(tmp_path)
    assert {item.key: (item.split, EXPRESSIONS[item.label]) for item in listing.items} == {
        "train/happy/a.jpg": ("train", "happiness"),
        "valid/SADNESS/b.jpeg": ("validation", "sadness"),
        "test/fearful/c.PNG": ("test", "fear"),
        "test/contempt/d.bmp": ("test", "contempt"),
    }
    assert listing.told == []
    assert all(isinstance(item.picture, Path) and item.picture.is_file() for item in listing.items)


def test_train_and_test_hold_validation_out_of_train(tmp_path: Path) -> None:
    write_pictures(tmp_path, *(f"Train/happy/{number}.png" for number in range(60)), "Test/happy/a.png")
    parts = splits(tmp_path)
    assert parts.pop("Test/happy/a.png") == "test"
    assert set(parts.values()) == {"train", "validation"}


def test_parts_that_are_drawn_picture_by_picture_are_said_to_be(tmp_path: Path) -> None:
    for folder, parts, notes in (
        ("none", ("",), [DRAWN]),
        ("train alone", ("train/",), [DRAWN]),
        ("train and test", ("train/", "test/"), [DRAWN_VALIDATION]),
        ("test alone", ("test/",), []),
        ("all", ("train/", "val/", "test/"), []),
    ):
        write_pictures(tmp_path / folder, *(f"{part}happy/{number}.png" for part in parts for number in range(3)))
        assert read_listing(tmp_path / folder).told == notes
    assert "pictures of one person or clip may be in several; give train/, val/, test/" in DRAWN


def test_without_parts_more_files_do_not_move_others(tmp_path: Path) -> None:
    names = [f"{folder}/{number}.png" for folder in ("angry", "Joy", "neutral") for number in range(40)]
    write_pictures(tmp_path, *names[::3])
    few = splits(tmp_path)
    write_pictures(tmp_path, *names)
    many = splits(tmp_path)
    assert len(many) == 120
    assert {key: many[key] for key in few} == few
    assert set(few.values()) == {"train", "validation", "test"}
    assert list(many.values()).count("train") > 80


def test_other_files_and_folders_are_noted(tmp_path: Path) -> None:
    write_pictures(tmp_path, "train/happy/a.png", "train/happy/deeper/b.png", "test/sad/c.png", "masks/m.png")
    for name in ("train/happy/readme.txt", "train/list.csv"):
        (tmp_path / name).write_text("text")
    (tmp_path / "train" / ".cache").mkdir()
    listing = read_listing(tmp_path)
    assert {item.key for item in listing.items} == {"train/happy/a.png", "train/happy/deeper/b.png", "test/sad/c.png"}
    assert listing.told == [
        "folders beside train, val and test: 1 (masks)",
        "files that are no pictures: 2 (train/list.csv, train/happy/readme.txt)",
        DRAWN_VALIDATION,
    ]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, "train/happy/a.png", "train/bored/b.png")
    with pytest.raises(DataError, match=r"train/bored is no known expression: .* anger \(angry\)"):
        read_listing(tmp_path)
    (tmp_path / "empty" / "happy").mkdir(parents=True)
    with pytest.raises(DataError, match="has no pictures in class folders"):
        read_listing(tmp_path / "empty")
    with pytest.raises(DataError, match="does not exist"):
        read_listing(tmp_path / "gone", layout="class-folders")


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, "Train_Aligned_Faces/Sad/0.png")
    for name in ("Val_Aligned_Faces", "Val_Aligned_Faces_new"):
        write_pictures(tmp_path, f"{name}/Sad/a.png")
    with pytest.raises(DataError, match=r"Val_Aligned_Faces and .*Val_Aligned_Faces_new may both be the part"):
        read_listing(tmp_path)


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path, "train/sad/a.png", "val/sad/b.png", "test/sad/c.png", "test/sad/._c.png")
    listing = read_listing(tmp_path)
    assert [item.key for item in listing.of("test")] == ["test/sad/c.png"]
    assert "files that are no pictures: 1 (test/sad/._c.png)" in listing.told
