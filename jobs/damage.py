"""A file of the dataset that DuckDB can't read: what of its messages says so, and what the user is told."""

from __future__ import annotations

import re

from pipeline.errors import StoreError
from pipeline.terminal import printable

_QUOTED_SQL = re.compile(r"^LINE \d+:.*$", re.M)


def without_sql(message: str) -> str:
    """DuckDB's message without the line of SQL that it quotes, in which any file may be named."""
    return _QUOTED_SQL.sub("", message)


def as_damage(error: Exception) -> StoreError:
    """What to tell instead."""
    reason = printable(str(error).splitlines()[0])
    return StoreError(
        f"a file of the dataset can't be read ({reason}): `verify OUT` tells whether it is missing or damaged, and "
        "`verify OUT --repair` mends the dataset"
    )
