"""AffectNet in its newer and its older form."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ran_model.datasets import DataError, read_listing
from ran_model.datasets.affectnet import HEADER
from ran_model.labels import EXPRESSIONS

ORDER = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
HASHES = [f"{number:056x}" for number in range(12)]


def write_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))


def write_newer(folder: Path, part: str, labels: dict[str, object]) -> Path:
    (folder / part / "annotations").mkdir(parents=True, exist_ok=True)
    for name, label in labels.items():
        write_picture(folder / part / "images" / f"{name}.jpg")
        if label is not None:
            np.save(folder / part / "annotations" / f"{name}_exp.npy", np.array(label))
            np.save(folder / part / "annotations" / f"{name}_val.npy", np.array(0.5))
    return folder


def write_older(folder: Path, table: str, rows: list[tuple[str, str]], header: bool = True) -> Path:
    lines = [",".join(HEADER)] if header else []
    for key, expression in rows:
        write_picture(folder / "Manually_Annotated_Images" / key)
        lines.append(f"{key},0,0,8,8,1.0;2.0,{expression},0.1,-0.2")
    (folder / table).write_text("\n".join(lines) + "\n")
    return folder


def test_newer_form_has_every_expression(tmp_path: Path) -> None:
    write_newer(tmp_path, "train_set", {str(number): str(number % 8) for number in range(80)})  # text, as given out
    listing = read_listing(write_newer(tmp_path, "val_set", {str(number): number for number in range(8)}))
    assert listing.name == "affectnet"
    test = {item.key: EXPRESSIONS[item.label] for item in listing.of("test")}
    assert test == {f"val_set/images/{number}.jpg": name for number, name in enumerate(ORDER)}
    assert listing.lists == {"full": {key: EXPRESSIONS.index(name) for key, name in test.items()}}
    train = listing.of("train") + listing.of("validation")
    assert len(train) == 80
    assert all(EXPRESSIONS[item.label] == ORDER[int(Path(item.key).stem) % 8] for item in train)
    assert 2 <= len(listing.of("validation")) <= 20
    assert all(isinstance(item.picture, Path) and item.picture.is_file() for item in listing.items)
    assert listing.notes == []


def test_newer_form_notes_what_is_left_out(tmp_path: Path) -> None:
    write_newer(tmp_path, "train_set", {"0": 1, "1": 8, "2": 10, "3": None, "4": 2})
    (tmp_path / "train_set" / "images" / "4.jpg").unlink()
    listing = read_listing(write_newer(tmp_path, "val_set", {"0": 3}))
    assert [item.key for item in listing.items] == ["train_set/images/0.jpg", "val_set/images/0.jpg"]
    assert listing.notes == [
        "pictures of train_set labelled none, which is no expression: 1 (train_set/images/1.jpg)",
        "pictures of train_set labelled no face, which is no expression: 1 (train_set/images/2.jpg)",
        "pictures of train_set that are missing: 1 (train_set/images/4.jpg)",
        "pictures of train_set without a label: 1 (3.jpg)",
    ]


def test_newer_form_that_is_wrong_is_named(tmp_path: Path) -> None:
    write_newer(tmp_path, "train_set", {"0": 1})
    with pytest.raises(DataError, match="val_set/images is missing: AffectNet is a folder with train_set/"):
        read_listing(tmp_path)
    write_newer(tmp_path, "val_set", {"0": 9})
    with pytest.raises(DataError, match="val_set gives no picture with an expression"):
        read_listing(tmp_path)
    write_newer(tmp_path, "val_set", {"0": [1, 2]})
    with pytest.raises(DataError, match=r"val_set/annotations/0_exp\.npy must hold one whole number"):
        read_listing(tmp_path)


def test_older_form_with_the_authors_lists(tmp_path: Path) -> None:
    write_older(tmp_path, "training.csv", [(f"1/{name}.jpg", "6") for name in HASHES[:8]])
    write_older(tmp_path, "validation.csv", [(f"7/{name}.jpg", "2") for name in HASHES[8:]])
    (tmp_path / "occlusion_affectnet_list.txt").write_text(f"val/7/{HASHES[8]}/\nval/0/{HASHES[0]}/\n")
    (tmp_path / "pose_30_affectnet_list.txt").write_text(f"2/{HASHES[9]}.jpg\n2/{HASHES[9]}.jpg\n")
    (tmp_path / "pose_45_affectnet_list.txt").write_text(f"2/{HASHES[10]}/8.jpg\n")
    listing = read_listing(tmp_path)
    sadness, contempt = EXPRESSIONS.index("sadness"), EXPRESSIONS.index("contempt")
    assert listing.lists == {
        "full": {f"7/{name}.jpg": sadness for name in HASHES[8:]},
        "occlusion": {f"7/{HASHES[8]}.jpg": contempt},
        "pose30": {f"7/{HASHES[9]}.jpg": sadness},
        "pose45": {f"7/{HASHES[10]}.jpg": sadness},
    }
    train = listing.of("train") + listing.of("validation")
    assert {item.label for item in train} == {EXPRESSIONS.index("anger")}
    assert len(train) == 8
    assert all(isinstance(item.picture, Path) and item.picture.is_file() for item in listing.items)
    assert listing.notes == [
        f"names in occlusion_affectnet_list.txt with another label there than in this data set: 1 ({HASHES[8]})",
        f"names in occlusion_affectnet_list.txt that are no test picture of this data set: 1 ({HASHES[0]})",
        f"lines of pose_30_affectnet_list.txt that repeat a name with the same label: 1 ({HASHES[9]} in line 2)",
    ]


def test_older_form_without_first_lines_and_what_is_left_out(tmp_path: Path) -> None:
    rows = [("1/a.jpg", "1"), ("1/b.jpg", "9"), ("1/a.jpg", "1"), ("1/c.jpg", "3")]
    write_older(tmp_path, "training.csv", rows, header=False)
    (tmp_path / "Manually_Annotated_Images" / "1" / "c.jpg").unlink()
    listing = read_listing(write_older(tmp_path, "validation.csv", [("2/d.jpg", "0"), ("2/e.jpg", "7")], header=False))
    assert [item.key for item in listing.items] == ["1/a.jpg", "2/d.jpg", "2/e.jpg"]
    assert listing.notes == [
        "pictures of training.csv labelled uncertain, which is no expression: 1 (1/b.jpg)",
        "rows of training.csv that repeat a picture, of which the first counts: 1 (1/a.jpg)",
        "pictures of training.csv that are missing: 1 (1/c.jpg)",
    ]


def test_older_form_that_is_wrong_is_named(tmp_path: Path) -> None:
    write_older(tmp_path, "training.csv", [("1/a.jpg", "1"), ("1/b.jpg", "happy")])
    write_older(tmp_path, "validation.csv", [("2/d.jpg", "0")])
    with pytest.raises(DataError, match=r"training\.csv, line 3: expression is 'happy', not a whole number"):
        read_listing(tmp_path)
    (tmp_path / "training.csv").write_text("subDirectory_filePath,label\n1/a.jpg,1\n")
    with pytest.raises(DataError, match=r"training\.csv has no column expression: it has subDirectory_filePath, label"):
        read_listing(tmp_path)
    (tmp_path / "training.csv").write_text("subDirectory_filePath,expression\n1/a.jpg\n")
    with pytest.raises(DataError, match=r"training\.csv, line 2: 1 fields, where the columns are"):
        read_listing(tmp_path)
    (tmp_path / "training.csv").unlink()
    with pytest.raises(DataError, match=r"training\.csv is missing: it must be a CSV file with the columns"):
        read_listing(tmp_path)


@pytest.mark.parametrize("label", [float("inf"), 3.5, "happy", [1, 2], {"a": 1}])
def test_an_annotation_that_is_no_whole_number_is_named(tmp_path: Path, label: object) -> None:
    write_newer(tmp_path, "train_set", {"0": 1})
    np.save(tmp_path / "train_set" / "annotations" / "0_exp.npy", np.array(label), allow_pickle=True)
    with pytest.raises(DataError, match=r"train_set/annotations/0_exp\.npy must hold one whole number"):
        read_listing(tmp_path)


def test_other_files_beside_the_pictures_are_no_pictures(tmp_path: Path) -> None:
    for part in ("train_set", "val_set"):
        write_newer(tmp_path, part, {"0": 1})
        for name in ("0.txt", ".DS_Store"):
            (tmp_path / part / "images" / name).write_text("no picture")
    listing = read_listing(tmp_path)
    assert [item.key for item in listing.of("test")] == ["val_set/images/0.jpg"]
    assert listing.notes == []


def test_a_part_without_its_pictures_says_which_are_missing(tmp_path: Path) -> None:
    write_older(tmp_path, "training.csv", [("a/0.jpg", "1")])
    (tmp_path / "Manually_Annotated_Images" / "a" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"\(pictures of training\.csv that are missing: 1 \(a/0\.jpg\)\)"):
        read_listing(tmp_path)
