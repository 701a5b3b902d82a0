"""The RAN authors' lists as their repository has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ran_model.datasets import DataError, Item
from ran_model.datasets.author_files import read_author_lists
from ran_model.datasets.author_lists import AFFECTNET, FERPLUS, RAF_DB, LineFormat, ListFormat, parse_list
from ran_model.datasets.notes import Notes
from ran_model.labels import EXPRESSIONS

HASH, OTHER = "bc9ad400db82eca1882b11c9603348fb3e92f5b0d67391ac22a1bc79", "0" * 56
NEUTRAL, HAPPY, SURPRISE, ANGER, DISGUST, CONTEMPT = map(
    EXPRESSIONS.index, ("neutral", "happiness", "surprise", "anger", "disgust", "contempt")
)


@pytest.mark.parametrize(
    ("format_", "lines", "text", "expected"),
    [
        (FERPLUS, FERPLUS.occlusion, "1_fer0034656.png 8 0\n7_fer0032220.png 8 3\n",
         {"fer0034656": HAPPY, "fer0032220": CONTEMPT}),
        (FERPLUS, FERPLUS.pose, "0/fer0032226.jpg\n5/fer0035497.jpg\n", {"fer0032226": NEUTRAL, "fer0035497": DISGUST}),
        (RAF_DB, RAF_DB.occlusion, "test_0003_aligned 3 4\r\ntest_0008_aligned 0 4\r\n",
         {"test_0003": HAPPY, "test_0008": SURPRISE}),
        (RAF_DB, RAF_DB.pose, "0/test_0004_aligned.jpg\n6/test_2389_aligned.jpg",
         {"test_0004": SURPRISE, "test_2389": NEUTRAL}),
        (AFFECTNET, AFFECTNET.occlusion, f"val/6/{HASH}/\n", {HASH: ANGER}),
        (AFFECTNET, AFFECTNET.pose, f"3/{HASH}.jpg\n7/{OTHER}/8.jpg\n", {HASH: SURPRISE, OTHER: CONTEMPT}),
    ],
)  # fmt: skip
def test_each_format(
    tmp_path: Path, format_: ListFormat, lines: LineFormat, text: str, expected: dict[str, int]
) -> None:
    path = tmp_path / "a_list.txt"
    path.write_bytes(text.encode())
    notes = Notes()
    assert parse_list(path, lines, format_.order, notes) == expected
    assert notes.lines() == []


def test_repeated_lines_are_noted_and_count_once(tmp_path: Path) -> None:
    path = tmp_path / "rafdb_occlusion_list.txt"
    path.write_text("test_2464_aligned 6 2\ntest_2464_aligned 6 2\n\ntest_2464_aligned 3 2\n")
    notes = Notes()
    assert parse_list(path, RAF_DB.occlusion, RAF_DB.order, notes) == {"test_2464": NEUTRAL}
    start = "lines of rafdb_occlusion_list.txt that repeat a name with"
    assert notes.lines() == [
        f"{start} the same label: 1 (test_2464 in line 2)",
        f"{start} another label, the first of them counts: 1 (test_2464 in line 4)",
    ]


@pytest.mark.parametrize(
    ("format_", "lines", "good", "bad"),
    [
        (FERPLUS, FERPLUS.occlusion, "1_fer0034656.png 8 0", "1_fer0034656.png"),
        (FERPLUS, FERPLUS.pose, "0/fer0032226.jpg", "fer0032226.jpg"),
        (RAF_DB, RAF_DB.occlusion, "test_0003_aligned 3 4", "train_00003_aligned 3 4"),
        (RAF_DB, RAF_DB.pose, "0/test_0004_aligned.jpg", "0/test_0004.jpg"),
        (AFFECTNET, AFFECTNET.occlusion, f"val/0/{HASH}/", f"0/{HASH}.jpg"),
        (AFFECTNET, AFFECTNET.pose, f"0/{HASH}.jpg", f"0/{HASH}"),
    ],
)
def test_a_line_that_does_not_parse_is_named(
    tmp_path: Path, format_: ListFormat, lines: LineFormat, good: str, bad: str
) -> None:
    path = tmp_path / "a_list.txt"
    path.write_text(f"{good}\n\n{bad}\n")
    with pytest.raises(DataError, match=r"a_list\.txt, line 3: .* does not look like"):
        parse_list(path, lines, format_.order, Notes())


def test_a_label_that_the_data_set_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a_list.txt"
    path.write_text("7/test_0004_aligned.jpg\n")
    with pytest.raises(DataError, match="line 1: label 7 must be 0 to 6"):
        parse_list(path, RAF_DB.pose, RAF_DB.order, Notes())


class TestLabelFile:
    """RAF-DB's pose lists come as a file of names and a file of labels."""

    def parse(self, folder: Path, names: str, labels: str | None) -> dict[str, int]:
        (folder / "val_raf_db_list_45.txt").write_text(names)
        if labels is not None:
            (folder / "val_raf_db_label_45.txt").write_text(labels)
        return parse_list(folder / "val_raf_db_list_45.txt", RAF_DB.pose, RAF_DB.order, Notes())

    def test_gives_the_labels(self, tmp_path: Path) -> None:
        names = "test_0004_aligned.jpg\ntest_0006_aligned.jpg\n"
        assert self.parse(tmp_path, names, "2 7\n0\n6\n") == {"test_0004": SURPRISE, "test_0006": NEUTRAL}

    def test_must_agree_with_the_names(self, tmp_path: Path) -> None:
        assert self.parse(tmp_path, "0/test_0004_aligned.jpg\n", "1 7\n0\n") == {"test_0004": SURPRISE}
        with pytest.raises(DataError, match=r"line 1: .* but .*val_raf_db_label_45\.txt has label 3 for it"):
            self.parse(tmp_path, "0/test_0004_aligned.jpg\n", "1 7\n3\n")

    def test_that_is_wrong_is_named(self, tmp_path: Path) -> None:
        names = "0/test_0004_aligned.jpg\n"
        with pytest.raises(DataError, match=r"label_45\.txt, line 1: '0' must be the number of labels"):
            self.parse(tmp_path, names, "0\n")
        with pytest.raises(DataError, match=r"label_45\.txt has 1 labels, but its first line says 2"):
            self.parse(tmp_path, names, "2 7\n0\n")
        with pytest.raises(DataError, match=r"label_45\.txt has 2 labels for the 1 lines"):
            self.parse(tmp_path, names, "2 7\n0\n0\n")
        with pytest.raises(DataError, match=r"label_45\.txt, line 2: 'happy' is not a label"):
            self.parse(tmp_path, names, "1 7\nhappy\n")

    def test_is_needed_for_names_without_labels(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"has no label, and .*val_raf_db_label_45\.txt is missing"):
            self.parse(tmp_path, "test_0004_aligned.jpg\n", None)


def test_lists_are_found_and_joined(tmp_path: Path) -> None:
    authors = tmp_path / "lists" / "RAF_DB_dir"
    authors.mkdir(parents=True)
    (authors / "rafdb_occlusion_list.txt").write_text("test_0001_aligned 3 4\ntest_0009_aligned 3 4\n")
    (authors / "val_raf_db_list.txt").write_text("0/test_0001_aligned.jpg\n4/test_0002_aligned.jpg\n")
    (authors / "val_raf_db_label.txt").write_text("2 7\n0\n4\n")
    (tmp_path / "my_pose_45_list.txt").write_text("5/test_0009_aligned.jpg\n")
    (tmp_path / "my_pose_45_label.txt").write_text("1 7\n5\n")
    other = tmp_path / "lists" / "FERplus_dir"  # the authors' repository holds the other data sets' lists too
    other.mkdir()
    (other / "jianfei_occlusion_list.txt").write_text("1_fer0034656.png 8 0\n")
    notes = Notes()
    keys = {"test_0001": "test_0001.jpg", "test_0002": "test_0002.jpg"}
    items = {
        key: Item(key=key, picture=b"", split="test", label=label)
        for key, label in (("test_0001.jpg", HAPPY), ("test_0002.jpg", EXPRESSIONS.index("sadness")))
    }
    assert read_author_lists(tmp_path, RAF_DB, keys, items, notes) == {
        "occlusion": {"test_0001.jpg": HAPPY},
        "pose30": {"test_0001.jpg": SURPRISE, "test_0002.jpg": EXPRESSIONS.index("sadness")},
    }  # no picture of the pose45 list is there
    assert notes.lines() == [
        "names in rafdb_occlusion_list.txt that are no test picture of this data set: 1 (test_0009)",
        "names in val_raf_db_list.txt with another label there than in this data set: 1 (test_0001)",
        "names in my_pose_45_list.txt that are no test picture of this data set: 1 (test_0009)",
        "lists that name no test picture of this data set, left out: 1 (my_pose_45_list.txt)",
    ]


def test_an_empty_list_is_told(tmp_path: Path) -> None:
    (tmp_path / "rafdb_occlusion_list.txt").write_text("\n")
    notes = Notes()
    assert read_author_lists(tmp_path, RAF_DB, {}, {}, notes) == {}
    assert notes.lines() == ["lists that name no test picture of this data set, left out: 1 (rafdb_occlusion_list.txt)"]


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rafdb_occlusion_list.txt"
    path.write_bytes(b"test_\xe9_aligned 3 4\n")
    with pytest.raises(DataError, match=r"rafdb_occlusion_list\.txt must be text in UTF-8"):
        parse_list(path, RAF_DB.occlusion, RAF_DB.order, Notes())


def test_two_files_for_one_list_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    for path in (tmp_path / "occlusion.txt", tmp_path / "lists" / "rafdb_occlusion_list.txt"):
        path.write_text("test_0001_aligned 3 4\n")
    with pytest.raises(DataError, match=r"occlusion\.txt and .*rafdb_occlusion_list\.txt may both be the list"):
        read_author_lists(tmp_path, RAF_DB, {}, {}, Notes())
