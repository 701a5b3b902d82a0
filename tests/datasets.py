"""Tables of a dataset as a user reads them: by a plain glob, without the log."""

from __future__ import annotations

from tests.faults.comparison import RUN_COLUMNS, table
from tests.faults.comparison import assert_same_tables as assert_equal_datasets

__all__ = ["RUN_COLUMNS", "SAME_WEIGHTS_TOLERANCE", "assert_equal_datasets", "table"]

#: How far the answers of the same weights may lie apart, as docs/dataset.md promises for `reprocess`.
SAME_WEIGHTS_TOLERANCE = 1e-4
