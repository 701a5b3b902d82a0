"""FER2013 with FERPlus' votes: a folder with fer2013.csv and fer2013new.csv, whose rows are in the same order.

fer2013.csv: emotion, pixels (48×48 grey values), Usage. fer2013new.csv: Usage, Image name (empty: not used) and ten
vote columns. The label is what has the majority of the votes, as FERPlus' own code has it; rows that have none, or
where unknown or not-a-face has it, are left out. Train, validation and test are FER2013's Training, PublicTest and
PrivateTest. The RAN authors' lists are picked up where `author_files` finds them in the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np

from ran_model.datasets.author_files import read_author_lists
from ran_model.datasets.author_lists import FERPLUS
from ran_model.datasets.csv_files import integer, read_rows
from ran_model.datasets.ferplus_parquet import SPLIT_OF_USAGE
from ran_model.datasets.listing import ONE_FACE, DataError, Item, Listing, full_list
from ran_model.datasets.notes import Notes
from ran_model.datasets.votes import VOTE_COLUMNS, majority, vote_distribution
from ran_model.labels import EXPRESSIONS

PICTURES = "fer2013.csv"
VOTES = "fer2013new.csv"
NEEDS = f"a folder with {PICTURES} (emotion, pixels, Usage) and {VOTES} (FERPlus' votes)"
SIDE = 48

Row = dict[str, str]


def recognises(path: Path) -> bool:
    """Whether one of the two files is there."""
    return (path / PICTURES).is_file() or (path / VOTES).is_file()


def read(path: Path) -> Listing:
    """Reads both files. Raises DataError for a missing file or column, files that differ in rows, or bad pixels."""
    notes = Notes()
    items: dict[str, Item] = {}
    for picture_row, row in _pairs(path):
        name = row["Image name"].removesuffix(".png")
        where = f"{VOTES} line {row['line']}"
        if not name:
            notes.add("rows without an image name, which FERPlus does not use", where)
            continue
        votes = [integer(path / VOTES, row, column) for column in VOTE_COLUMNS]
        if min(votes) < 0:
            raise DataError(f"{path / VOTES}, line {row['line']}: votes are {votes}: none may be below 0")
        label = majority(votes)
        if label is None:
            notes.add("pictures without a majority of the votes", name)
        elif label >= len(EXPRESSIONS):
            notes.add("pictures whose majority is unknown or not-a-face", name)
        elif name in items:
            notes.add("rows that repeat an image name, of which the first counts", f"{name} in {where}")
        else:
            png = _png(path / PICTURES, picture_row)
            split = SPLIT_OF_USAGE[row["Usage"]]
            items[name] = Item(key=name, picture=png, split=split, label=label, votes=vote_distribution(votes))
    keys = {key: key for key, item in items.items() if item.split == "test"}
    lists = full_list(items.values()) | read_author_lists(path, FERPLUS, keys, items, notes)
    return Listing(name="ferplus", items=list(items.values()), lists=lists, notes=notes.lines(), smallest_face=ONE_FACE)


def _pairs(path: Path) -> Iterator[tuple[Row, Row]]:
    """The rows of both files side by side; DataError where one is shorter or their Usage differs."""
    pictures = read_rows(path / PICTURES, ("emotion", "pixels", "Usage"))
    votes = read_rows(path / VOTES, ("Usage", "Image name", *VOTE_COLUMNS))
    for picture_row, row in zip_longest(pictures, votes):
        if picture_row is None or row is None:
            shorter, line = (PICTURES, row["line"]) if picture_row is None else (VOTES, picture_row["line"])
            raise DataError(f"{path / shorter} ends before line {line} of the other file: both need a row per picture")
        if row["Usage"] not in SPLIT_OF_USAGE or row["Usage"] != picture_row["Usage"]:
            raise DataError(
                f"{path / VOTES}, line {row['line']}: Usage is {row['Usage']!r} here and {picture_row['Usage']!r} in "
                f"{PICTURES}: both must be the same of {', '.join(SPLIT_OF_USAGE)}, with the rows in the same order"
            )
        yield picture_row, row


def _png(path: Path, row: Row) -> bytes:
    try:
        pixels = np.array(row["pixels"].split(), np.uint8)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}, line {row['line']}: pixels must be numbers from 0 to 255: {error}") from error
    if pixels.size != SIDE * SIDE:
        raise DataError(f"{path}, line {row['line']}: {pixels.size} pixels, where {SIDE}×{SIDE} make {SIDE * SIDE}")
    _, png = cv2.imencode(".png", pixels.reshape(SIDE, SIDE))
    return png.tobytes()
