"""Files that DuckDB can't read or write: what of its messages says so, and what the user is told."""

from __future__ import annotations

import errno
import os
import re

from pipeline.errors import StoreError
from pipeline.terminal import printable

_WRITTEN = re.compile(r'Could not write file \\?"(.+?)\\?"')
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


def as_full_disk(error: Exception) -> OSError | None:
    """DuckDB's error as the system's own, with the file that was written; None if no disk was full."""
    file = _WRITTEN.search(str(error))
    for code in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(code) in str(error):
            return OSError(code, os.strerror(code), file and file[1])
    return None
