"""A staged file that is written piece by piece: row groups of a good size, never more than one of them in memory."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import StoreError
from pipeline.ledger.staging import STAGING, StagedFile
from pipeline.storage.store import Store


class RowsFile:
    """One file of a table in the making: spooled to a local file, then uploaded into the run's staging folder.

    All of it raises StoreError, for the temporary folder as for the store.
    """

    def __init__(self, store: Store, run_id: str, table: str, *, may_be_empty: bool = False) -> None:
        self._store = store
        self._path = f"{STAGING}/{run_id}/{uuid.uuid4().hex}-{table}.parquet"
        self._table = table
        self._may_be_empty = may_be_empty
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        self._rows = 0
        with _spooling():
            self._folder = tempfile.TemporaryDirectory(prefix="ran-merge-")
        self._spool = Path(self._folder.name) / "part.parquet"
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> RowsFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # the file is not finished, and nobody takes it
                self._writer.close()
        self._folder.cleanup()

    def add(self, rows: pa.Table) -> None:
        """Appends rows; memory holds at most one row group of them."""
        if rows.num_rows:
            self._pending.append(rows)
            self._pending_rows += rows.num_rows
            self._pending_bytes += rows.nbytes
            is_enough = self._pending_bytes >= schema.row_group_bytes(self._table)
            if is_enough or self._pending_rows >= schema.ROW_GROUP_ROWS:
                self._flush()

    def finish(self) -> list[StagedFile]:
        """Uploads the file; none if it has no rows, unless it may be empty."""
        self._flush()
        if self._writer is None and not self._may_be_empty:
            return []
        with _spooling():
            if self._writer is None:
                self._writer = schema.writer(self._spool, self._table)
            self._writer.close()
            self._writer = None
            with self._spool.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = self._spool.stat().st_size
        self._store.upload(self._spool, self._path)
        return [StagedFile(self._table, self._path, self._rows, size, digest)]

    def _flush(self) -> None:
        if not self._pending:
            return
        rows = pa.concat_tables([table.replace_schema_metadata(None) for table in self._pending])
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        with _spooling():
            if self._writer is None:
                self._writer = schema.writer(self._spool, self._table)
            schema.write_row_groups(self._writer, rows, self._table)
        self._rows += rows.num_rows


@contextlib.contextmanager
def _spooling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the temporary folder {tempfile.gettempdir()} can't be written ({error.strerror or error}): make room "
            "there, or set TMPDIR to another folder, and run the same command again"
        ) from error
