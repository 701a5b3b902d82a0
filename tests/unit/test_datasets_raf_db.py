"""RAF-DB as its authors give it out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ran_model.datasets import DataError, read_listing
from ran_model.labels import EXPRESSIONS


def write_raf_db(folder: Path, lines: list[str], missing: tuple[str, ...] = ()) -> Path:
    (folder / "EmoLabel").mkdir(exist_ok=True)
    (folder / "Image" / "aligned").mkdir(parents=True, exist_ok=True)
    (folder / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    for line in lines:
        name = line.split(".")[0]
        if name not in missing:
            cv2.imwrite(str(folder / "Image" / "aligned" / f"{name}_aligned.jpg"), np.zeros((10, 10, 3), np.uint8))
    return folder


def test_labels_parts_and_pictures(tmp_path: Path) -> None:
    lines = [f"train_{number:05}.jpg {number % 7 + 1}" for number in range(1, 101)]
    listing = read_listing(write_raf_db(tmp_path, [*lines, "test_0001.jpg 1", "test_0002.jpg 7"]))
    assert listing.name == "raf-db"
    assert listing.notes == []
    labels = {item.key: EXPRESSIONS[item.label] for item in listing.items}
    assert [labels[f"train_{number:05}.jpg"] for number in (7, 1, 2, 3, 4, 5, 6)] == [
        "surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral",
    ]  # fmt: skip
    assert listing.classes == tuple(name for name in EXPRESSIONS if name != "contempt")
    assert listing.lists == {"full": {"test_0001.jpg": 2, "test_0002.jpg": 0}}
    assert [item.key for item in listing.of("test")] == ["test_0001.jpg", "test_0002.jpg"]
    assert 3 <= len(listing.of("validation")) <= 20
    assert len(listing.of("train")) + len(listing.of("validation")) == 100
    for item in listing.items:
        assert isinstance(item.picture, Path)
        assert cv2.imread(str(item.picture)).shape == (10, 10, 3)


def test_more_pictures_do_not_move_others(tmp_path: Path) -> None:
    lines = [f"train_{number:05}.jpg 4" for number in range(60)]
    few = {item.key: item.split for item in read_listing(write_raf_db(tmp_path, lines[::2])).items}
    many = {item.key: item.split for item in read_listing(write_raf_db(tmp_path, lines[::-1])).items}
    assert len(many) == 60
    assert {key: many[key] for key in few} == few
    assert set(few.values()) == {"train", "validation"}


def test_missing_and_repeated_pictures_are_noted(tmp_path: Path) -> None:
    lines = ["train_00001.jpg 4", "train_00002.jpg 4", "train_00001.jpg 5", "test_0001.jpg 4"]
    listing = read_listing(write_raf_db(tmp_path, lines, missing=("train_00002",)))
    assert [item.key for item in listing.items] == ["train_00001.jpg", "test_0001.jpg"]
    assert listing.items[0].label == EXPRESSIONS.index("happiness")
    assert listing.notes == [
        "pictures that are missing: 1 (train_00002_aligned.jpg)",
        "lines that repeat a picture, of which the first counts: 1 (train_00001.jpg in line 3)",
    ]


def test_the_authors_lists_keep_their_own_labels(tmp_path: Path) -> None:
    write_raf_db(tmp_path, ["train_00001.jpg 4", "test_0003.jpg 4", "test_0004.jpg 1"])
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "rafdb_occlusion_list.txt").write_text("test_0003_aligned 6 4\ntest_0003_aligned 6 4\n")
    (tmp_path / "lists" / "val_raf_db_list_45.txt").write_text("0/test_0004_aligned.jpg\n")
    (tmp_path / "lists" / "val_raf_db_label_45.txt").write_text("1 7\n0\n")
    listing = read_listing(tmp_path)
    assert listing.lists == {
        "full": {"test_0003.jpg": 1, "test_0004.jpg": 2},
        "occlusion": {"test_0003.jpg": 0},
        "pose45": {"test_0004.jpg": 2},
    }
    assert listing.notes == [
        "lines of rafdb_occlusion_list.txt that repeat a name with the same label: 1 (test_0003 in line 2)",
        "names in rafdb_occlusion_list.txt with another label there than in this data set: 1 (test_0003)",
    ]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    for line in ("train_00003.jpg 8", "train_00003.jpg", "dev_00003.jpg 1"):
        write_raf_db(tmp_path, ["train_00001.jpg 4", "", line])
        with pytest.raises(DataError, match=r"list_patition_label\.txt, line 3: .* labels 1 to 7"):
            read_listing(tmp_path)
    write_raf_db(tmp_path, ["train_00009.jpg 4"], missing=("train_00009",))
    with pytest.raises(DataError, match=r"Image/aligned has none of the pictures"):
        read_listing(tmp_path)
    labels = tmp_path / "EmoLabel" / "list_patition_label.txt"
    labels.write_bytes(b"train_\xe9.jpg 4\n")
    with pytest.raises(DataError, match=r"list_patition_label\.txt must be text in UTF-8"):
        read_listing(tmp_path)
    labels.write_text("\n")
    with pytest.raises(DataError, match=r"list_patition_label\.txt is empty: it must have lines such as"):
        read_listing(tmp_path)
