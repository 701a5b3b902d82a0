"""`compact`: few large files instead of many small ones."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from jobs.options import json_option, parse_storage_options, storage_option
from jobs.text import human_bytes
from jobs.waiting import patiently
from pipeline.errors import UsageError


@click.command("compact")
@click.argument("output", metavar="OUT")
@click.option("--target-mib", default=256, show_default=True, help="Size of a file that is large enough.")
@storage_option
@json_option
def compact_command(output: str, target_mib: int, storage_options: tuple[str, ...], as_json: bool) -> None:
    """Merge the small files of the dataset OUT. Rows stay as they are; refused while a run is at work."""
    from pipeline.ledger.compact import compact
    from pipeline.ledger.dataset import Dataset
    from pipeline.storage.store import Store

    if target_mib < 1:
        raise UsageError(f"--target-mib is {target_mib}: it must be at least 1")
    store = Store(output, parse_storage_options(storage_options))
    Dataset.open(store)
    done = compact(store, target_bytes=target_mib << 20, wait=patiently())
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    click.echo(
        f"{output}: {done.files_before} files ({human_bytes(done.bytes_before)}) are {done.files_after} now "
        f"({human_bytes(done.bytes_after)})"
    )
