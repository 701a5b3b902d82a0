"""Where the RAN authors' lists lie beside a data set, and how they join its pictures.

A list is looked for in the data set's folder, in `lists/` there, and in both in the data set's folder of the authors'
repository (FERplus_dir, RAF_DB_dir, AffectNet_dir). Names by list, of which the first that matches counts:

    occlusion  *occlusion*.txt  (jianfei_occlusion_list.txt, rafdb_occlusion_list.txt, occlusion_affectnet_list.txt)
    pose30     *pose_30*.txt or *pose30*.txt  (pose_30_ferplus_list.txt, ...); for RAF-DB also val_raf_db_list.txt
    pose45     *pose_45*.txt or *pose45*.txt  (pose_45_ferplus_list.txt, ...); for RAF-DB also val_raf_db_list_45.txt

Files with `label` in their name hold the labels of a list, and are no lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ran_model.datasets.author_lists import ListFormat, parse_list
from ran_model.datasets.listing import DataError, Item
from ran_model.datasets.notes import Notes

PATTERNS = {
    "occlusion": ("*occlusion*.txt",),
    "pose30": ("*pose_30*.txt", "*pose30*.txt", "val_raf_db_list.txt"),
    "pose45": ("*pose_45*.txt", "*pose45*.txt", "val_raf_db_list_45.txt"),
}


def read_author_lists(
    folder: Path, format_: ListFormat, keys: Mapping[str, str], items: Mapping[str, Item], notes: Notes
) -> dict[str, dict[str, int]]:
    """The authors' lists that there are, by name: key -> label.

    keys: key of each test picture by the name that the lists have for it. items: by key. Names that are not there are
    noted, and so is a label that is not the picture's own, which counts for the list all the same; a list of which no
    name is there is left out, and noted.
    """
    lists = {}
    for name in PATTERNS:
        path = find_list(folder, format_, name)
        if path is None:
            continue
        lines = format_.occlusion if name == "occlusion" else format_.pose
        labels: dict[str, int] = {}
        for picture, label in parse_list(path, lines, format_.order, notes).items():
            if picture in keys:
                labels[keys[picture]] = label
                if label != items[keys[picture]].label:
                    notes.add(f"names in {path.name} with another label there than in this data set", picture)
            else:
                notes.add(f"names in {path.name} that are no test picture of this data set", picture)
        if labels:
            lists[name] = labels
        else:
            notes.add("lists that name no test picture of this data set, left out", path.name)
    return lists


def find_list(folder: Path, format_: ListFormat, name: str) -> Path | None:
    """The file of the list called `name`; DataError if there are several."""
    places = [folder, folder / "lists", folder / format_.folder, folder / "lists" / format_.folder]
    for pattern in PATTERNS[name]:
        found = [path for place in places for path in sorted(place.glob(pattern)) if "label" not in path.name]
        if len(found) > 1:
            raise DataError(
                f"{' and '.join(map(str, found))} may both be the list {name!r}: leave one of them in {folder}"
            )
        if found:
            return found[0]
    return None
