"""What every reader gives back: the labelled pictures of a data set, its test lists, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ran_model.labels import EXPRESSIONS

SPLITS = ("train", "validation", "test")
ONE_FACE = 0.4  # of a picture's height: in pictures that are one face, anything smaller is a false alarm


class DataError(ValueError):
    """A data set is not as it should be; the message names the file, line or column and says what is expected."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One labelled picture.

    key: names the picture within the data set (relative path, FERPlus name, face id), unique.
    picture: an encoded picture file, or its path.
    split: one of SPLITS. label: index into EXPRESSIONS.
    votes: distribution over EXPRESSIONS (sums to 1) where annotators' votes are known.
    template: of a face that this product aligned, which is not to be looked for again: where its five landmarks lie, as
        x and y of each in fractions of the square.
    landmarks: of such a face: where its own five lay in the picture that it was cut from, as x and y of each in pixels;
        None where that is not known.
    group: what pictures share that are not independent of each other, such as the video that faces are from; None for a
        picture that stands alone.
    """

    key: str
    picture: Path | bytes
    split: str
    label: int
    votes: tuple[float, ...] | None = None
    template: tuple[float, ...] | None = None
    landmarks: tuple[float, ...] | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"{self.key} is in split {self.split!r}: it must be one of {', '.join(SPLITS)}")
        _check_label(self.key, self.label)
        if self.votes is not None and (len(self.votes) != len(EXPRESSIONS) or abs(sum(self.votes) - 1) > 1e-6):
            raise ValueError(f"votes of {self.key} must be {len(EXPRESSIONS)} shares that sum to 1: {self.votes}")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A data set as read from disk. No picture that was given by path has been opened.

    name: for people; it may be that of a folder. layout: how it lies on disk, one of `ran_model.datasets.LAYOUTS`.
    lists: test lists by name ("full", "occlusion", "pose30", "pose45"), each with labels of its own: key -> label.
    notes: what was left out and why, a line each with the count and the first examples.
    parts_note: how parts were drawn that the data set does not give, and what follows; else empty.
    smallest_face: the share of a picture's height that its face must have; ONE_FACE where each picture is one face.
    """

    name: str
    items: list[Item]
    lists: dict[str, dict[str, int]]
    notes: list[str]
    parts_note: str = ""
    layout: str = ""
    smallest_face: float = 0.0

    def __post_init__(self) -> None:
        splits = {item.key: item.split for item in self.items}
        if len(splits) != len(self.items):
            twice = next(key for key, count in Counter(item.key for item in self.items).items() if count > 1)
            raise ValueError(f"{self.name} has the key {twice!r} twice: keys must be unique")
        for name, labels in self.lists.items():
            for key, label in labels.items():
                if splits.get(key) != "test":
                    raise ValueError(f"list {name!r} of {self.name} names {key!r}, which is not in the test split")
                _check_label(key, label)

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions that occur, in EXPRESSIONS order."""
        labels = {item.label for item in self.items}
        return tuple(name for index, name in enumerate(EXPRESSIONS) if index in labels)

    def of(self, split: str, classes: Collection[str] = EXPRESSIONS) -> list[Item]:
        """The items of one split whose label is one of these expressions, in the data set's order."""
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}: it must be one of {', '.join(SPLITS)}")
        return [item for item in self.items if item.split == split and EXPRESSIONS[item.label] in classes]

    def all_tested(self) -> Listing:
        """The same pictures, all of them in the test part and its full list; other lists stay as they are."""
        items = [replace(item, split="test") for item in self.items]
        return replace(self, items=items, lists=self.lists | full_list(items), parts_note="")

    @property
    def told(self) -> list[str]:
        """All that somebody should hear who uses it."""
        return [*self.notes, self.parts_note] if self.parts_note else self.notes


def full_list(items: Iterable[Item]) -> dict[str, dict[str, int]]:
    """The list "full" of all test items with their own labels; no list where there are none."""
    labels = {item.key: item.label for item in items if item.split == "test"}
    return {"full": labels} if labels else {}


def _check_label(key: str, label: int) -> None:
    if not 0 <= label < len(EXPRESSIONS):
        raise ValueError(f"label of {key} is {label}: it must be an index into {', '.join(EXPRESSIONS)}")
