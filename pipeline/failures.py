"""What failed in a dataset and may be tried again: the failed segments, and what else follows from their success."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config import Extraction
from pipeline.errors import ErrorCode
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.live import read_live
from pipeline.ledger.removal import Replacing
from pipeline.ledger.state import LogState
from pipeline.segments import plan_table
from pipeline.storage.store import Store


@dataclass(kw_only=True)
class Failures:
    """replacing: rows that give way to new ones. source_ids: sources with a failure. probe: those of them that could
    not even be probed, and are probed again; of_probe: their error rows, which the new plan may have no segment for."""

    replacing: Replacing = field(default_factory=Replacing)
    source_ids: set[str] = field(default_factory=set)
    probe: set[str] = field(default_factory=set)
    of_probe: set[str] = field(default_factory=set)


def find_failures(
    store: Store, state: LogState, model_id: str, known: pa.Table, extraction: Extraction, codes: Collection[str] = ()
) -> Failures:
    """The model's failed and partial segments, with one of the codes if any are given.

    known: rows of `sources`. With a failed window of a video go those behind it that have no row because of it.
    `source_changed` is left out: its mend is `run --on-changed replace`.
    """
    found, replacing = Failures(), Replacing()
    partial: set[str] = set()
    owners: dict[str, str] = {}
    for file in state.files("segments", model_id):
        rows = _read(store, file, ["segment_id", "source_id", "status", "error_code"])
        rows = rows.filter(pc.not_equal(rows["status"], "ok"))
        rows = rows.filter(pc.not_equal(rows["error_code"], str(ErrorCode.SOURCE_CHANGED)))
        if codes:
            rows = rows.filter(pc.is_in(rows["error_code"], pa.array(sorted(codes), pa.string())))
        if rows.num_rows:
            replacing.files.add(file.path)
            replacing.segments.update(rows["segment_id"].to_pylist())
            owners |= dict(zip(rows["segment_id"].to_pylist(), rows["source_id"].to_pylist(), strict=True))
            found.source_ids.update(rows["source_id"].to_pylist())
            partial.update(rows.filter(pc.equal(rows["status"], "partial"))["segment_id"].to_pylist())
    failed = known.filter(pc.is_in(known["source_id"], pa.array(sorted(found.source_ids), pa.string())))
    found.probe = set(failed.filter(pc.is_valid(failed["error_code"]))["source_id"].to_pylist())
    found.of_probe = {segment_id for segment_id, source_id in owners.items() if source_id in found.probe}
    replacing.sources = set(found.probe)
    replacing.segments.update(_covered(state, model_id, failed, extraction))
    replacing.files.update(_files_with(store, state.files("faces", model_id), partial, "segment_id"))
    replacing.files.update(_files_with(store, state.files("crops"), partial, "segment_id"))
    replacing.files.update(_files_with(store, state.files("sources"), found.probe, "source_id"))
    found.replacing = replacing
    return found


def covered_segments(state: LogState, sources: pa.Table, extraction: Extraction) -> set[str]:
    """Segments of the sources (rows of `sources`) that have no row because of a break before them, for any model."""
    return {one for model_id in state.models for one in _covered(state, model_id, sources, extraction)}


def _covered(state: LogState, model_id: str, sources: pa.Table, extraction: Extraction) -> Iterator[str]:
    nowhere = dict.fromkeys(sources["source_id"].to_pylist(), "")
    ids = plan_table(sources, locations=nowhere, extraction=extraction, tails=state.tails)["segment_id"]
    yield from ids.filter(pa.array(state.covered(model_id).contains(ids))).to_pylist()


def _files_with(store: Store, files: list[CommittedFile], ids: Collection[str], column: str) -> Iterator[str]:
    wanted = pa.array(sorted(ids), pa.string())
    for file in files if ids else ():
        if pc.any(pc.is_in(_read(store, file, [column])[column], wanted)).as_py():
            yield file.path


def _read(store: Store, file: CommittedFile, columns: list[str]) -> pa.Table:
    return pq.read_table(pa.BufferReader(read_live(store, file)), columns=columns)
