"""`plan`: what a run would do, what it would need, and what there is. Nothing is written."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import capacity, planning
from pipeline.changed import ChangedFiles
from pipeline.cluster import connected
from pipeline.config import Extraction
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog, LogState
from pipeline.media.sources import MOST_NAMED
from pipeline.prepare import list_inputs, load, model_config, normalised_root
from pipeline.probing import probe_here
from pipeline.resources import Cluster, Resources, share, this_machine
from pipeline.run_config import RunConfig
from pipeline.storage.store import Store, fsspec_options
from pipeline.terminal import counted
from pipeline.urls import without_credentials
from pipeline.worker import WorkerConfig


@dataclass(kw_only=True)
class DryRun:
    """What `run` would find. free_bytes is null for a remote output. videos_in_archives: each is one segment here; how
    many more it has is known once it is read. segments_left: what --limit leaves for later. unreadable: by code. notes:
    for people."""

    output: str
    model_id: str
    sources: dict[str, int]
    bytes: int
    skipped_files: int
    unmatched_inputs: list[str]
    unreadable: dict[str, int]
    notes: list[str]
    sources_to_probe: int
    segments: int
    segments_already_done: int
    segments_left: int
    frames_at_most: int
    videos_in_archives: int
    resources: Resources
    need: capacity.Need
    free_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def dry_run(config: RunConfig, extraction: Extraction) -> DryRun:
    """Lists, probes what the dataset does not know (on this machine), and plans. Raises CapacityError like `run`."""
    store = Store(config.output, config.storage_options)
    listing = list_inputs(config, store)
    model, model_id = load(config.model)
    state = LogState()
    if Dataset.exists(store):
        extraction = Dataset.open(store, extraction, root=normalised_root(config)).extraction
        log = CommitLog(store)
        log.refresh()
        state = log.state
    else:
        Dataset.check_place(store)
    known = planning.known_sources(store, state)
    unknown, different = planning.new_sources(store, state, listing, known)
    changed = ChangedFiles(different, replaces=config.on_changed == "replace")
    to_probe = unknown + changed.to_probe
    worker = WorkerConfig(
        extraction=extraction,
        model_config=model.config,
        scratch_dir=config.scratch,
        scratch_bytes=int(config.scratch_gib * 2**30),
        storage_options=fsspec_options(config.storage_options),
    )
    new = changed.take(probe_here(to_probe, worker, deadline_s=config.deadline_s, run_id=""))
    known = pa.concat_tables([known, new, changed.readable])
    again = changed.error_segments(extraction)
    plan = planning.plan(listing, known, changed.staying, state, model_id, extraction, again)
    already_done = plan.already_done
    if config.limit is not None:
        plan.cut(config.limit, {})
    todo = plan.todo
    size = _cluster(config)
    shares = share(size, **config.placement)
    need = capacity.estimate(todo, extraction, model_config(model), config, size, shares)
    capacity.check(need, store, config, size)
    listed = pa.array([source.source_id for source in listing.sources], pa.string())
    kinds = Counter(pc.fill_null(known.filter(pc.is_in(known["source_id"], listed))["kind"], "unknown").to_pylist())
    kinds["changed"] += len(changed.staying)
    broken = known.filter(pc.and_(pc.is_in(known["source_id"], listed), pc.is_valid(known["error_code"])))
    return DryRun(
        output=without_credentials(config.output),
        model_id=model_id,
        sources=dict(+kinds),
        bytes=sum(source.size_bytes for source in listing.sources),
        skipped_files=listing.skipped.total(),
        unmatched_inputs=listing.unmatched,
        unreadable=dict(Counter(broken["error_code"].to_pylist())),
        notes=[*listing.notes(), *changed.notes(), *_of_replaced(changed), *_of_unreadable(broken)],
        sources_to_probe=len(to_probe),
        segments=plan.total,
        segments_already_done=already_done,
        segments_left=plan.left,
        frames_at_most=need.frames,
        videos_in_archives=todo.filter(pc.and_(pc.equal(todo["kind"], "video"), pc.is_valid(todo["members"]))).num_rows,
        resources=shares,
        need=need,
        free_bytes=capacity.free_bytes(os.path.abspath(config.output)) if store.is_local else None,
    )


def _of_replaced(changed: ChangedFiles) -> list[str]:
    count = changed.readable.num_rows
    return [f"the old rows of {counted(count, 'changed file')} leave, those of every model"] if count else []


def _of_unreadable(sources: pa.Table) -> list[str]:
    if not sources.num_rows:
        return []
    first = [f"{row['source_uri']} ({row['error_code']})" for row in sources.slice(0, MOST_NAMED).to_pylist()]
    rest = f" and {sources.num_rows - MOST_NAMED} more" if sources.num_rows > MOST_NAMED else ""
    return [f"can't be read, so an error row each: {', '.join(first)}{rest}"]


def _cluster(config: RunConfig) -> Cluster:
    """The cluster that `run` would use."""
    if config.address is None and not os.environ.get("RAY_ADDRESS"):
        return this_machine()
    with connected(config.address) as size:
        return size
