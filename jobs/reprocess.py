"""`reprocess`: the faces of a dataset through another model."""

from __future__ import annotations

from typing import Any

import click

from jobs.options import execution_options, json_option
from jobs.run import conclude, dataset_configuration
from pipeline.progress import ProgressReporter


@click.command("reprocess")
@click.argument("output", metavar="OUT")
@click.option("--model", required=True, metavar="DIR", help="Model directory, or `default`.")
@click.option(
    "--base",
    metavar="MODEL_ID",
    help="Whose faces to take, by an id or its beginning (default: the other model with the most answers that are no "
    "errors, the newest among equals).",
)
@execution_options
@json_option
@click.option("--quiet", is_flag=True, help="No progress.")
def reprocess_command(as_json: bool, quiet: bool, base: str | None, **options: Any) -> int:
    """Score every face in the dataset OUT with another model; the old model's rows stay beside the new ones.

    Nothing is detected again: faces come from kept crops where the new model aligns faces the same way, else the frames
    are decoded once more and aligned by the stored landmarks. Run the same command again after a crash, or to read
    once more what the new model has an error for and the base has not.
    """
    from pipeline.driver import Driver
    from pipeline.prepare import prepare_reprocess

    config = dataset_configuration(options)
    prepared = prepare_reprocess(config, base)
    with ProgressReporter(quiet=quiet) as progress:
        summary = Driver(config, prepared).run(progress)
    return conclude(summary, config, as_json=as_json)
