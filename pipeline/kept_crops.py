"""One file of kept crops, of which only the row groups are fetched that hold the wanted segments."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage.store import Store


class KeptCrops:
    """Its footer and key column are read once, so that unit after unit can be looked up in one large file.

    Everything raises FileNotFoundError if the file is gone.
    """

    def __init__(self, store: Store, path: str) -> None:
        self._parquet = pq.ParquetFile(store.open_ranges(path), pre_buffer=True)
        metadata = self._parquet.metadata
        self._segment_ids = self._parquet.read(["segment_id"])["segment_id"].combine_chunks()
        rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._group_of_row = np.repeat(np.arange(len(rows)), rows)

    def pngs(self, segment_ids: pa.Array) -> dict[str, bytes]:
        """face_id -> PNG of these segments' faces."""
        found: dict[str, bytes] = {}
        wanted = np.asarray(pc.is_in(self._segment_ids, segment_ids))
        for group in np.unique(self._group_of_row[wanted]).tolist():  # one by one: memory holds one of them
            rows = self._parquet.read_row_group(group, columns=["face_id", "png"])
            rows = rows.filter(pa.array(wanted[self._group_of_row == group]))
            found |= dict(zip(rows["face_id"].to_pylist(), rows["png"].to_pylist(), strict=True))
        return found
