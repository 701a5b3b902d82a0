"""Tables of a dataset as a user reads them: by a plain glob, without the log."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

#: Columns that differ from run to run by nature; everything else must be equal.
RUN_COLUMNS = {"run_id", "fetch_s", "decode_s", "detect_s", "infer_s", "attempts", "node"}


def table(output: Path, name: str) -> pa.Table:
    """All rows of a table, in a canonical order."""
    files = sorted((output / name).rglob("*.parquet"))
    rows = pa.concat_tables([pq.read_table(file) for file in files])
    key = {"faces": ["face_id", "model_id"], "segments": ["segment_id", "model_id"], "sources": ["source_id"]}
    return rows.sort_by([(column, "ascending") for column in key.get(name, ["face_id"])])


def comparable(output: Path, name: str) -> list[dict[str, object]]:
    """Rows without what differs from run to run; floats rounded to what two processes agree on."""
    rows = table(output, name)
    rows = rows.drop_columns([column for column in rows.column_names if column in RUN_COLUMNS])
    return [{key: _rounded(value) for key, value in row.items()} for row in rows.to_pylist()]


def assert_equal_datasets(left: Path, right: Path) -> None:
    """Every table of both has the same rows."""
    for name in ("faces", "segments", "sources"):
        assert comparable(left, name) == comparable(right, name), f"table {name} differs"


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
