"""Faces that this tool kept (`--keep-crops`), joined with a CSV of labels: face_id, expression and, optionally, split.

The pictures are in crops/**/*.parquet of the dataset (columns face_id, source_id, png, template), the landmarks that
they were aligned by in faces/**/*.parquet, where that is there. Where no split is given, all faces of one source go to
the same split, so that no test shows a face of a video that was trained on: to the split that the CSV gives to other
faces of that source, else by a hash of source_id, 80, 10 and 10 %. An item's group is its source_id.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ran_model.datasets.face_labels import Label, read_labels
from ran_model.datasets.listing import SPLITS, DataError, Item, Listing, full_list
from ran_model.datasets.notes import Notes
from ran_model.datasets.parquet_files import readable
from ran_model.datasets.splits import any_split
from ran_model.regions import LANDMARKS

COLUMNS = ("face_id", "source_id", "png", "template")
LANDMARK_COLUMNS = tuple(f"landmark_{name}_{axis}" for name in LANDMARKS for axis in "xy")
Template = tuple[float, ...]
NEEDS = (
    "a dataset of ours with crops/**/*.parquet (--keep-crops), and --labels, a CSV with face_id, expression[, split]"
)


def recognises(path: Path) -> bool:
    """Whether there are crops."""
    return (path / "crops").is_dir() and next((path / "crops").rglob("*.parquet"), None) is not None


def read(path: Path, labels: Path | None) -> Listing:
    """Reads the crops that have a label. Raises DataError for what is missing, and for labels that are wrong."""
    if labels is None:
        raise DataError(f"{path} has crops but no labels: the layout is {NEEDS}")
    notes = Notes()
    wanted = read_labels(labels, notes)
    crops = _read_crops(path, wanted, notes)
    for face in wanted:
        if face not in crops:
            notes.add("labels without a crop", face)
    if not crops:
        raise DataError(f"no face_id of {labels} has a crop under {path / 'crops'}")
    given: dict[str, set[str]] = {}
    for face, (source, _, _) in crops.items():
        given.setdefault(source, set())
        if (split := wanted[face].split) is not None:
            given[source].add(split)
    landmarks = _read_landmarks(path, crops.keys())
    items = []
    for face, (source, png, template) in crops.items():
        split = wanted[face].split or (min(given[source]) if len(given[source]) == 1 else any_split(source))
        label = wanted[face].expression
        items.append(
            Item(
                key=face,
                picture=png,
                split=split,
                label=label,
                template=template,
                landmarks=landmarks.get(face),
                group=source,
            )
        )
    for source, splits in given.items():
        if len(splits) > 1:
            notes.add("sources with faces in several splits, as the labels have it", source)
    drawn = sum(not splits for splits in given.values())
    return Listing(
        name=path.resolve().name,
        items=items,
        lists=full_list(items),
        notes=notes.lines(),
        parts_note=_about_drawn(drawn, items) if drawn else "",
    )


def _about_drawn(drawn: int, items: Sequence[Item]) -> str:
    """That whole sources were drawn, and what came of it: with few sources a part may be small, or empty."""
    parts = []
    for split in SPLITS:
        sources = [item.group for item in items if item.split == split]
        parts.append(f"{split} {len(sources)} faces of {len(set(sources))}")
    return (
        f"sources without a split in the labels, drawn whole for train, validation and test (80, 10 and 10 %): {drawn}"
        f"; by that there are {', '.join(parts)} sources; a column `split` in the labels decides it otherwise"
    )


def _read_crops(path: Path, wanted: dict[str, Label], notes: Notes) -> dict[str, tuple[str, bytes, Template]]:
    """source_id, PNG and template of each crop with a label, by face_id; only those pictures are read."""
    files = sorted((path / "crops").rglob("*.parquet"))
    if not files:
        raise DataError(f"{path / 'crops'} has no Parquet file: the layout is {NEEDS}")
    crops: dict[str, tuple[str, bytes, Template]] = {}
    unlabelled: set[str] = set()
    faces = pa.array(list(wanted), pa.string())
    for file in files:
        with readable(file), pq.ParquetFile(file) as parquet:
            missing = [name for name in COLUMNS if name not in parquet.schema_arrow.names]
            if missing:
                raise DataError(f"{file} has no column {', '.join(missing)}: crops have {', '.join(COLUMNS)}")
            for group in range(parquet.num_row_groups):
                ids = parquet.read_row_group(group, columns=["face_id"])["face_id"]
                unlabelled |= set(ids.to_pylist()) - wanted.keys()
                is_wanted = pc.is_in(ids, value_set=faces)
                if not pc.any(is_wanted).as_py():
                    continue
                for row in parquet.read_row_group(group, columns=list(COLUMNS)).filter(is_wanted).to_pylist():
                    if row["face_id"] in crops:
                        notes.add("crops that repeat a face_id, of which the first counts", row["face_id"])
                    else:
                        crops[row["face_id"]] = (row["source_id"], row["png"], tuple(row["template"]))
    for face in sorted(unlabelled):
        notes.add("crops without a label", face)
    return crops


def _read_landmarks(path: Path, wanted: Set[str]) -> dict[str, tuple[float, ...]]:
    """x and y of each landmark, pixels, by face_id, as far as `faces` has them. Models share faces: one is enough."""
    found: dict[str, tuple[float, ...]] = {}
    faces = pa.array(sorted(wanted), pa.string())
    for file in sorted((path / "faces").rglob("*.parquet")):
        if len(found) == len(wanted):
            break
        with readable(file), pq.ParquetFile(file) as parquet:
            if not {"face_id", *LANDMARK_COLUMNS} <= set(parquet.schema_arrow.names):
                raise DataError(f"{file} lacks face_id or landmark columns: it is no table of faces of ours")
            for group in range(parquet.num_row_groups):
                is_wanted = pc.is_in(parquet.read_row_group(group, columns=["face_id"])["face_id"], value_set=faces)
                if not pc.any(is_wanted).as_py():
                    continue
                rows = parquet.read_row_group(group, columns=["face_id", *LANDMARK_COLUMNS]).filter(is_wanted)
                values = zip(*(rows[name].to_pylist() for name in LANDMARK_COLUMNS), strict=True)
                found |= dict(zip(rows["face_id"].to_pylist(), values, strict=True))
    return found
