"""A dataset opened for reading, for every command that only looks."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import duckdb

from jobs.damage import as_damage, without_sql
from jobs.options import parse_storage_options
from jobs.sql import literal
from pipeline.config import Extraction
from pipeline.errors import CapacityError
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.storage.store import Store
from pipeline.views import connect, create_views, current_model, find_model

T = TypeVar("T")

MEMORY_GIB = 2  # of a command that goes through all faces; what needs more is spilled to disk

_MOST_MOVES = 5  # of files that a command may meet; a run publishes about once a minute


@dataclass(kw_only=True)
class OpenedDataset:
    """The store, the log as it is now, and a DuckDB connection with the views. chosen_model: whose rows the views are
    to show; None: those of the current one."""

    store: Store
    extraction: Extraction
    log: CommitLog
    connection: duckdb.DuckDBPyConnection
    chosen_model: str | None = None
    _is_following: bool = field(default=False, init=False, repr=False)

    @property
    def model(self) -> str | None:
        """The model that the views show; None where nothing is committed yet."""
        return self.chosen_model or current_model(self.log.state)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows as dictionaries. parameters: values of the question marks in `sql`."""

        def rows() -> list[dict[str, Any]]:
            result = self.connection.execute(sql, list(parameters))
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

        return self.following(rows)

    def execute(self, sql: str) -> None:
        """Makes a view or table."""
        self.following(lambda: self.connection.execute(sql))

    def following(self, act: Callable[[], T]) -> T:
        """What `act` returns. It reads the views; a run that publishes a file, or a compaction that replaces it, takes
        that away from where they look, and then they are made anew and `act` is called again.

        Raises StoreError if a file of the dataset can't be read; DuckDB's other errors come as they are. Within `act`,
        `query` and `execute` leave all of that to this call: what it reads is of one state of the log.
        """
        if self._is_following:
            return act()
        self._is_following = True
        try:
            return self._followed(act)
        finally:
            self._is_following = False

    def _followed(self, act: Callable[[], T]) -> T:
        moves = 0
        while True:
            try:
                if moves:
                    self.make_views()
                return act()
            except (duckdb.Error, FileNotFoundError) as error:
                named = self.files_in(error)
                if named and moves < _MOST_MOVES:
                    self.log.refresh()
                    if not all(path in self.log.state.live for path in named):
                        moves += 1
                        continue
                # Its bare class is what DuckDB makes of errors of its Parquet reader's libraries, and of nothing else.
                if type(error) is duckdb.Error or self._is_ours(named):
                    raise as_damage(error) from error
                raise
            except RuntimeError as error:  # a string that is no UTF-8
                raise as_damage(error) from error

    def _is_ours(self, paths: Sequence[str]) -> bool:
        """Whether a live file is among them, public yet or not."""
        return any(path in (file.path, file.staged) for file in self.log.state.files() for path in paths)

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Inside, DuckDB takes at most MEMORY_GIB and spills what needs more to a temporary folder.

        Raises CapacityError when that disk is full too.
        """
        with tempfile.TemporaryDirectory(prefix="ran-spill-") as folder:
            self.execute(f"SET temp_directory = {literal(folder)}")
            self.execute(f"SET memory_limit = '{MEMORY_GIB}GiB'")
            try:
                yield
            except duckdb.OutOfMemoryException as error:
                reason = str(error).splitlines()[0]
                raise CapacityError(
                    f"the disk of {tempfile.gettempdir()} is too small to sort so many rows ({reason}): "
                    "let TMPDIR name a folder with more room"
                ) from error

    def make_views(self) -> None:
        """Makes the views over what is live by the log as it was read last."""
        create_views(self.connection, self.store, self.log.state, self.chosen_model)

    def files_in(self, error: Exception) -> list[str]:
        """Files below OUT that an error's message names, SQL that it quotes aside, as the log calls them."""
        roots = "|".join(re.escape(root) for root in (self.store.url, self.store.path_of("")))
        return re.findall(rf"(?:{roots})/([^\n\"']+?\.parquet)", without_sql(str(error)))

    def find_model(self, name: str) -> str:
        """As `pipeline.views.find_model`."""
        return find_model(self.store, self.log.state, name)


@contextmanager
def opened(output: str, storage_options: tuple[str, ...], *, model: str | None = None) -> Iterator[OpenedDataset]:
    """Opens OUT. model: an id or its beginning, for the views to show; None: the current one.

    Raises UsageError when there is no dataset or no such model, StoreError when a file of it is damaged.
    """
    store = Store(output, parse_storage_options(storage_options))
    dataset = Dataset.open(store)
    log = CommitLog(store)
    log.refresh()
    with closing(connect(store)) as connection:
        made = OpenedDataset(
            store=store,
            extraction=dataset.extraction,
            log=log,
            connection=connection,
            chosen_model=None if model is None else find_model(store, log.state, model),
        )
        try:
            made.following(made.make_views)
        except duckdb.Error as error:
            raise as_damage(error) from error
        yield made
