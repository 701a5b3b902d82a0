"""Rows of a CSV file with the columns that a reader needs, and errors that name the file, line and column."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ran_model.datasets.listing import DataError


def read_rows(path: Path, columns: Sequence[str], *, header: Sequence[str] | None = None) -> Iterator[dict[str, str]]:
    """The rows as dictionaries, with the line's number under "line".

    header: the names of the columns where the file may come without its first line: a first line that has none of
    them is then data. Raises DataError for a missing file or column, for a row with too few fields, and for a file that
    is no CSV in UTF-8.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: it must be a CSV file with the columns {', '.join(columns)}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        lines = _lines(path, rows)
        first = next(lines, [])
        names = [name.strip() for name in first]
        is_headless = header is not None and not set(names) & set(header)
        if is_headless and header is not None:
            names = list(header)
        missing = [name for name in columns if name not in names]
        if missing:
            has_others = any(mark in name for name in names for mark in ";\t")
            hint = "; fields must be separated by commas" if has_others else ""
            raise DataError(
                f"{path} has no column {', '.join(missing)}: it has {', '.join(names) or 'no columns'}{hint}"
            )
        if is_headless and first:
            yield _row(path, 1, names, first)
        for fields in lines:
            if any(field.strip() for field in fields):
                yield _row(path, rows.line_num, names, fields)


def _lines(path: Path, rows: Any) -> Iterator[list[str]]:
    """The fields of each line that is left in a `csv.reader`."""
    try:
        yield from rows
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}; is a quote before it not closed?") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, after line {rows.line_num}: it must be text in UTF-8: {error}") from error


def integer(path: Path, row: dict[str, str], column: str) -> int:
    """A field as a whole number; DataError otherwise. 3.0 is 3."""
    try:
        value = float(row[column])
        if value != int(value):
            raise ValueError
    except (ValueError, OverflowError):
        raise DataError(f"{path}, line {row['line']}: {column} is {row[column]!r}, not a whole number") from None
    return int(value)


def _row(path: Path, line: int, names: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    if len(fields) < len(names):
        raise DataError(f"{path}, line {line}: {len(fields)} fields, where the columns are {', '.join(names)}")
    return {**{name: field.strip() for name, field in zip(names, fields, strict=False)}, "line": str(line)}
