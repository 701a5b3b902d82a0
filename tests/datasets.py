"""Tables of a dataset as a user reads them: by a plain glob, without the log."""

from __future__ import annotations

from tests.faults.comparison import RUN_COLUMNS, table
from tests.faults.comparison import assert_same_tables as assert_equal_datasets

__all__ = ["RUN_COLUMNS", "assert_equal_datasets", "table"]
