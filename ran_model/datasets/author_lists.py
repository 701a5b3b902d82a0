"""One file of the RAN authors' occlusion or pose lists, as their repository has them.

Source: Challenge-condition-FER-dataset by Kai Wang et al., commit e43d7a0. Lines by data set:

    FERPlus    occlusion  1_fer0034656.png 8 0         label_name, a constant, occlusion code
               pose       0/fer0032226.jpg             label/name
    RAF-DB     occlusion  test_0003_aligned 3 4        name, label, occlusion code
               pose       0/test_0004_aligned.jpg      label/name, beside a file of labels that starts with `1247 7`
    AffectNet  occlusion  val/0/<hash>/                label/name
               pose       0/<hash>.jpg or 7/<hash>/8.jpg
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ran_model.datasets.expressions import AFFECTNET_ORDER, FERPLUS_ORDER, RAF_DB_ORDER
from ran_model.datasets.listing import DataError
from ran_model.datasets.notes import Notes
from ran_model.datasets.text_files import numbered_lines


@dataclass(frozen=True, kw_only=True)
class LineFormat:
    """pattern: has a group `name`, and a group `label` that may be absent where a file of labels stands beside it."""

    pattern: re.Pattern[str]
    example: str


@dataclass(frozen=True, kw_only=True)
class ListFormat:
    """One data set's lists. folder: its own in the authors' repository. order: EXPRESSIONS index of each number."""

    folder: str
    occlusion: LineFormat
    pose: LineFormat
    order: tuple[int, ...]


FERPLUS = ListFormat(
    folder="FERplus_dir",
    occlusion=LineFormat(
        pattern=re.compile(r"(?P<label>\d+)_(?P<name>fer\d+)\.\w+ \d+ \d+"), example="1_fer0034656.png 8 0"
    ),
    pose=LineFormat(pattern=re.compile(r"(?P<label>\d+)/(?P<name>fer\d+)\.\w+"), example="0/fer0032226.jpg"),
    order=FERPLUS_ORDER,
)
RAF_DB = ListFormat(
    folder="RAF_DB_dir",
    occlusion=LineFormat(
        pattern=re.compile(r"(?P<name>test_\d+)_aligned(\.jpg)? (?P<label>\d+) \d+"), example="test_0003_aligned 3 4"
    ),
    pose=LineFormat(
        pattern=re.compile(r"((?P<label>\d+)/)?(?P<name>test_\d+)_aligned(\.jpg)?"), example="0/test_0004_aligned.jpg"
    ),
    order=RAF_DB_ORDER,
)
AFFECTNET = ListFormat(
    folder="AffectNet_dir",
    occlusion=LineFormat(pattern=re.compile(r"val/(?P<label>\d+)/(?P<name>[0-9a-f]+)/?"), example="val/0/<hash>/"),
    pose=LineFormat(
        pattern=re.compile(r"(?P<label>\d+)/(?P<name>[0-9a-f]+)(/\d+)?\.jpg"),
        example="0/<hash>.jpg or 7/<hash>/8.jpg",
    ),
    order=AFFECTNET_ORDER,
)


def parse_list(path: Path, lines: LineFormat, order: tuple[int, ...], notes: Notes) -> dict[str, int]:
    """Label (EXPRESSIONS index) by name, in the file's order; a name's first line counts, others are noted.

    A file of labels beside it (its name has `label` for `list`) gives the labels; the list's own must agree with it.
    Raises DataError with file and line number for a line that does not parse.
    """
    given = _label_file(path)
    labels: dict[str, int] = {}
    names = list(_lines(path))
    if given is not None and len(given) != len(names):
        raise DataError(f"{label_path(path)} has {len(given)} labels for the {len(names)} lines of {path}")
    for position, (number, line) in enumerate(names):
        match = lines.pattern.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}: {line!r} does not look like {lines.example!r}")
        name, text = match["name"], match["label"]
        if given is None and text is None:
            raise DataError(f"{path}, line {number}: {line!r} has no label, and {label_path(path)} is missing")
        label = int(text) if given is None else given[position]
        if text is not None and int(text) != label:
            raise DataError(f"{path}, line {number}: {line!r}, but {label_path(path)} has label {label} for it")
        if not 0 <= label < len(order):
            raise DataError(f"{path}, line {number}: label {label} must be 0 to {len(order) - 1}")
        if name in labels:
            kind = "the same label" if labels[name] == order[label] else "another label, the first of them counts"
            notes.add(f"lines of {path.name} that repeat a name with {kind}", f"{name} in line {number}")
        else:
            labels[name] = order[label]
    return labels


def label_path(path: Path) -> Path:
    """Where the labels of a list are if they are in a file of their own: val_raf_db_label_45.txt."""
    return path.with_name(path.name.replace("list", "label"))


def _label_file(path: Path) -> list[int] | None:
    """Labels of a file that starts with a header `1247 7`, their number and that of classes; None if there is none."""
    beside = label_path(path)
    if beside == path or not beside.is_file():
        return None
    (_, header), *rest = [*_lines(beside)] or [(1, "")]
    if not re.fullmatch(r"\d+ \d+", header):
        raise DataError(f"{beside}, line 1: {header!r} must be the number of labels and of classes, such as '1247 7'")
    for number, text in rest:
        if not text.isdecimal():
            raise DataError(f"{beside}, line {number}: {text!r} is not a label")
    if len(rest) != int(header.split()[0]):
        raise DataError(f"{beside} has {len(rest)} labels, but its first line says {header.split()[0]}")
    return [int(text) for _, text in rest]


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not empty, with single spaces."""
    return [(number, " ".join(line.split())) for number, line in numbered_lines(path)]
