"""Pictures that a data set has in several of its parts, by their pixels.

FER2013 has more than a thousand pictures twice. What is in training and in validation makes validation choose what
remembers; what is in training and in test makes the figures too good.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ran_model.datasets.listing import Listing
from ran_model.datasets.notes import Notes


def without_copies(listing: Listing, digests: Sequence[bytes]) -> tuple[Listing, frozenset[str]]:
    """The listing without training copies of validation pictures, and the keys of test pictures that training has too.

    digests: of each item's pixels, in the listing's order. Test lists stay as their authors have them; every kind of
    copy is noted. Test pictures are compared with all of training, what is left out here included.
    """
    notes, copied = Notes(), set()
    parts: dict[bytes, set[str]] = defaultdict(set)
    for item, digest in zip(listing.items, digests, strict=True):
        parts[digest].add(item.split)
    kept = []
    for item, digest in zip(listing.items, digests, strict=True):
        if item.split == "train" and "validation" in parts[digest]:
            notes.add("training pictures that validation has too, left out of training", item.key)
            continue
        kept.append(item)
        if item.split == "test" and "train" in parts[digest]:
            notes.add("test pictures that training has too, kept", item.key)
            copied.add(item.key)
        if item.split == "test" and "validation" in parts[digest]:
            notes.add("test pictures that validation has too, kept", item.key)
    return replace(listing, items=kept, notes=[*listing.notes, *notes.lines()]), frozenset(copied)
