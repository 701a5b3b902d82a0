"""A LogState as one Parquet file, so that a start reads the newest checkpoint and the entries after it.

One row per segment, file, run, …: `kind` says what it is. `id` holds the bytes of a hex id, `text` a name or the JSON
of a file, `number` a count. `SELECT kind, model_id, count(*) … GROUP BY ALL` shows what is in one.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DamageError, NewerVersionError
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.id_set import IdSet
from pipeline.ledger.live import UNREADABLE
from pipeline.ledger.state import SEGMENT_DIGITS, SOURCE_DIGITS, LogState

CHECKPOINT_VERSION = 1

_SCHEMA = pa.schema(
    {
        "kind": pa.string(),
        "model_id": pa.string(),
        "id": pa.binary(),
        "text": pa.string(),
        "number": pa.int64(),
    }
)
_GROUP_ROWS = 1 << 18


def to_parquet(state: LogState) -> bytes:
    """The checkpoint file of a state. Ids lie in row groups of their own, of one kind and model each."""
    rows: list[tuple[str, str, str | None, int | None]] = []
    rows += [("model", model_id, None, None) for model_id in state.models]
    rows += [("tail", "", source_id, windows) for source_id, windows in state.tails.items()]
    rows += [("closed", "", run_id, None) for run_id in sorted(state.closed_runs)]
    rows += [("removed", "", json.dumps(pair), None) for pair in state.removed_files.items()]
    rows += [("run", "", f"{run_id} {nonce}", None) for run_id, nonce in state.last_nonces.items()]
    rows += [("file", file.model_id, json.dumps(asdict(file)), None) for file in state.live.values()]
    kinds, models, texts, numbers = ([row[column] for row in rows] for column in range(4))
    metadata = {b"ran_checkpoint": str(CHECKPOINT_VERSION).encode(), b"entries": str(state.next_entry).encode()}
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, _SCHEMA.with_metadata(metadata), compression="zstd", write_page_checksum=True
    ) as writer:
        arrays = [kinds, models, pa.nulls(len(rows), pa.binary()), texts, numbers]
        writer.write_table(_table(arrays), row_group_size=max(1, len(rows)))
        for kind, model_id, ids in _id_sets(state):
            packed = ids.packed()
            for start in range(0, len(packed), _GROUP_ROWS):
                part = packed.slice(start, _GROUP_ROWS).cast(pa.binary())
                count = len(part)
                nulls = pa.nulls(count, pa.string()), pa.nulls(count, pa.int64())
                writer.write_table(_table([pa.repeat(kind, count), pa.repeat(model_id, count), part, *nulls]))
    return sink.getvalue()


def from_parquet(data: bytes, name: str) -> LogState:
    """The state in checkpoint file `name`. Raises DamageError, naming it, if it can't be read, or NewerVersionError."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        metadata = file.schema_arrow.metadata or {}
        if int(metadata[b"ran_checkpoint"]) > CHECKPOINT_VERSION:
            raise NewerVersionError(
                f"log checkpoint {name} was written by a newer version of ran-pipeline; upgrade this one"
            )
        state = _parsed(file)
        state.next_entry = int(metadata[b"entries"])
    except (TypeError, AttributeError, *UNREADABLE) as error:
        raise DamageError(
            f"log checkpoint {name} is damaged ({error}); delete it and every later one: the entries are still there"
        ) from error
    return state


def _parsed(file: pq.ParquetFile) -> LogState:
    rows = defaultdict[str, list[tuple[str, str, int]]](list)
    for row in file.read_row_group(0).to_pylist():
        rows[row["kind"]].append((row["model_id"], row["text"], row["number"]))
    ids = defaultdict[tuple[str, str], list[pa.Array]](list)
    for group in range(1, file.num_row_groups):
        kind, model_id = (_only_value(file.metadata.row_group(group).column(column)) for column in (0, 1))
        ids[kind, model_id].append(file.read_row_group(group, columns=["id"])["id"].combine_chunks())

    def id_set(kind: str, digits: int, model_id: str = "") -> IdSet:
        return IdSet.from_packed(digits, pa.concat_arrays(ids.pop((kind, model_id), [pa.array([], pa.binary())])))

    state = LogState()
    for model_id, _, _ in rows["model"]:
        committed, covered = (id_set(kind, SEGMENT_DIGITS, model_id) for kind in ("segment", "covered"))
        state.set_committed(model_id, committed, covered)
    state.sources = id_set("source", SOURCE_DIGITS)
    state.crops = id_set("crop", SEGMENT_DIGITS)
    state.tails = {source_id: windows for _, source_id, windows in rows["tail"]}
    state.closed_runs = {run_id for _, run_id, _ in rows["closed"]}
    state.removed_files = dict(json.loads(pair) for _, pair, _ in rows["removed"])
    state.last_nonces = dict(run.split(" ", 1) for _, run, _ in rows["run"])
    state.live = {file.path: file for file in (CommittedFile(**json.loads(text)) for _, text, _ in rows["file"])}
    return state


def _only_value(column: pq.ColumnChunkMetaData) -> str:
    """What every row of a string column has, by its statistics."""
    if column.physical_type != "BYTE_ARRAY":  # Arrow would end the process when asked for statistics of another type
        raise ValueError(f"{column.path_in_schema} is {column.physical_type}")
    value: str = column.statistics.min
    return value


def _id_sets(state: LogState) -> Iterator[tuple[str, str, IdSet]]:
    yield "source", "", state.sources
    yield "crop", "", state.crops
    for model_id in state.models:
        yield "segment", model_id, state.committed(model_id)
        yield "covered", model_id, state.covered(model_id)


def _table(columns: list[object]) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in zip(columns, _SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)
