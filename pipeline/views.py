"""DuckDB over a dataset's live files: the views `faces`, `frames`, `segments`, `sources`, `errors` and `all_faces`."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from pipeline import schema
from pipeline.errors import UsageError
from pipeline.ledger.live import live_paths
from pipeline.ledger.log import LogState
from pipeline.storage.store import Store

VIEWS = ("faces", "frames", "segments", "sources", "errors", "all_faces", "all_segments", "crops")


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """A connection that can read the store's files."""
    connection = duckdb.connect()
    if not store.is_local:
        connection.register_filesystem(store.filesystem)
    return connection


def create_views(
    connection: duckdb.DuckDBPyConnection, store: Store, state: LogState, model: str | None = None
) -> None:
    """Makes the views, or makes them anew, over exactly the files that the log says are live.

    With several models, `faces`, `frames`, `segments` and `errors` follow `model`, or `current_model` if it is None;
    `all_faces` and `all_segments` have every model.
    """
    for table, view in (
        ("faces", "all_faces"),
        ("segments", "all_segments"),
        ("sources", "sources"),
        ("crops", "crops"),
    ):
        _create(connection, store, view, table, live_paths(store, state, table))
    model = model or current_model(state)
    where = f"WHERE model_id = '{model}'" if model else ""
    connection.execute(f"CREATE OR REPLACE VIEW faces AS SELECT * FROM all_faces {where}")
    connection.execute(f"CREATE OR REPLACE VIEW segments AS SELECT * FROM all_segments {where}")
    columns = ", ".join(
        name if name in schema.SEGMENTS.names else f'unnest({name}s) AS "{name}"' for name in schema.FRAMES.names
    )
    connection.execute(f"CREATE OR REPLACE VIEW frames AS SELECT {columns} FROM segments")
    columns = ", ".join(schema.ERRORS.names)
    connection.execute(f"CREATE OR REPLACE VIEW errors AS SELECT {columns} FROM segments WHERE status <> 'ok'")


def current_model(state: LogState) -> str | None:
    """The newest model that has every segment; if none has, the one with the most, the newest among equals.

    Counts tell: a model that has every segment has more than one that has not.
    """
    models = [model for model in state.models if state.count(model)]
    most = max((state.count(model) for model in models), default=0)
    return next((model for model in reversed(models) if state.count(model) == most), None)


def find_model(store: Store, state: LogState, name: str) -> str:
    """The model_id that `name` is, or is the beginning of. Raises UsageError, with the models there are, if it is the
    beginning of none or of several."""
    found = [name] if name in state.models else [model for model in state.models if name and model.startswith(name)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(state.models) or "none yet"
    if found:
        raise UsageError(f"model {name} is the beginning of several; models are: {there}")
    raise UsageError(f"model {name!r} has no rows in {store.url}; models are: {there}")


def _create(connection: duckdb.DuckDBPyConnection, store: Store, view: str, table: str, paths: Sequence[str]) -> None:
    if not paths:
        connection.register(f"_{view}", schema.empty(table))
        connection.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM _{view}")
        return
    quoted = ", ".join("'" + store.url_of(path).replace("'", "''") + "'" for path in paths)
    connection.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM read_parquet([{quoted}])")
