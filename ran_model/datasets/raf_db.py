"""RAF-DB, its basic expressions, aligned by its authors: a folder (`basic`) with

    EmoLabel/list_patition_label.txt      train_00001.jpg 5
    Image/aligned/train_00001_aligned.jpg

Labels are 1 to 7: surprise, fear, disgust, happiness, sadness, anger, neutral. There is no validation part: a tenth of
train, chosen by a hash of the key, becomes validation. The key is the name in the list of labels. The RAN authors'
lists are picked up where `author_files` finds them in the folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from ran_model.datasets.author_files import read_author_lists
from ran_model.datasets.author_lists import RAF_DB
from ran_model.datasets.expressions import RAF_DB_ORDER
from ran_model.datasets.folders import FileIndex
from ran_model.datasets.listing import ONE_FACE, DataError, Item, Listing, full_list
from ran_model.datasets.notes import Notes
from ran_model.datasets.splits import train_or_validation
from ran_model.datasets.text_files import numbered_lines

LABELS = Path("EmoLabel") / "list_patition_label.txt"
PICTURES = Path("Image") / "aligned"
NEEDS = f"a folder with {LABELS} and {PICTURES}/ (RAF-DB, basic)"
LINE = re.compile(r"(?P<name>(?P<part>train|test)_\d+)\.jpg\s+(?P<label>[1-7])")


def recognises(path: Path) -> bool:
    """Whether the list of labels is there."""
    return (path / LABELS).is_file()


def read(path: Path) -> Listing:
    """Reads the list of labels. Raises DataError if it or every picture is missing, or for a line that is wrong."""
    if not (path / LABELS).is_file():
        raise DataError(f"{path / LABELS} is missing: RAF-DB is {NEEDS}")
    notes, files = Notes(), FileIndex()
    items: dict[str, Item] = {}
    seen: set[str] = set()
    for number, line in numbered_lines(path / LABELS):
        match = LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path / LABELS}, line {number}: {line!r} does not look like 'train_00001.jpg 5', labels 1 to 7"
            )
        key = f"{match['name']}.jpg"
        picture = path / PICTURES / f"{match['name']}_aligned.jpg"
        if key in seen:
            notes.add("lines that repeat a picture, of which the first counts", f"{key} in line {number}")
        elif not files.has(picture):
            notes.add("pictures that are missing", picture.name)
        else:
            split = "test" if match["part"] == "test" else train_or_validation(key)
            items[key] = Item(key=key, picture=picture, split=split, label=RAF_DB_ORDER[int(match["label"]) - 1])
        seen.add(key)
    if not seen:
        raise DataError(f"{path / LABELS} is empty: it must have lines such as 'train_00001.jpg 5'")
    if not items:
        raise DataError(f"{path / PICTURES} has none of the pictures in {LABELS}, such as train_00001_aligned.jpg")
    keys = {key.removesuffix(".jpg"): key for key, item in items.items() if item.split == "test"}
    lists = full_list(items.values()) | read_author_lists(path, RAF_DB, keys, items, notes)
    return Listing(name="raf-db", items=list(items.values()), lists=lists, notes=notes.lines(), smallest_face=ONE_FACE)
