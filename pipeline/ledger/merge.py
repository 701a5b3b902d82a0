"""Many small staged files become one file per table, holding exactly the rows that a commit takes.

Memory: a few staged files and one row group. A staged file that is large already, and of which nothing is dropped, is
taken as it is, so that pictures of faces don't travel through the driver.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import StoreError
from pipeline.ledger.id_set import IdSet
from pipeline.ledger.rows_file import RowsFile
from pipeline.ledger.selection import Batch
from pipeline.ledger.staging import StagedFile
from pipeline.storage.store import Store

#: Staged files from this size on are not merged further.
LARGE_BYTES = 16 << 20
_READ_AHEAD = 4


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The commit's files in publication order, each still staged, and the ids of the sources that they hold, and of the
    segments that have faces.

    errors: paths among them with nothing but error and partial rows. written: paths that were written here, not by a
    worker.
    """

    files: list[StagedFile] = field(default_factory=list)
    errors: set[str] = field(default_factory=set)
    written: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    with_faces: set[str] = field(default_factory=set)


def merge(store: Store, run_id: str, batch: Batch, known_sources: IdSet) -> Merged:
    """Writes the batch's rows into staging. Raises StoreError, also for a staged file that is damaged or gone, and
    ValueError if a file's rows are not those that its set names."""
    merged = Merged()
    for table in ("crops", "sources", "faces", "segments"):
        pieces: list[_Piece] = []
        for chosen in batch.selections:
            wanted = chosen.crops if table == "crops" else chosen.segments
            for file in chosen.staged.files:
                if file.table != table or (table != "sources" and not wanted):
                    continue
                whole = wanted == frozenset(chosen.staged.segment_ids)
                if whole and file.bytes >= LARGE_BYTES and table in ("faces", "crops"):
                    merged.files.append(file)
                else:
                    pieces.append(_Piece(file, wanted, frozenset(chosen.staged.segment_ids), whole))
        if table == "sources":
            _write(store, run_id, table, _new_sources(_read_all(store, pieces), known_sources, merged.sources), merged)
        elif table == "segments":
            _write_segments(store, run_id, pieces, batch, merged)
        else:
            _write(store, run_id, table, (piece.selected(rows) for piece, rows in _read_all(store, pieces)), merged)
    return merged


@dataclass(frozen=True)
class _Piece:
    """A staged file of which the rows of `wanted` segments are taken; `named` are all that its set names."""

    file: StagedFile
    wanted: frozenset[str]
    named: frozenset[str]
    whole: bool

    def selected(self, rows: pa.Table) -> pa.Table:
        strangers = set(pc.unique(rows["segment_id"]).to_pylist()) - self.named
        if strangers:
            raise ValueError(f"{self.file.path} has rows of segment {min(strangers)}, which its set does not name")
        if self.whole:
            return rows
        return rows.filter(pc.is_in(rows["segment_id"], pa.array(sorted(self.wanted), pa.string())))


def _read_all(store: Store, pieces: Iterable[_Piece]) -> Iterator[tuple[_Piece, pa.Table]]:
    """The pieces' rows in order; a few files are fetched ahead."""
    waiting: deque[tuple[_Piece, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        for piece in pieces:
            waiting.append((piece, pool.submit(_read, store, piece.file)))
            if len(waiting) > _READ_AHEAD:
                oldest, rows = waiting.popleft()
                yield oldest, rows.result()
        while waiting:
            oldest, rows = waiting.popleft()
            yield oldest, rows.result()


def _read(store: Store, file: StagedFile) -> pa.Table:
    try:
        data = store.read_bytes(file.path)
    except FileNotFoundError as error:
        raise StoreError(f"staged file {store.url_of(file.path)} is gone; run the same command again") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise StoreError(f"staged file {store.url_of(file.path)} is not what was staged; run the same command again")
    rows = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)  # read_table takes 1.6 times as long
    schema.check(rows, file.table)
    return rows


def _new_sources(read: Iterable[tuple[_Piece, pa.Table]], known: IdSet, taken: list[str]) -> Iterator[pa.Table]:
    """Rows of sources that the log and earlier rows lack; their ids go to `taken`."""
    seen: set[str] = set()
    for _, rows in read:
        ids = rows["source_id"].to_pylist()
        mask = []
        for source_id, is_known in zip(ids, known.contains(ids).tolist(), strict=True):
            mask.append(not is_known and source_id not in seen)
            seen.add(source_id)
        taken += [source_id for source_id, new in zip(ids, mask, strict=True) if new]
        yield rows.filter(pa.array(mask, pa.bool_()))


def _write_segments(store: Store, run_id: str, pieces: list[_Piece], batch: Batch, merged: Merged) -> None:
    """Error and partial rows get a file of their own: `retry` drops it without rewriting good rows, and every run
    counts the failed sources in it."""
    found: list[str] = []
    with RowsFile(store, run_id, "segments") as good, RowsFile(store, run_id, "segments") as failed:
        for piece, rows in _read_all(store, pieces):
            selected = piece.selected(rows)
            found += selected["segment_id"].to_pylist()
            merged.with_faces.update(selected.filter(pc.greater(selected["faces_kept"], 0))["segment_id"].to_pylist())
            is_good = pc.equal(selected["status"], "ok")
            good.add(selected.filter(is_good))
            failed.add(selected.filter(pc.invert(is_good)))
        expected = sum(chosen.rows for chosen in batch.selections)
        if len(found) != expected or len(set(found)) != expected:
            raise ValueError(f"{expected} segments are to be committed, but {len(found)} rows of them are staged")
        for output in (good, failed):
            for file in output.finish():
                merged.files.append(file)
                merged.written.append(file.path)
                if output is failed:
                    merged.errors.add(file.path)


def _write(store: Store, run_id: str, table: str, pieces: Iterable[pa.Table], merged: Merged) -> None:
    with RowsFile(store, run_id, table) as output:
        for rows in pieces:
            output.add(rows)
        for file in output.finish():
            merged.files.append(file)
            merged.written.append(file.path)
