"""A CSV of labels for faces of a dataset of ours: face_id, expression and, optionally, split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ran_model.datasets.csv_files import read_rows
from ran_model.datasets.expressions import allowed_names, expression_index
from ran_model.datasets.listing import SPLITS, DataError
from ran_model.datasets.notes import Notes


@dataclass(frozen=True, kw_only=True)
class Label:
    """One face's label, an index into EXPRESSIONS, and its split where the CSV gives one."""

    expression: int
    split: str | None


def read_labels(path: Path, notes: Notes) -> dict[str, Label]:
    """Label by face_id. A line that repeats one with the same label is noted; with another it is an error.

    Rows without a label are noted. Raises DataError, with the line, for what is wrong, and for a column that seems to
    be a misspelt `split`: other columns are left alone, and so faces would be drawn that were meant for the test.
    """
    labels: dict[str, Label] = {}
    for row in read_rows(path, ("face_id", "expression")):
        if not labels and "split" not in row:
            _refuse_misspelt_split(path, row)
        where = f"{path}, line {row['line']}"
        face, name, split = row["face_id"], row["expression"], row.get("split") or None
        if not name:
            notes.add("rows without a label", face)
            continue
        expression = expression_index(name)
        if expression is None:
            raise DataError(f"{where}: {name!r} is no known expression; known are {allowed_names()}")
        if split is not None and split not in SPLITS:
            raise DataError(f"{where}: split is {split!r}: it must be empty or one of {', '.join(SPLITS)}")
        label = Label(expression=expression, split=split)
        if labels.setdefault(face, label) != label:
            raise DataError(f"{where}: {face} has another label or split in a line before")
        if labels[face] is not label:
            notes.add("rows that repeat a face_id", face)
    return labels


def _refuse_misspelt_split(path: Path, row: Mapping[str, str]) -> None:
    for name in row:
        if get_close_matches(name.lower(), ["split"], cutoff=0.75):
            raise DataError(f"{path} has a column {name!r}: is it meant to be 'split'? Name it so, or otherwise")
