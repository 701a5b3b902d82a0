"""Parquet files of a data set, and an error that names the one that is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from ran_model.datasets.listing import DataError


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What Arrow raises, under many names, about a file that is damaged or no Parquet becomes a DataError."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        raise DataError(f"{path} is no Parquet file that can be read: {error}") from error
