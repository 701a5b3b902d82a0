"""`query`: SQL over the dataset's views."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import duckdb

from jobs.dataset import opened
from jobs.deliver import deliver, deliver_to_stdout
from jobs.options import parse_storage_options, storage_option
from jobs.text import table
from pipeline.errors import UsageError
from pipeline.views import VIEWS

MOST_TABLE_ROWS = 1000
FORMATS = ("table", "csv", "json", "parquet")


@click.command("query")
@click.argument("output", metavar="OUT")
@click.argument("sql", metavar='"SQL"')
@click.option("--format", "form", type=click.Choice(FORMATS), show_default="by the suffix of --to, else table")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json. Bytes are in base64, NaN is null.")
@click.option("--to", metavar="FILE", help="Write there instead of stdout; may be an s3:// URL.")
@storage_option
def query_command(
    output: str, sql: str, form: str | None, as_json: bool, to: str | None, storage_options: tuple[str, ...]
) -> None:
    """DuckDB SQL over the views faces, frames, segments, sources, errors, all_faces, all_segments and crops."""
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} are two formats: give one")
    form = "json" if as_json else form or _form_of(to)
    if form == "parquet" and to is None and sys.stdout.isatty():
        raise UsageError("--format parquet is binary: say where with --to FILE, or > FILE")
    with opened(output, storage_options) as dataset:

        def answer() -> None:
            relation = dataset.connection.sql(_without_end(sql))
            if relation is None:
                raise UsageError('no SQL was given: for instance "SELECT * FROM faces LIMIT 5"')

            def write(path: Path) -> None:
                _write(relation, form, path)

            if to is None:
                deliver_to_stdout(write)
            else:
                deliver(to, parse_storage_options(storage_options), write)

        try:
            dataset.following(answer)
        except duckdb.Error as error:
            raise UsageError(f"{error}\nviews: {', '.join(VIEWS)}") from None


def _without_end(sql: str) -> str:
    """The SQL up to the semicolon that ends it: DuckDB puts the last statement into others, and stumbles over a comment
    behind a semicolon there."""
    text = sql.encode()
    end = len(text)
    for place, kind in reversed(duckdb.tokenize(sql)):
        if kind != duckdb.token_type.comment and text[place : place + 1] != b";":
            break
        end = place
    return text[:end].decode()


def _form_of(to: str | None) -> str:
    """The format that a file's name promises."""
    suffix = Path(to or "").suffix[1:].lower()
    return suffix if suffix in FORMATS else "table"


def _write(relation: duckdb.DuckDBPyRelation, form: str, path: Path) -> None:
    if form == "csv":
        relation.write_csv(str(path), header=True)
    elif form == "parquet":
        relation.write_parquet(str(path), compression="zstd")
    elif form == "json":
        names = _distinct(relation.columns)
        records = [dict(zip(names, map(_jsonable, row), strict=True)) for row in relation.fetchall()]
        path.write_text(json.dumps(records, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    else:
        rows = relation.limit(MOST_TABLE_ROWS + 1).fetchall()
        path.write_text(table(relation.columns, rows[:MOST_TABLE_ROWS]) + "\n", encoding="utf-8")
        if len(rows) > MOST_TABLE_ROWS:
            click.echo(f"only the first {MOST_TABLE_ROWS} rows; --format csv, json or parquet has all", err=True)


def _distinct(names: Sequence[str]) -> list[str]:
    """Columns of the same name, in any case, numbered as DuckDB numbers them in CSV and Parquet: a, a_1, a_2."""
    distinct: dict[str, str] = {}
    for name in names:
        made, number = name, 0
        while made.lower() in distinct:
            number += 1
            made = f"{name}_{number}"
        distinct[made.lower()] = made
    return list(distinct.values())


def _jsonable(value: Any) -> Any:
    """The value as JSON has it: bytes in base64, null for numbers that JSON lacks, text for what it has no type for."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _jsonable(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    return value if value is None or isinstance(value, str | int) else str(value)
