"""Live files for readers that go by the log: a file that is committed but not public yet is read where it is staged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store

T = TypeVar("T")


def live_paths(store: Store, state: LogState, table: str, model_id: str | None = None) -> list[str]:
    """Paths where the live files of a table lie now, oldest first; of one model if given."""
    files = state.files(table, model_id)
    if not files:
        return []
    public = set(store.list(table))
    return [
        file.staged if file.path not in public and store.exists(file.staged) else file.path  # published while we looked
        for file in files
    ]


def read_live(store: Store, file: CommittedFile) -> bytes:
    """The bytes of a live file, public yet or not. Raises StoreError if it is gone."""
    return _where_it_is(store, file, store.read_bytes)


def read_live_columns(store: Store, file: CommittedFile, columns: Sequence[str]) -> pa.Table:
    """These columns of a live file, of which no others are fetched. Raises StoreError if it is gone."""

    def read(path: str) -> pa.Table:
        return pq.ParquetFile(store.open_ranges(path), pre_buffer=True).read(list(columns))

    return _where_it_is(store, file, read)


def _where_it_is(store: Store, file: CommittedFile, read: Callable[[str], T]) -> T:
    for path in (file.path, file.staged, file.path):  # again: it may be published between the first two looks
        try:
            return read(path)
        except FileNotFoundError:
            continue
    raise StoreError(
        f"{store.url_of(file.path)} is gone: another run replaced it meanwhile (run again), or it was deleted by hand "
        f"(`verify {store.url} --repair`)"
    )
