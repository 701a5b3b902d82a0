"""A folder of classes, with or without folders for its parts: SFEW, and whatever else is sorted that way.

    Train/Angry/x.png  Val/Angry/y.png  Test/...     or     angry/x.png  happy/y.png ...

Parts are train, val (valid, validation) and test; classes are expressions or common synonyms; both in any case.
Pictures may lie deeper in a class. The key is the path within the folder. SFEW's Train_Aligned_Faces and
Val_Aligned_Faces_new are its faces cut out: where they are there, the whole frames of that part are left out.

Without parts: train, validation and test are 80, 10 and 10 % by a hash of the key. With train and val only (SFEW, whose
test labels are not public), val is what is reported on: it is test. Where there is no other validation part, a tenth
of train, chosen by the hash, is validation. Nothing here says which pictures are of one person or clip, so parts that
are drawn may share them, and the notes say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ran_model.datasets.expressions import allowed_names, expression_index
from ran_model.datasets.folders import is_picture
from ran_model.datasets.listing import DataError, Item, Listing, full_list
from ran_model.datasets.notes import Notes
from ran_model.datasets.splits import any_split, train_or_validation

NEEDS = "a folder of folders named after expressions, alone or in train/, val/ and test/ (SFEW and others)"
CUT_OUT = "_aligned_faces"
DRAWN = (
    "parts were drawn picture by picture (80, 10 and 10 %): pictures of one person or clip may be in several; give "
    "train/, val/, test/"
)
DRAWN_VALIDATION = (
    "validation was drawn from train picture by picture: pictures of one person or clip may be in both; give val/ and "
    "test/"
)
PARTS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
#: How other parts are drawn from train, by those that have class folders, and what is said of it; else they stay.
DRAWS = {
    frozenset({"train"}): (any_split, DRAWN),
    frozenset({"train", "validation"}): (train_or_validation, DRAWN_VALIDATION),
    frozenset({"train", "test"}): (train_or_validation, DRAWN_VALIDATION),
}


def recognises(path: Path) -> bool:
    """Whether a folder in it is a part or an expression by name."""
    return path.is_dir() and any(
        _part(child) is not None or expression_index(child.name) is not None for child in _folders(path)
    )


def read(path: Path) -> Listing:
    """Lists the pictures. Raises DataError if there is none, for a class folder that is no known expression, and for
    two folders that may both be one part, whose pictures would count twice."""
    if not path.is_dir():
        raise DataError(f"{path} is missing: it must be {NEEDS}")
    notes = Notes()
    parts = {child: part for child in _folders(path) if (part := _part(child)) is not None}
    for child in _folders(path) if parts else []:
        if child not in parts:
            notes.add("folders beside train, val and test", child.name)
    parts = parts or {path: "train"}  # without parts everything is drawn from
    cut_out = {part for child, part in parts.items() if _is_cut_out(child) and _folders(child)}
    for child, part in list(parts.items()):
        if part in cut_out and not _is_cut_out(child):
            notes.add("folders of whole frames, whose faces are there cut out", child.name)
            del parts[child]
    _refuse_parts_twice(parts)
    there = frozenset(part for child, part in parts.items() if _folders(child))
    items: list[Item] = []
    for child, official in parts.items():
        items += _classes(path, child, _split_of(official, there), notes)
        if official == "validation" and "test" not in there:
            notes.add("validation folders that are test here, as no test folder has labels", child.name)
    if not items:
        raise DataError(f"{path} has no pictures in class folders: it must be {NEEDS}")
    return Listing(
        name=path.resolve().name,
        items=items,
        lists=full_list(items),
        notes=notes.lines(),
        parts_note=DRAWS[there][1] if there in DRAWS else "",
    )


def _part(folder: Path) -> str | None:
    """Which part a folder is by its name; None for another folder."""
    return PARTS.get(folder.name.lower().partition(CUT_OUT)[0])


def _refuse_parts_twice(parts: Mapping[Path, str]) -> None:
    first: dict[str, Path] = {}
    for child, part in parts.items():
        if _folders(child) and first.setdefault(part, child) != child:
            raise DataError(f"{first[part]} and {child} may both be the part {part!r}: leave one of them there")


def _is_cut_out(folder: Path) -> bool:
    return CUT_OUT in folder.name.lower()


def _split_of(official: str, there: frozenset[str]) -> Callable[[str], str]:
    """How the pictures of an official part are split, given which parts have class folders."""
    if official == "train" and there in DRAWS:
        return DRAWS[there][0]
    split = "test" if official == "validation" and "test" not in there else official
    return lambda key: split


def _classes(root: Path, folder: Path, split_of: Callable[[str], str], notes: Notes) -> Iterator[Item]:
    """The pictures of the class folders in `folder`."""
    for child in sorted(folder.iterdir()):
        if child.is_file():
            reason = "pictures outside class folders" if is_picture(child.name) else "files that are no pictures"
            notes.add(reason, _key(root, child))
    for child in _folders(folder):
        label = expression_index(child.name)
        if label is None:
            raise DataError(f"{child} is no known expression: class folders must be named {allowed_names()}")
        for file in sorted(path for path in child.rglob("*") if path.is_file()):
            key = _key(root, file)
            if is_picture(file.name):
                yield Item(key=key, picture=file, split=split_of(key), label=label)
            else:
                notes.add("files that are no pictures", key)


def _folders(folder: Path) -> list[Path]:
    """The folders in it that are not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _key(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
