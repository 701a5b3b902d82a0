"""`query`: SQL over the dataset's views."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import click
import duckdb

from jobs.damage import as_damage, is_of_a_damaged_file
from jobs.dataset import opened
from jobs.deliver import deliver, deliver_to_stdout
from jobs.options import parse_storage_options, storage_option
from jobs.text import table
from pipeline.errors import UsageError
from pipeline.views import VIEWS

MOST_TABLE_ROWS = 1000


@click.command("query")
@click.argument("output", metavar="OUT")
@click.argument("sql", metavar='"SQL"')
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), show_default="table")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json. Bytes are in base64.")
@click.option("--to", metavar="FILE", help="Write there instead of stdout; may be an s3:// URL.")
@storage_option
def query_command(
    output: str, sql: str, form: str | None, as_json: bool, to: str | None, storage_options: tuple[str, ...]
) -> None:
    """DuckDB SQL over the views faces, frames, segments, sources, errors, all_faces, all_segments and crops."""
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} are two formats: give one")
    form = "json" if as_json else form or "table"
    if form == "parquet" and to is None and sys.stdout.isatty():
        raise UsageError("--format parquet is binary: say where with --to FILE, or > FILE")
    with opened(output, storage_options) as dataset:

        def answer() -> None:
            relation = dataset.connection.sql(sql)
            if relation is None:
                return

            def write(path: Path) -> None:
                _write(relation, form, path)

            if to is None:
                deliver_to_stdout(write)
            else:
                deliver(to, parse_storage_options(storage_options), write)

        try:
            dataset.following(answer)
        except RuntimeError as error:  # a string that is no UTF-8
            raise as_damage(error) from error
        except duckdb.Error as error:
            is_ours = any(path in dataset.log.state.live for path in dataset.files_in(error))
            named_by_sql = "No files found" in str(error) and not is_ours
            if is_of_a_damaged_file(error) and not named_by_sql:
                raise as_damage(error) from error
            raise UsageError(f"{error}\nviews: {', '.join(VIEWS)}") from None


def _write(relation: duckdb.DuckDBPyRelation, form: str, path: Path) -> None:
    if form == "csv":
        relation.write_csv(str(path), header=True)
    elif form == "parquet":
        relation.write_parquet(str(path), compression="zstd")
    elif form == "json":
        records = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
        path.write_text(json.dumps(records, indent=2, default=_jsonable) + "\n", encoding="utf-8")
    else:
        rows = relation.limit(MOST_TABLE_ROWS + 1).fetchall()
        path.write_text(table(relation.columns, rows[:MOST_TABLE_ROWS]) + "\n", encoding="utf-8")
        if len(rows) > MOST_TABLE_ROWS:
            click.echo(f"only the first {MOST_TABLE_ROWS} rows; --format csv, json or parquet has all", err=True)


def _jsonable(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
