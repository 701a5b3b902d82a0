"""plan − committed: which segments the inputs have, which the dataset lacks, and what came to light on the way."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import ErrorCode
from pipeline.failures import error_rows, only_errors
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.id_set import IdSet, WantedIds
from pipeline.ledger.live import read_each, read_live_columns, read_sound
from pipeline.ledger.log import LogState
from pipeline.media.sources import Listing, Source
from pipeline.passes import Pass
from pipeline.segments import PLAN, plan_tables
from pipeline.storage.store import Store

UNIT_ROWS, PICTURE_UNIT_ROWS = 8, 64
UNITS_PER_ACTOR = 4  # fewer, and actors would wait for the last one; more, and Ray has a task for every few frames


@dataclass(kw_only=True)
class Plan:
    """todo: PLAN rows that the model has no committed answer for. total: segments of the inputs as far as is known.
    told: committed windows whose error, or one before them, may speak for a planned one that follows. notes: what
    somebody should hear who expects more. left: segments that `cut` took out."""

    todo: pa.Table
    total: int
    told: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left: int = 0

    def cut(self, most: int, followers: Mapping[str, Collection[str]]) -> None:
        """Leaves the first segments of what is to do, and the `followers` of these, without whose answers theirs can't
        be committed (`Replacing.must_wait`). The others stay as they are."""
        first, rest = self.todo.slice(0, most), self.todo.slice(most)
        wanted = {one for segment in first["segment_id"].to_pylist() for one in followers.get(segment, ())}
        behind = rest.filter(pc.is_in(rest["segment_id"], pa.array(sorted(wanted), pa.string())))
        self.left = rest.num_rows - behind.num_rows
        self.todo = pa.concat_tables([first, behind])

    @property
    def already_done(self) -> int:
        """Segments that an earlier run, or another driver, has committed."""
        return self.total - int(self.todo.num_rows)


def known_sources(store: Store, state: LogState) -> pa.Table:
    """Every probed source of the dataset: rows of the `sources` table. A file per minute of probing."""

    def rows(file: CommittedFile) -> pa.Table:
        return pq.ParquetFile(pa.BufferReader(read_sound(store, file))).read(use_threads=False).cast(schema.SOURCES)

    return pa.concat_tables([schema.empty("sources"), *read_each(state.files("sources"), rows)])


def new_sources(store: Store, state: LogState, listing: Listing, known: pa.Table) -> tuple[list[Source], list[Source]]:
    """Sources that were never probed, and those whose content changed since rows of them were committed.

    A changed source gets one error row while its old rows stay; if it had only errors, it counts as new.
    """
    ids = set(known["source_id"].to_pylist())
    unknown = [source for source in listing.sources if source.source_id not in ids]
    uris = pa.array([source.uri for source in unknown], pa.string())
    before = known.filter(pc.is_in(known["source_uri"], uris))
    good = _without_only_errors(store, state, before["source_id"].combine_chunks())
    taken = set(before.filter(pc.is_in(before["source_id"], good))["source_uri"].to_pylist())
    return (
        [source for source in unknown if source.uri not in taken],
        [source for source in unknown if source.uri in taken],
    )


def _without_only_errors(store: Store, state: LogState, source_ids: pa.Array) -> pa.Array:
    """Those of the sources that have at least one live segment without an error, of any model."""
    wanted = WantedIds(source_ids.to_pylist())

    def good(file: CommittedFile) -> frozenset[str]:
        rows = read_live_columns(store, file, ["source_id", "status"])
        return wanted.among(rows.filter(pc.not_equal(rows["status"], "error"))["source_id"])

    found = read_each(state.files("segments") if len(source_ids) else [], good)
    return pa.array(sorted(set[str]().union(*found)), pa.string())


def plan(
    listing: Listing,
    known: pa.Table,
    changed: Sequence[Source],
    state: LogState,
    model_id: str,
    extraction: Extraction,
    again: Collection[str] = (),
    failed: Callable[[], pa.Array] = lambda: pa.array([], pa.string()),
) -> Plan:
    """The segments of the listed sources that are known, less those committed for the model and not in `again`.

    failed: gives `failed_segments`; asked at most once, and only if a window behind a committed one is missing.
    """
    locations = {source.source_id: source.location for source in listing.sources}
    listed = known.filter(pc.is_in(known["source_id"], pa.array(list(locations), pa.string())))
    once_more, todo, told, total = pa.array(sorted(again), pa.string()), [PLAN.empty_table()], list[str](), 0
    failed, covered = functools.cache(failed), state.covered(model_id)
    for segments in itertools.chain(
        plan_tables(listed, locations=locations, extraction=extraction, tails=state.tails),
        plan_tables([_changed_row(source) for source in changed], locations=locations, extraction=extraction),
    ):
        missing = state.filter_uncommitted(model_id, segments["segment_id"])
        if again:
            missing = pc.or_(missing, pc.is_in(segments["segment_id"].combine_chunks(), once_more))
        rows, telling = _with_followers(segments, missing, covered, failed)
        todo.append(rows)
        told += telling
        total += segments.num_rows
    return Plan(todo=pa.concat_tables(todo), total=total, told=told)


def _with_followers(
    segments: pa.Table, missing: pa.Array, covered: IdSet, failed: Callable[[], pa.Array]
) -> tuple[pa.Table, list[str]]:
    """The missing rows of whole videos, with `follows` only where the window before is read too, or has an error row,
    or none of its own. Also the ids of those before that are not read."""
    read, ids = np.asarray(missing, bool), segments["segment_id"]
    after = np.asarray(segments["follows"], bool) & read  # these stay, and have a window before them
    told = covered.contains(ids) if covered else np.zeros(len(read), bool)
    if (after[1:] & ~(read | told)[:-1]).any():
        told |= np.asarray(pc.is_in(ids, failed()), bool)
    follows = after & np.concatenate([[False], (read | told)[:-1]])
    telling = np.concatenate([follows[1:], [False]]) & ~read
    index = segments.schema.get_field_index("follows")
    rows = segments.set_column(index, PLAN.field("follows"), pa.array(follows)).filter(missing)
    return rows, ids.filter(pa.array(telling)).to_pylist()


def dispatch_units(attempted: Pass, actors: int) -> list[pa.Table]:
    """A pass's rows in runs of consecutive ones that travel together: loose pictures apart, since more of them may.

    A short plan has smaller units, so that one video still spreads over all of the `actors`.
    """
    loose = pc.equal(attempted.segments["kind"], "picture")
    units: list[pa.Table] = []
    for rows, most in (
        (attempted.segments.filter(pc.invert(loose)), UNIT_ROWS),
        (attempted.segments.filter(loose), PICTURE_UNIT_ROWS),
    ):
        size = attempted.unit_rows or max(1, min(most, rows.num_rows // (UNITS_PER_ACTOR * actors)))
        units += [rows.slice(start, size).combine_chunks() for start in range(0, rows.num_rows, size)]
    return units


def failed_segments(store: Store, state: LogState, model_id: str) -> pa.Array:
    """Segments with a live error row for the model; what is `partial` is not among them."""
    return only_errors(store, state, model_id, ["segment_id"])["segment_id"].combine_chunks()


def count_failed(store: Store, state: LogState, model_id: str, listing: Listing) -> int:
    """Listed sources with a live error or partial row for the model. Such rows have their own part files."""
    failed = set(error_rows(store, state, ["source_id"], model_id)["source_id"].to_pylist())
    return len(failed & {source.source_id for source in listing.sources})


def superseded(store: Store, state: LogState, listing: Listing, known: pa.Table) -> set[str]:
    """Source ids of earlier content of listed files, of which there are only error rows: the file was mended since.

    Content with good rows stays, until `--on-changed replace`.
    """
    ids = pa.array([source.source_id for source in listing.sources], pa.string())
    uris = pa.array([source.uri for source in listing.sources], pa.string())

    def earlier(rows: pa.Table) -> pa.Table:
        return rows.filter(pc.and_(pc.is_in(rows["source_uri"], uris), pc.invert(pc.is_in(rows["source_id"], ids))))

    found = set(earlier(known)["source_id"].to_pylist())
    found.update(earlier(error_rows(store, state, ["source_id", "source_uri"]))["source_id"].to_pylist())
    return found.difference(_without_only_errors(store, state, pa.array(sorted(found), pa.string())).to_pylist())


def outlived(store: Store, state: LogState, listing: Listing, known: pa.Table) -> set[str]:
    """Source ids of earlier content of listed files that has good rows beside good ones of the present content: a run
    that had read it just before the file changed committed it when another had taken the new content for a new file."""
    if pc.count_distinct(known["source_uri"]).as_py() == known.num_rows:  # as mostly, and of millions that costs least
        return set()
    is_listed = pc.is_in(known["source_id"], pa.array([source.source_id for source in listing.sources], pa.string()))
    present, others = known.filter(is_listed), known.filter(pc.invert(is_listed))
    earlier = others.filter(pc.is_in(others["source_uri"], present["source_uri"].combine_chunks()))
    if not earlier.num_rows:
        return set()
    present = present.filter(pc.is_in(present["source_uri"], earlier["source_uri"].combine_chunks()))
    both = pa.concat_tables([present, earlier])["source_id"].combine_chunks()
    good = _without_only_errors(store, state, both)
    replaced = present.filter(pc.is_in(present["source_id"], good))["source_uri"].combine_chunks()
    is_outlived = pc.and_(pc.is_in(earlier["source_id"], good), pc.is_in(earlier["source_uri"], replaced))
    return set(earlier.filter(is_outlived)["source_id"].to_pylist())


def change_rows(store: Store, state: LogState, uris: pa.Array) -> set[str]:
    """Source ids of the error rows that told of changes of these sources, one for each content that was met."""
    rows = error_rows(store, state, ["source_id", "source_uri", "error_code"])
    is_change = pc.equal(rows["error_code"], str(ErrorCode.SOURCE_CHANGED))
    return set(rows.filter(pc.and_(is_change, pc.is_in(rows["source_uri"], uris)))["source_id"].to_pylist())


def _changed_row(source: Source) -> dict[str, Any]:
    return {
        "source_id": source.source_id,
        "source_uri": source.uri,
        "fingerprint": source.fingerprint,
        "size_bytes": source.size_bytes,
        "kind": "unknown",
        "index": None,
        "error_code": str(ErrorCode.SOURCE_CHANGED),
        "error_message": "the file changed after its rows were written; they stay as they are",
    }
