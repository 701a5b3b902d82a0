"""FERPlus from one Parquet file and from its two CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ran_model.datasets import DataError, read_listing
from ran_model.datasets.votes import VOTE_COLUMNS
from ran_model.labels import EXPRESSIONS

FERPLUS = Path(__file__).parents[3] / "shared" / "data" / "ferplus.parquet"
HAPPY, ANGRY, SCATTERED = [0, 9, 0, 0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 8, 2, 0, 0, 0, 0], [1] * 10
UNKNOWN, EVEN = [0, 3, 0, 0, 0, 0, 0, 0, 7, 0], [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]


def write_table(path: Path, **changes: Any) -> Path:
    _, encoded = cv2.imencode(".webp", np.full((48, 48), 7, np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])
    columns = {
        "name": ["fer0", "fer1", None, "fer3", "fer4"],
        "usage": ["Training", "PublicTest", "Training", "PrivateTest", "PrivateTest"],
        "image": [encoded.tobytes()] * 5,
        "votes": [HAPPY, ANGRY, HAPPY, SCATTERED, ANGRY],
        "ran_label": [1, 4, None, 3, 4],
        "occlusion_label": pa.array([None, None, None, None, 5], pa.int8()),
        "pose30_label": pa.array([None] * 5, pa.int8()),
        "pose45_label": pa.array([None, None, None, 2, None], pa.int8()),
    } | changes
    pq.write_table(pa.table({name: values for name, values in columns.items() if values is not None}), path)
    return path


def test_parquet_rows_of_the_lists_with_votes_and_pictures(tmp_path: Path) -> None:
    listing = read_listing(write_table(tmp_path / "ferplus.parquet"))
    assert listing.name == "ferplus"
    assert {item.key: (item.split, item.label) for item in listing.items} == {
        "fer0": ("train", 1), "fer1": ("validation", 4), "fer3": ("test", 3), "fer4": ("test", 4),
    }  # fmt: skip
    assert listing.lists == {"full": {"fer3": 3, "fer4": 4}, "occlusion": {"fer4": 5}, "pose45": {"fer3": 2}}
    assert [item.votes for item in listing.items] == [
        (0, 1, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0.8, 0.2, 0, 0), None, (0, 0, 0, 0, 0.8, 0.2, 0, 0),
    ]  # fmt: skip
    picture = listing.items[0].picture
    assert isinstance(picture, bytes)
    assert (cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE) == 7).all()
    assert listing.notes == ["rows that are not in the authors' lists: 1 (row 2 without a name)"]


def test_parquet_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ferplus.parquet"
    with pytest.raises(DataError, match="is no file: it must be a Parquet file"):
        read_listing(path.parent, layout="ferplus-parquet")
    with pytest.raises(DataError, match="no column votes, pose30_label: it must be"):
        read_listing(write_table(path, votes=None, pose30_label=None))
    with pytest.raises(DataError, match="picture fer1: votes must be ten counts"):
        read_listing(write_table(path, votes=[HAPPY, [1, 2], HAPPY, HAPPY, HAPPY]))
    with pytest.raises(DataError, match="picture fer1: votes must be ten counts"):
        read_listing(write_table(path, votes=[HAPPY, [-1, *HAPPY[1:]], HAPPY, HAPPY, HAPPY]))
    with pytest.raises(DataError, match="picture fer4: ran_label is 8: it must be a whole number, 0 to 7"):
        read_listing(write_table(path, ran_label=[1, 4, None, 3, 8]))
    with pytest.raises(DataError, match=r"picture fer0: .* as usage one of Training, PublicTest, PrivateTest"):
        read_listing(write_table(path, usage=["train"] * 5))
    path.write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="is no Parquet file"):
        read_listing(path)


@pytest.mark.skipif(not FERPLUS.exists(), reason="../shared/data has no FER+")
def test_the_shared_table_has_the_known_counts() -> None:
    listing = read_listing(FERPLUS)
    assert [len(listing.of(split)) for split in ("train", "validation", "test")] == [25_045, 3_191, 3_137]
    assert {name: len(labels) for name, labels in listing.lists.items()} == {
        "full": 3_137, "occlusion": 605, "pose30": 1_170, "pose45": 633,
    }  # fmt: skip
    assert listing.classes == EXPRESSIONS
    assert listing.notes[0].startswith("rows that are not in the authors' lists: 4514 (")


def write_csv(folder: Path, rows: list[tuple[str, str, list[int]]], pixels: str | None = None) -> Path:
    """Rows of usage, image name and votes."""
    pictures, votes = ["emotion,pixels,Usage"], [f"Usage,Image name,{','.join(VOTE_COLUMNS)}"]
    for position, (usage, name, counts) in enumerate(rows):
        grey = pixels or " ".join(str((position + offset) % 256) for offset in range(48 * 48))
        pictures.append(f"3,{grey},{usage}")
        votes.append(f"{usage},{name},{','.join(map(str, counts))}")
    (folder / "fer2013.csv").write_text("\n".join(pictures) + "\n")
    (folder / "fer2013new.csv").write_text("\n".join(votes) + "\n")
    return folder


ROWS = [
    ("Training", "fer0000000.png", HAPPY),
    ("Training", "", HAPPY),
    ("Training", "fer0000002.png", UNKNOWN),
    ("PublicTest", "fer0000003.png", ANGRY),
    ("PublicTest", "fer0000004.png", EVEN),
    ("PrivateTest", "fer0000005.png", ANGRY),
    ("PrivateTest", "fer0000006.png", HAPPY),
    ("PrivateTest", "fer0000005.png", HAPPY),
]


def test_csv_majority_labels_and_what_is_left_out(tmp_path: Path) -> None:
    listing = read_listing(write_csv(tmp_path, ROWS))
    assert {item.key: (item.split, item.label) for item in listing.items} == {
        "fer0000000": ("train", 1), "fer0000003": ("validation", 4),
        "fer0000005": ("test", 4), "fer0000006": ("test", 1),
    }  # fmt: skip
    assert listing.lists == {"full": {"fer0000005": 4, "fer0000006": 1}}
    assert listing.of("validation")[0].votes == (0, 0, 0, 0, 0.8, 0.2, 0, 0)
    assert listing.notes == [
        "rows without an image name, which FERPlus does not use: 1 (fer2013new.csv line 3)",
        "pictures whose majority is unknown or not-a-face: 1 (fer0000002)",
        "pictures without a majority of the votes: 1 (fer0000004)",
        "rows that repeat an image name, of which the first counts: 1 (fer0000005 in fer2013new.csv line 9)",
    ]


def test_csv_pixels_become_the_same_picture(tmp_path: Path) -> None:
    picture = read_listing(write_csv(tmp_path, ROWS)).of("validation")[0].picture
    assert isinstance(picture, bytes)
    assert picture.startswith(b"\x89PNG")
    grey = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(grey, ((np.arange(48 * 48) + 3) % 256).reshape(48, 48))


def test_csv_takes_the_authors_lists_beside_it(tmp_path: Path) -> None:
    write_csv(tmp_path, ROWS)
    (tmp_path / "FERplus_dir").mkdir()
    (tmp_path / "FERplus_dir" / "jianfei_occlusion_list.txt").write_text("6_fer0000005.png 8 0\n1_fer0000000.png 8 3\n")
    (tmp_path / "pose_30_ferplus_list.txt").write_text("4/fer0000005.jpg\n1/fer0000006.jpg\n")
    listing = read_listing(tmp_path)
    assert listing.lists == {
        "full": {"fer0000005": 4, "fer0000006": 1},
        "occlusion": {"fer0000005": 6},  # the list's own label
        "pose30": {"fer0000005": 4, "fer0000006": 1},
    }
    reason = "names in jianfei_occlusion_list.txt that are no test picture of this data set"
    assert f"{reason}: 1 (fer0000000)" in listing.notes  # a training picture


def test_csv_that_is_wrong_is_named_with_its_line(tmp_path: Path) -> None:
    write_csv(tmp_path, ROWS[:2], pixels="1 2 3")
    with pytest.raises(DataError, match=r"fer2013\.csv, line 2: 3 pixels, where 48×48 make 2304"):
        read_listing(tmp_path)
    write_csv(tmp_path, ROWS[:2], pixels="1 256")
    with pytest.raises(DataError, match=r"fer2013\.csv, line 2: pixels must be numbers from 0 to 255"):
        read_listing(tmp_path)
    write_csv(tmp_path, ROWS)
    votes = tmp_path / "fer2013new.csv"
    good = votes.read_text()
    votes.write_text("\n".join(good.splitlines()[:-1]))
    with pytest.raises(DataError, match=r"fer2013new\.csv ends before line 9 of the other file"):
        read_listing(tmp_path)
    votes.write_text(good.replace("PublicTest,fer0000003", "Training,fer0000003"))
    with pytest.raises(DataError, match="line 5: Usage is 'Training' here and 'PublicTest'"):
        read_listing(tmp_path)
    votes.write_text(good.replace("fer0000000.png,0,9", "fer0000000.png,0,many"))
    with pytest.raises(DataError, match=r"fer2013new\.csv, line 2: happiness is 'many', not a whole number"):
        read_listing(tmp_path)
    votes.write_text(good.replace("fer0000000.png,0,9", "fer0000000.png,0,-9"))
    with pytest.raises(DataError, match=r"fer2013new\.csv, line 2: votes are \[0, -9, .*: none may be below 0"):
        read_listing(tmp_path)
    votes.write_text(good.replace("contempt", "scorn"))
    with pytest.raises(DataError, match=r"fer2013new\.csv has no column contempt: it has Usage, Image name"):
        read_listing(tmp_path)
    votes.unlink()
    with pytest.raises(DataError, match=r"fer2013new\.csv is missing: it must be a CSV file with the columns Usage"):
        read_listing(tmp_path)
