"""AffectNet in either of its two forms, which differ in where a picture's label stands.

The newer: train_set/ and val_set/, each with images/<id>.jpg and annotations/<id>_exp.npy.
The older: training.csv and validation.csv (subDirectory_filePath, face_x, face_y, face_width, face_height,
facial_landmarks, expression, valence, arousal; the first line may be missing) with the pictures under
Manually_Annotated_Images/. Pictures are taken whole: they are cut around the face already.

Labels are 0 to 7: neutral, happiness, sadness, surprise, fear, disgust, anger, contempt; others (8 none, 9 uncertain,
10 no face) are noted. Papers report on the official validation set: it is test here, and a tenth of train, chosen by a
hash of the key, is validation. The RAN authors' lists name pictures by the hash that only the older form has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ran_model.datasets.author_files import read_author_lists
from ran_model.datasets.author_lists import AFFECTNET
from ran_model.datasets.csv_files import integer, read_rows
from ran_model.datasets.expressions import AFFECTNET_ORDER
from ran_model.datasets.folders import FileIndex, is_picture
from ran_model.datasets.listing import ONE_FACE, DataError, Item, Listing, full_list
from ran_model.datasets.notes import Notes
from ran_model.datasets.splits import train_or_validation

FOLDERS = {"train_set": "train", "val_set": "test"}
TABLES = {"training.csv": "train", "validation.csv": "test"}
PICTURES = "Manually_Annotated_Images"
HEADER = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
OTHERS = {8: "none", 9: "uncertain", 10: "no face"}
NEEDS = (
    "a folder with train_set/ and val_set/ (images/<id>.jpg, annotations/<id>_exp.npy), or with training.csv, "
    f"validation.csv and {PICTURES}/ (AffectNet)"
)


def recognises(path: Path) -> bool:
    """Whether one of the parts is there, in either form."""
    return any((path / name).is_dir() for name in FOLDERS) or any((path / name).is_file() for name in TABLES)


def read(path: Path) -> Listing:
    """Reads both parts. Raises DataError if one, or every picture of one, is missing, or for a label that is wrong."""
    notes, files = Notes(), FileIndex()
    is_newer = any((path / name).is_dir() for name in FOLDERS)
    items: dict[str, Item] = {}
    for part, official in (FOLDERS if is_newer else TABLES).items():
        before = len(items)
        for key, picture, number in _folder(path / part, notes) if is_newer else _table(path / part):
            if number not in range(len(AFFECTNET_ORDER)):
                notes.add(f"pictures of {part} labelled {OTHERS.get(number, number)}, which is no expression", key)
            elif key in items:
                notes.add(f"rows of {part} that repeat a picture, of which the first counts", key)
            elif not files.has(picture):
                notes.add(f"pictures of {part} that are missing", key)
            else:
                split = train_or_validation(key) if official == "train" else "test"
                items[key] = Item(key=key, picture=picture, split=split, label=AFFECTNET_ORDER[number])
        if len(items) == before:
            why = f" ({'; '.join(notes.lines())})" if notes.lines() else ""
            raise DataError(f"{path / part} gives no picture with an expression{why}: AffectNet is {NEEDS}")
    keys = {Path(key).stem: key for key, item in items.items() if item.split == "test"}
    lists = full_list(items.values()) | read_author_lists(path, AFFECTNET, keys, items, notes)
    return Listing(
        name="affectnet", items=list(items.values()), lists=lists, notes=notes.lines(), smallest_face=ONE_FACE
    )


def _folder(part: Path, notes: Notes) -> Iterator[tuple[str, Path, int]]:
    """Key, picture and number of each annotation of the newer form."""
    for name in ("images", "annotations"):
        if not (part / name).is_dir():
            raise DataError(f"{part / name} is missing: AffectNet is {NEEDS}")
    pictures = {path.stem: path for path in sorted((part / "images").iterdir()) if is_picture(path.name)}
    for annotation in sorted((part / "annotations").glob("*_exp.npy")):
        name = annotation.name.removesuffix("_exp.npy")
        picture = pictures.pop(name, part / "images" / f"{name}.jpg")
        yield f"{part.name}/images/{picture.name}", picture, _number(annotation)
    for picture in pictures.values():
        notes.add(f"pictures of {part.name} without a label", picture.name)


def _number(annotation: Path) -> int:
    """The file holds one whole number, as text or as a number."""
    try:
        value = np.load(annotation, allow_pickle=False).item()
        number = int(value)
        if isinstance(value, float) and value != number:
            raise ValueError
    except (ValueError, OverflowError, TypeError, AttributeError, EOFError, OSError):
        raise DataError(f"{annotation} must hold one whole number, 3 or '3', as NumPy stores it") from None
    return number


def _table(table: Path) -> Iterator[tuple[str, Path, int]]:
    """Key, picture and number of each row of the older form."""
    for row in read_rows(table, ("subDirectory_filePath", "expression"), header=HEADER):
        key = row["subDirectory_filePath"]
        yield key, table.parent / PICTURES / key, integer(table, row, "expression")
