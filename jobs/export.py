"""`export`: a model's rows as a file of another program."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from shlex import quote

import click

from jobs.dataset import OpenedDataset, opened
from jobs.deliver import deliver
from jobs.fex import EMOTIONS, write_fex
from jobs.model_columns import model_columns
from jobs.options import json_option, parse_storage_options, storage_option
from pipeline.errors import UsageError
from pipeline.terminal import counted
from pipeline.urls import without_credentials
from pipeline.views import current_model


@click.command("export")
@click.argument("output", metavar="OUT")
@click.option(
    "--format", type=click.Choice(["fex"]), default="fex", show_default=True, expose_value=False, help="Py-Feat's CSV."
)
@click.option("--to", required=True, metavar="FILE", help="A .csv file; may be an s3:// URL.")
@click.option("--model", metavar="MODEL_ID", help="Default: the newest model that covers every segment.")
@click.option(
    "--source",
    metavar="PATTERN",
    help="Only the source of this path, or those whose path, or its end, fits: 'interview*.mp4', day1/a.mp4.",
)
@storage_option
@json_option
def export_command(
    output: str, to: str, model: str | None, source: str | None, storage_options: tuple[str, ...], as_json: bool
) -> None:
    """Write the faces in OUT as the CSV that Py-Feat reads: `feat.utils.io.read_feat(FILE)`.

    One row per face, and one without values for each frame in which none was found; frames that could not be read have
    none. Columns, units and signs are Py-Feat's, and what it knows and this program does not is empty: docs/py-feat.md.
    """
    if Path(to).suffix.lower() != ".csv":
        raise UsageError(f"--to {to}: the name must end in .csv")
    with opened(output, storage_options) as dataset:
        model_id = _model(dataset, model)
        options = parse_storage_options(storage_options)
        with dataset.bounded():
            counts = dataset.following(
                lambda: deliver(to, options, lambda path: write_fex(dataset, path, model_id, source))
            )
        classes = model_columns(dataset, model_id).classes
    target = without_credentials(to)
    if as_json:
        click.echo(json.dumps({"to": target, "model_id": model_id, **asdict(counts), "classes": classes}, indent=2))
    click.echo(
        f"{target}: {counted(counts.faces, 'face')} and {counted(counts.frames_without_a_face, 'frame')} without a "
        f"face, of {counted(counts.sources, 'source')}, by model {model_id}",
        err=True,
    )
    if counts.frames_left_out:
        errors = f"`ran-pipeline errors {quote(without_credentials(output))}`"
        left_out = counted(counts.frames_left_out, "frame")
        click.echo(f"note: {left_out} could not be read and so left out: see {errors}", err=True)
    if "contempt" in classes:
        click.echo(
            "note: Py-Feat has no contempt: it is a column of its own, and the seven emotions sum to 1 less it",
            err=True,
        )
    missing = [name for name in EMOTIONS if classes and name not in classes]
    if missing:
        click.echo(f"note: the model has no {', '.join(missing)}: empty in the file", err=True)


def _model(dataset: OpenedDataset, name: str | None) -> str:
    """The model_id that is meant. Raises UsageError if it has no rows."""
    chosen = current_model(dataset.log.state) if name is None else dataset.find_model(name)
    if chosen is None:
        raise UsageError(f"{dataset.store.url} has no rows yet")
    return chosen
