"""A file of the dataset that DuckDB or Arrow can't read: which exceptions say so, and what the user is told."""

from __future__ import annotations

import re

from pipeline.errors import StoreError
from pipeline.terminal import printable

_READERS = ("_duckdb", "duckdb", "pyarrow")
_TELLS = re.compile(r"parquet|No files found|TProtocol|thrift|zstd", re.I)


def is_of_a_damaged_file(error: Exception) -> bool:
    """Whether DuckDB or Arrow, which read the dataset's files in many places, could not read one as Parquet.

    DuckDB wraps what its Parquet reader's libraries throw ("invalid TType") in its base class, which it uses for
    nothing else.
    """
    is_a_readers = type(error).__module__.split(".")[0] in _READERS
    return is_a_readers and (type(error).__name__ == "Error" or _TELLS.search(str(error)) is not None)


def as_damage(error: Exception) -> StoreError:
    """What to tell instead."""
    reason = printable(str(error).splitlines()[0])
    return StoreError(
        f"a file of the dataset is missing or damaged ({reason}): `verify OUT` names it, and "
        "`verify OUT --repair` mends the dataset"
    )
