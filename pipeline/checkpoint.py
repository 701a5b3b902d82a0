"""A LogState as one Parquet file, so that a start reads the newest checkpoint and the entries after it.

One row per segment, file, run, …: `kind` says what it is. `id` holds the bytes of a hex id, `text` a name or the JSON
of a file, `number` a count. `SELECT kind, model_id, count(*) … GROUP BY ALL` shows what is in one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.id_set import IdSet
from pipeline.log_entry import CommittedFile
from pipeline.log_state import SEGMENT_DIGITS, SOURCE_DIGITS, LogState

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


def to_parquet(state: LogState) -> bytes:
    """The checkpoint file of a state."""
    rows: list[tuple[str, str, str | None, int | None]] = []
    rows += [("model", model_id, None, None) for model_id in state.models]
    rows += [("tail", "", source_id, windows) for source_id, windows in state.tails.items()]
    rows += [("closed", "", run_id, None) for run_id in sorted(state.closed_runs)]
    rows += [("removed", "", json.dumps(pair), None) for pair in state.removed_files.items()]
    rows += [("run", "", f"{run_id} {nonce}", None) for run_id, nonce in state.last_nonces.items()]
    rows += [("file", file.model_id, json.dumps(asdict(file)), None) for file in state.live.values()]
    tables = [_rows(rows), _ids("source", "", state.sources), _ids("crop", "", state.crops)]
    for model_id in state.models:
        tables.append(_ids("segment", model_id, state.committed(model_id)))
        tables.append(_ids("covered", model_id, state.covered(model_id)))
    metadata = {b"ran_checkpoint": str(CHECKPOINT_VERSION).encode(), b"entries": str(state.next_entry).encode()}
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables(tables).replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue()


def from_parquet(data: bytes, name: str) -> LogState:
    """The state in checkpoint file `name`. Raises StoreError, naming it, if it can't be read."""
    try:
        table = pq.read_table(pa.BufferReader(data))
        metadata = table.schema.metadata or {}
        if int(metadata[b"ran_checkpoint"]) > CHECKPOINT_VERSION:
            raise StoreError(f"log checkpoint {name} was written by a newer version of ran-pipeline; upgrade this one")
        return _parsed(table, int(metadata[b"entries"]))
    except (ValueError, TypeError, KeyError, OSError) as error:  # pyarrow's own errors are ValueErrors and OSErrors
        raise StoreError(
            f"log checkpoint {name} is damaged ({error}); delete it and every later one: the entries are still there"
        ) from error


def _parsed(table: pa.Table, entries: int) -> LogState:
    def texts(kind: str) -> list[str]:
        return list(table.filter(pc.equal(table["kind"], kind))["text"].to_pylist())

    def ids(kind: str, digits: int, model_id: str = "") -> IdSet:
        chosen = table.filter(pc.and_(pc.equal(table["kind"], kind), pc.equal(table["model_id"], model_id)))
        return IdSet.from_packed(digits, chosen["id"].combine_chunks())

    state = LogState()
    state.next_entry = entries
    for model_id in table.filter(pc.equal(table["kind"], "model"))["model_id"].to_pylist():
        state.set_committed(
            model_id, ids("segment", SEGMENT_DIGITS, model_id), ids("covered", SEGMENT_DIGITS, model_id)
        )
    state.sources = ids("source", SOURCE_DIGITS)
    state.crops = ids("crop", SEGMENT_DIGITS)
    tails = table.filter(pc.equal(table["kind"], "tail"))
    state.tails = dict(zip(tails["text"].to_pylist(), tails["number"].to_pylist(), strict=True))
    state.closed_runs = set(texts("closed"))
    state.removed_files = dict(json.loads(text) for text in texts("removed"))
    for text in texts("run"):
        run_id, _, nonce = text.partition(" ")
        state.last_nonces[run_id] = nonce
    for text in texts("file"):
        file = CommittedFile(**json.loads(text))
        state.live[file.path] = file
    return state


def _rows(rows: Iterable[tuple[str, str, str | None, int | None]]) -> pa.Table:
    kinds, models, texts, numbers = zip(*rows, strict=True) if rows else ((), (), (), ())
    arrays = [pa.array(kinds, pa.string()), pa.array(models, pa.string()), pa.nulls(len(kinds), pa.binary())]
    return pa.Table.from_arrays([*arrays, pa.array(texts, pa.string()), pa.array(numbers, pa.int64())], schema=_SCHEMA)


def _ids(kind: str, model_id: str, ids: IdSet) -> pa.Table:
    packed = ids.packed().cast(pa.binary())
    count = len(packed)
    arrays = [pa.repeat(kind, count), pa.repeat(model_id, count), packed]
    return pa.Table.from_arrays([*arrays, pa.nulls(count, pa.string()), pa.nulls(count, pa.int64())], schema=_SCHEMA)
