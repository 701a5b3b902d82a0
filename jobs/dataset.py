"""A dataset opened for reading, for every command that only looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from jobs.damage import as_damage
from jobs.options import parse_storage_options
from pipeline.config import Extraction
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.storage.store import Store
from pipeline.views import connect, find_model


@dataclass(frozen=True, kw_only=True)
class OpenedDataset:
    """The store, the log as it is now, and a DuckDB connection with the views."""

    store: Store
    extraction: Extraction
    log: CommitLog
    connection: duckdb.DuckDBPyConnection

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows as dictionaries. parameters: values of the question marks in `sql`."""
        result = self.connection.execute(sql, list(parameters))
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def find_model(self, name: str) -> str:
        """As `pipeline.views.find_model`."""
        return find_model(self.store, self.log.state, name)


@contextmanager
def opened(output: str, storage_options: tuple[str, ...]) -> Iterator[OpenedDataset]:
    """Opens OUT. Raises UsageError when there is no dataset, StoreError when a file of it is damaged."""
    store = Store(output, parse_storage_options(storage_options))
    dataset = Dataset.open(store)
    log = CommitLog(store)
    log.refresh()
    try:
        connection = connect(store, log.state)
    except duckdb.Error as error:
        raise as_damage(error) from error
    try:
        yield OpenedDataset(store=store, extraction=dataset.extraction, log=log, connection=connection)
    finally:
        connection.close()
