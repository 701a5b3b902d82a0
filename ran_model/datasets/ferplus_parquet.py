"""FERPlus as one Parquet file: FER2013's pictures with the votes and the RAN authors' lists, a row per picture.

Columns that are read: name, usage, image (encoded picture), votes (ten counts in the order of `votes.VOTE_COLUMNS`),
ran_label and, for each list, occlusion_label, pose30_label and pose45_label (null where a row is not in the list).
Labels are the authors' numbers, which are FERPlus' own. Train is FER2013's Training part of the authors' list,
validation its PublicTest part (which they merged into train), test its PrivateTest part.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ran_model.datasets.expressions import FERPLUS_ORDER
from ran_model.datasets.listing import ONE_FACE, DataError, Item, Listing
from ran_model.datasets.notes import Notes
from ran_model.datasets.parquet_files import readable
from ran_model.datasets.votes import vote_distribution

SPLIT_OF_USAGE = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
LIST_COLUMNS = {
    "full": "ran_label", "occlusion": "occlusion_label", "pose30": "pose30_label", "pose45": "pose45_label",
}  # fmt: skip
COLUMNS = ("name", "usage", "image", "votes", *LIST_COLUMNS.values())
NEEDS = f"a Parquet file with the columns {', '.join(COLUMNS)} (FERPlus with the authors' lists)"


def recognises(path: Path) -> bool:
    """Whether this is a Parquet file."""
    return path.is_file() and path.suffix == ".parquet"


def read(path: Path) -> Listing:
    """Reads the rows of the authors' lists. Raises DataError for a missing file or column, or a wrong value."""
    if not path.is_file():
        raise DataError(f"{path} is no file: it must be {NEEDS}")
    with readable(path):
        names = pq.read_schema(path).names
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}: it must be {NEEDS}")
    with readable(path):
        rows = pq.read_table(path, columns=list(COLUMNS))
    notes = Notes()
    items: list[Item] = []
    lists: dict[str, dict[str, int]] = {}
    for position, row in enumerate(_listed(rows, notes)):
        where = f"{path}, picture {row['name'] or position}"
        item = _item(row, where)
        items.append(item)
        for name, column in LIST_COLUMNS.items():
            if row[column] is None:
                continue
            if item.split == "test":
                lists.setdefault(name, {})[item.key] = _label(row[column], column, where)
            elif name != "full":
                notes.add(f"pictures with {column} that are not in the test split", item.key)
    return Listing(name="ferplus", items=items, lists=lists, notes=notes.lines(), smallest_face=ONE_FACE)


def _listed(rows: pa.Table, notes: Notes) -> list[dict[str, object]]:
    """The rows of the authors' lists; the others are noted, and their pictures stay unread."""
    wanted = rows["ran_label"].is_valid().to_pylist()
    for position, (name, is_wanted) in enumerate(zip(rows["name"].to_pylist(), wanted, strict=True)):
        if not is_wanted:
            notes.add("rows that are not in the authors' lists", name or f"row {position} without a name")
    listed: list[dict[str, object]] = rows.filter(rows["ran_label"].is_valid()).to_pylist()
    return listed


def _item(row: dict[str, object], where: str) -> Item:
    name, usage, image, votes = row["name"], row["usage"], row["image"], row["votes"]
    if not isinstance(name, str) or usage not in SPLIT_OF_USAGE or not isinstance(image, bytes):
        raise DataError(f"{where}: it must have a name, an image and as usage one of {', '.join(SPLIT_OF_USAGE)}")
    if not isinstance(votes, list) or len(votes) != 10 or not all(isinstance(n, int) and n >= 0 for n in votes):
        raise DataError(f"{where}: votes must be ten counts, not {votes}")
    return Item(
        key=name,
        picture=image,
        split=SPLIT_OF_USAGE[str(usage)],
        label=_label(row["ran_label"], "ran_label", where),
        votes=vote_distribution(votes),
    )


def _label(value: object, column: str, where: str) -> int:
    if not isinstance(value, int) or not 0 <= value < len(FERPLUS_ORDER):
        raise DataError(f"{where}: {column} is {value!r}: it must be a whole number, 0 to {len(FERPLUS_ORDER) - 1}")
    return FERPLUS_ORDER[value]
