"""What failed in a dataset and may be tried again: the failed segments, and what else follows from their success."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import ErrorCode
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.live import read_each, sound_rows
from pipeline.ledger.removal import Replacing, holders
from pipeline.ledger.staging import ERRORS_SUFFIX
from pipeline.ledger.state import LogState
from pipeline.segments import Segment, plan_table
from pipeline.storage.store import Store


@dataclass(kw_only=True)
class Failures:
    """replacing: rows that give way to new ones. rows: failed segment -> its source. probe: sources that could not even
    be probed, and are probed again."""

    replacing: Replacing = field(default_factory=Replacing)
    rows: dict[str, str] = field(default_factory=dict)
    probe: set[str] = field(default_factory=set)

    @property
    def source_ids(self) -> set[str]:
        """Sources with a failure."""
        return set(self.rows.values())


def find_failures(
    store: Store, state: LogState, model_id: str, known: pa.Table, extraction: Extraction, codes: Collection[str] = ()
) -> Failures:
    """The model's failed and partial segments, with one of the codes if any are given.

    known: rows of `sources`. With a failed window of a video go those behind it that have no row because of it.
    The row that tells of a new content, of which `known` has nothing, is left out: its mend is `run --on-changed
    replace`. A `source_changed` of a reader is a failure like others: the next reader may find what was planned.
    """
    found, replacing = Failures(), Replacing()
    known_ids = known["source_id"].combine_chunks()
    rows = error_rows(store, state, ["segment_id", "source_id", "status", "error_code"], model_id)
    is_change = pc.equal(rows["error_code"], str(ErrorCode.SOURCE_CHANGED))
    rows = rows.filter(pc.or_(pc.invert(is_change), pc.is_in(rows["source_id"], known_ids)))
    if codes:
        rows = rows.filter(pc.is_in(rows["error_code"], pa.array(sorted(codes), pa.string())))
    found.rows = dict(zip(rows["segment_id"].to_pylist(), rows["source_id"].to_pylist(), strict=True))
    replacing.with_faces.update(rows.filter(pc.equal(rows["status"], "partial"))["segment_id"].to_pylist())
    failed = known.filter(pc.is_in(known["source_id"], pa.array(sorted(found.source_ids), pa.string())))
    found.probe = set(failed.filter(pc.is_valid(failed["error_code"]))["source_id"].to_pylist())
    replacing.sources = set(found.probe)
    replacing.followers = _followers(state, model_id, failed, extraction, found.rows)
    replacing.segments = set(found.rows).union(*replacing.followers.values())
    replacing.crops = _own_crops(store, state, model_id, replacing.segments, replacing.with_faces)
    replacing.find_files(store, state, model_id)
    found.replacing = replacing
    return found


def find_overtaken(
    store: Store,
    state: LogState,
    model_id: str,
    base_model_id: str,
    known: Callable[[], pa.Table],
    extraction: Extraction,
) -> Replacing:
    """The model's error rows of segments that the base has an answer for by now, such as those that could not be read
    when they were reprocessed; with a window of a video go those behind it that have no row because of it.

    known: gives the rows of `sources`; asked only where there are such error rows.
    """
    rows = only_errors(store, state, model_id, ["segment_id", "source_id"])
    failed = dict(zip(rows["segment_id"].to_pylist(), rows["source_id"].to_pylist(), strict=True))
    replacing = Replacing()
    answered = state.committed(base_model_id).common(failed) - state.covered(base_model_id).common(failed)
    if answered:
        answered.difference_update(only_errors(store, state, base_model_id, ["segment_id"])["segment_id"].to_pylist())
    if not answered:
        return replacing
    source_ids = pa.array(sorted({failed[segment_id] for segment_id in answered}), pa.string())
    sources = known()
    sources = sources.filter(pc.is_in(sources["source_id"], source_ids))
    replacing.followers = _followers(state, model_id, sources, extraction, answered)
    replacing.segments = answered.union(*replacing.followers.values())
    replacing.find_files(store, state, model_id)
    return replacing


def count_answers(store: Store, state: LogState, model_id: str) -> int:
    """How many segments the model has a row for that is no error."""
    errors: int = only_errors(store, state, model_id, ["segment_id"]).num_rows
    return state.count(model_id) - len(state.covered(model_id)) - errors


def only_errors(store: Store, state: LogState, model_id: str, columns: list[str]) -> pa.Table:
    """These columns of the model's rows that are nothing but an error."""
    rows = error_rows(store, state, [*columns, "status"], model_id)
    return rows.filter(pc.equal(rows["status"], "error"))


def _own_crops(store: Store, state: LogState, model_id: str, replaced: set[str], partial: set[str]) -> set[str]:
    """Of the model's segments that are replaced, of which some are `partial`, those whose kept crops are of its rows.

    Crops are kept once, whatever the model: those of a segment that another model has whole are that one's, and a
    segment without a face of this model has none of its own. The log may say that there are some where there are none.
    """
    claimed = state.crops.common(replaced)
    there = set[str]().union(*holders(store, state.files("crops"), claimed, "segment_id").values())
    own = claimed - (there - partial)
    for other in state.models:
        both = state.committed(other).common(own & there) if other != model_id else set()
        own -= both.difference(*holders(store, _error_files(state, other), both, "segment_id").values())
    return own


def error_rows(store: Store, state: LogState, columns: Sequence[str], model_id: str | None = None) -> pa.Table:
    """These columns of all error and partial rows, of one model if given."""
    empty = schema.empty("segments").select(list(columns))

    def rows(file: CommittedFile) -> pa.Table:
        return sound_rows(store, file, columns).select(empty.column_names).cast(empty.schema)

    return pa.concat_tables([empty, *read_each(_error_files(state, model_id), rows)])


def _error_files(state: LogState, model_id: str | None) -> list[CommittedFile]:
    """The files that have all error and partial rows, of one model if given, and nothing else."""
    return [file for file in state.files("segments", model_id) if file.path.endswith(ERRORS_SUFFIX)]


def covered_segments(state: LogState, sources: pa.Table, extraction: Extraction) -> set[str]:
    """Segments of the sources (rows of `sources`) that have no row because of a break before them, for any model."""
    plan = _plan_of(sources, state, extraction)
    return {one for model_id in state.models for one in _covered(state, model_id, plan)["segment_id"].to_pylist()}


def _followers(
    state: LogState, model_id: str, sources: pa.Table, extraction: Extraction, failed: Collection[str]
) -> dict[str, frozenset[str]]:
    """Of each failed window: those of its video that have no row because of it, if there are any."""
    plan = _plan_of(sources, state, extraction)
    followers: dict[str, set[str]] = {}
    for segment in map(Segment.from_row, _covered(state, model_id, plan).to_pylist()):
        followers.setdefault(segment.video_key, set()).add(segment.segment_id)
    breaks = plan.filter(pc.is_in(plan["segment_id"], pa.array(sorted(failed), pa.string())))
    return {
        segment.segment_id: frozenset(followers[segment.video_key])
        for segment in map(Segment.from_row, breaks.to_pylist())
        if segment.video_key in followers
    }


def _plan_of(sources: pa.Table, state: LogState, extraction: Extraction) -> pa.Table:
    nowhere = dict.fromkeys(sources["source_id"].to_pylist(), "")
    return plan_table(sources, locations=nowhere, extraction=extraction, tails=state.tails)


def _covered(state: LogState, model_id: str, plan: pa.Table) -> pa.Table:
    return plan.filter(pa.array(state.covered(model_id).contains(plan["segment_id"])))
