"""Readers of facial-expression data sets as researchers have them on disk. Imports neither torch nor Ray.

Each layout is a module that documents it; `read_listing` picks the one that fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ran_model.datasets import affectnet, class_folders, fer2013_csv, ferplus_parquet, kept_crops, raf_db
from ran_model.datasets.listing import SPLITS, DataError, Item, Listing

__all__ = ["LAYOUTS", "SPLITS", "DataError", "Item", "Listing", "read_listing"]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Path | None], Listing]
    needs: str


#: In the order in which `auto` tries them: class folders fit where nothing more particular does.
_LAYOUTS = {
    "ferplus-parquet": _Layout(
        recognises=ferplus_parquet.recognises,
        read=lambda path, labels: ferplus_parquet.read(path),
        needs=ferplus_parquet.NEEDS,
    ),
    "fer2013-csv": _Layout(
        recognises=fer2013_csv.recognises, read=lambda path, labels: fer2013_csv.read(path), needs=fer2013_csv.NEEDS
    ),
    "raf-db": _Layout(recognises=raf_db.recognises, read=lambda path, labels: raf_db.read(path), needs=raf_db.NEEDS),
    "affectnet": _Layout(
        recognises=affectnet.recognises, read=lambda path, labels: affectnet.read(path), needs=affectnet.NEEDS
    ),
    "kept-crops": _Layout(recognises=kept_crops.recognises, read=kept_crops.read, needs=kept_crops.NEEDS),
    "class-folders": _Layout(
        recognises=class_folders.recognises,
        read=lambda path, labels: class_folders.read(path),
        needs=class_folders.NEEDS,
    ),
}

#: Names of the layouts.
LAYOUTS = tuple(_LAYOUTS)


def read_listing(path: Path | str, *, layout: str = "auto", labels: Path | None = None) -> Listing:
    """Reads the data set at `path`.

    layout: one of LAYOUTS, or "auto" to recognise it by what is there. labels: the CSV of labels that "kept-crops"
    needs, and no other layout takes.
    Raises DataError, which is a ValueError, for a layout that is not known or not recognised (it lists what each
    needs), and for what is missing or wrong in the data set.
    """
    path = Path(path)
    if layout != "auto" and layout not in LAYOUTS:
        raise DataError(f"layout is {layout!r}: it must be auto or one of {', '.join(LAYOUTS)}")
    if not path.exists():
        raise DataError(f"{path} does not exist: it must be one of\n{_needs()}")
    if layout == "auto":
        found = next((name for name, each in _LAYOUTS.items() if each.recognises(path)), None)
        if found is None:
            raise DataError(f"{path} is no layout that is known: it must be one of\n{_needs()}")
        layout = found
    if labels is not None and layout != "kept-crops":
        raise DataError(f"labels is {labels}, but {path} has the layout {layout}: only kept-crops takes labels")
    return replace(_LAYOUTS[layout].read(path, labels), layout=layout)


def _needs() -> str:
    return "\n".join(f"  {name}: {each.needs}" for name, each in _LAYOUTS.items())
