"""`query`: SQL over the dataset's views."""

from __future__ import annotations

import json
from pathlib import Path

import click
import duckdb

from jobs.dataset import opened
from jobs.options import storage_option
from jobs.text import table
from pipeline.errors import UsageError
from pipeline.views import VIEWS

MOST_TABLE_ROWS = 1000


@click.command("query")
@click.argument("output", metavar="OUT")
@click.argument("sql", metavar='"SQL"')
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table", show_default=True
)
@click.option("--to", metavar="FILE", help="Write there instead of stdout.")
@storage_option
def query_command(output: str, sql: str, form: str, to: str | None, storage_options: tuple[str, ...]) -> None:
    """DuckDB SQL over the views faces, frames, segments, sources, errors, all_faces, all_segments and crops."""
    with opened(output, storage_options) as dataset:
        try:
            relation = dataset.connection.sql(sql)
            if relation is None:
                return
            if form == "table":
                rows = relation.limit(MOST_TABLE_ROWS + 1).fetchall()
                text = table(relation.columns, rows[:MOST_TABLE_ROWS])
                _write(text, to)
                if len(rows) > MOST_TABLE_ROWS:
                    click.echo(
                        f"only the first {MOST_TABLE_ROWS} rows; --format csv, json or parquet has all", err=True
                    )
            elif form == "parquet":
                if to is None:
                    raise UsageError("--format parquet is binary: say where with --to FILE")
                relation.write_parquet(to, compression="zstd")
            elif form == "csv":
                relation.write_csv(to or "/dev/stdout", header=True)
            else:
                records = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
                _write(json.dumps(records, indent=2, default=str), to)
        except duckdb.Error as error:
            raise UsageError(f"{error}\nviews: {', '.join(VIEWS)}") from None


def _write(text: str, to: str | None) -> None:
    if to is None:
        click.echo(text)
    else:
        Path(to).write_text(text + "\n")
