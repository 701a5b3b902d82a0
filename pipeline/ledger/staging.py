"""Staged files: whole, durable, uniquely named, and seen by no reader until the driver commits them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline import schema
from pipeline.ledger.entry import CommittedFile
from pipeline.storage.store import Store

STAGING = "_ran/staging"
ERRORS_SUFFIX = "-errors.parquet"


@dataclass(frozen=True)
class StagedFile:
    """One Parquet file of table `table` below the run's staging folder; sha256 (hex) is over its bytes."""

    table: str
    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StagedSet:
    """What one dispatch unit staged; committed whole, less segments that another set or driver committed first.

    segment_ids: every segment that is done, once each, with `covered`.
    covered: those of them that have no row of their own (windows behind a break that an earlier window reports).
    files: each holds rows of these segments only; none when there is nothing to write.
    tails: source_id -> number of windows that the source is now known to have.
    tellers: covered segment -> the window that speaks for it, by an error row or being covered itself. It is committed
    only beside that: another driver may have read the window well, and come first. One that is not named always is.
    """

    segment_ids: Sequence[str]
    files: Sequence[StagedFile] = ()
    covered: Sequence[str] = ()
    tails: dict[str, int] = field(default_factory=dict)
    tellers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.segment_ids)) != len(self.segment_ids):
            raise ValueError("a staged set names a segment twice; its rows could not be told apart")
        if not set(self.covered) <= set(self.segment_ids):
            raise ValueError("a staged set covers segments that it does not name")
        if not self.tellers.keys() <= set(self.covered):
            raise ValueError("a staged set names who speaks for segments that it does not cover")


def stage_table(store: Store, run_id: str, table_name: str, rows: pa.Table) -> StagedFile:
    """Writes `rows` of table `table_name` into the run's staging folder, durably.

    Raises ValueError if they differ from the table's schema, StoreError if the store fails.
    """
    sink = pa.BufferOutputStream()
    schema.write_table(rows, sink, table_name)
    data = sink.getvalue().to_pybytes()
    path = f"{STAGING}/{run_id}/{uuid.uuid4().hex}-{table_name}.parquet"
    store.write_bytes(path, data)
    return StagedFile(table_name, path, rows.num_rows, len(data), hashlib.sha256(data).hexdigest())


def to_commit(file: StagedFile, *, run_id: str, model_id: str, only_errors: bool = False) -> CommittedFile:
    """The staged file under the public name that it gets. only_errors: it has nothing but error and partial rows."""
    owner = model_id if file.table in ("faces", "segments") else ""
    folder = f"{file.table}/{owner}" if owner else file.table
    unique = file.path.rpartition("/")[2][:16]
    return CommittedFile(
        table=file.table,
        path=f"{folder}/part-{run_id}-{unique}{ERRORS_SUFFIX if only_errors else '.parquet'}",
        staged=file.path,
        rows=file.rows,
        bytes=file.bytes,
        sha256=file.sha256,
        model_id=owner,
    )


def staging_run(path: str) -> str:
    """The run_id in a staged file's path."""
    return path.split("/")[2]
