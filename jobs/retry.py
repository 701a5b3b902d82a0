"""`retry`: what failed, once more."""

from __future__ import annotations

from typing import Any

import click

from jobs.options import execution_options, json_option
from jobs.run import conclude, dataset_configuration
from pipeline.errors import ErrorCode
from pipeline.progress import ProgressReporter

CODES = sorted(map(str, ErrorCode))


@click.command("retry")
@click.argument("output", metavar="OUT")
@click.option(
    "--code", "codes", multiple=True, type=click.Choice(CODES), help="Only failures with this code; may be repeated."
)
@click.option("--model", default="default", show_default=True, metavar="DIR", help="The model of the rows that failed.")
@click.option("--detector-weights", metavar="PATH", help="Weights file for a detector not bundled here.")
@execution_options
@json_option
@click.option("--quiet", is_flag=True, help="No progress.")
def retry_command(as_json: bool, quiet: bool, codes: tuple[str, ...], **options: Any) -> int:
    """Try again what failed in the dataset OUT: the segments in `errors`, and sources that could not be probed.

    An error row stays until its new row takes its place, in one step. Refused while a run is at work.
    """
    from pipeline.driver import Driver
    from pipeline.prepare import prepare_retry

    config = dataset_configuration(options)
    prepared = prepare_retry(config, codes)
    with ProgressReporter(quiet=quiet) as progress:
        summary = Driver(config, prepared).run(progress)
    return conclude(summary, config, as_json=as_json)
