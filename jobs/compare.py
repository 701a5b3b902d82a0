"""`compare`: two models on the same faces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.changed_faces import changed_faces
from jobs.comparison import Comparison, compare
from jobs.comparison_page import page
from jobs.comparison_text import described
from jobs.dataset import opened
from jobs.face_pairs import FacePairs, face_pairs
from jobs.html_page import deliver_page, refuse_no_page
from jobs.options import json_option, parse_storage_options, storage_option
from pipeline.errors import UsageError
from pipeline.urls import without_credentials

if TYPE_CHECKING:
    from jobs.labelled_comparison import LabelledComparison


@click.command("compare")
@click.argument("output", metavar="OUT")
@click.argument("model_a", metavar="A")
@click.argument("model_b", metavar="B")
@click.option("--labels", type=click.Path(path_type=Path), metavar="CSV", help="face_id,expression: who is right?")
@click.option("--to", metavar="FILE", help="Also write a page with pictures of the most changed faces: an .html file.")
@click.option("--faces", type=click.IntRange(0), default=24, show_default=True, help="Most changed faces to list.")
@click.option("--sources", type=click.IntRange(0), default=20, show_default=True, help="Sources to list.")
@storage_option
@json_option
def compare_command(
    output: str,
    model_a: str,
    model_b: str,
    labels: Path | None,
    to: str | None,
    faces: int,
    sources: int,
    storage_options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare the answers of models A and B on the same faces in OUT.

    A and B are model_ids or their beginnings. Differences are B minus A; 95% intervals resample whole sources, for
    faces of one video are not independent. Run each model over the same inputs before.
    """
    if to is not None:
        refuse_no_page(to)
    with opened(output, storage_options) as dataset:
        a, b = dataset.find_model(model_a), dataset.find_model(model_b)
        if a == b:
            there = ", ".join(dataset.log.state.models)
            raise UsageError(f"A and B are the same model, {a}; name two of: {there}")
        with face_pairs(dataset, a, b) as pairs:
            comparison = compare(pairs, sources=sources)
            labelled = _labelled(pairs, labels, comparison) if labels else None
            changed = changed_faces(pairs, faces)
    if as_json:
        values = comparison.to_json() | {"changed_faces": [face.to_json() for face in changed]}
        click.echo(json.dumps(values | ({"labelled": labelled.to_json()} if labelled else {}), indent=2))
    else:
        click.echo(described(comparison, changed, labelled))
    if to is not None:
        content = page(comparison, changed, labelled, output=dataset.store.url)
        deliver_page(to, parse_storage_options(storage_options), content)
        crops = sum(face.png is not None for face in changed)
        click.echo(f"{without_credentials(to)}: {len(changed)} changed faces, {crops} with a crop", err=True)


def _labelled(pairs: FacePairs, labels: Path, comparison: Comparison) -> LabelledComparison:
    from jobs.labelled_comparison import compare_labelled  # needs torch, which takes seconds to load

    return compare_labelled(pairs, labels, faces=comparison.faces)
