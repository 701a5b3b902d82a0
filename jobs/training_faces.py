"""What a recipe trains on: its pictures read, checked, aligned, and what was noticed about them told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from jobs.align_faces import aligned_faces
from jobs.stages import check_faces, check_starts
from ran_model.data import LabelledFaces
from ran_model.datasets import Listing, read_listing
from ran_model.labels import EXPRESSIONS
from ran_model.recipe import Recipe


def training_faces(recipe: Recipe, work: Path) -> LabelledFaces:
    """All of a recipe's faces, aligned. What readers and comparisons of pixels left out goes to standard error.

    Raises ValueError, before anything is aligned, for a start that doesn't fit, or a part without faces of the model's
    classes.
    """
    check_starts(recipe)
    listing = read_listing(recipe.data, layout=recipe.layout, labels=recipe.labels)
    _tell(listing.told)
    check_faces(recipe, listing)
    faces = aligned_faces(listing, recipe.model, work)
    _tell(faces.listing.notes[len(listing.notes) :])  # on copies, which are seen in the pixels
    _tell(faces.left_out())
    _tell(_never_seen(faces.listing, recipe.model.classes))
    return faces


def _never_seen(listing: Listing, classes: tuple[str, ...]) -> list[str]:
    """A note where training never shows some of the model's classes: it will unlearn those that its start knew."""
    seen = {EXPRESSIONS[item.label] for item in listing.of("train", classes)}
    missing = [name for name in classes if name not in seen]
    if not missing:
        return []
    return [f"expressions that training has no picture of, which the model will hardly answer: {', '.join(missing)}"]


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)
