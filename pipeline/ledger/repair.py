"""A damaged dataset becomes exactly its committed segments again; what can't be saved is planned anew by the next run.

    dataset.json ──> log ──> rows that lost a part leave ──> rows that only the lost entries named come back ──> verify

Nothing that may still be worth something is deleted: damaged and stray files move to `_ran/damaged/`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import DamageError, UsageError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import DATASET_FILE, Dataset, dataset_file
from pipeline.ledger.entry import Entry
from pipeline.ledger.live import UNREADABLE, sound_rows
from pipeline.ledger.log import CHECKPOINT_EVERY, CommitLog, entry_path
from pipeline.ledger.publish import publish_entry, publish_missing
from pipeline.ledger.removal import without
from pipeline.ledger.runs import RUNS, STALE_AFTER_S, Run, refuse_while_at_work
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.ledger.state import LogState
from pipeline.ledger.sweep import sweep
from pipeline.ledger.verify import Verification, public_files, verify
from pipeline.media.locations import is_remote, normalise
from pipeline.segments import plan_table, segment_id
from pipeline.storage.store import Store

DAMAGED = "_ran/damaged"


@dataclass(kw_only=True)
class Repair:
    """before, after: what `verify` said. recovered: segments whose rows were committed anew; lost: segments (of any
    model) that the next run makes again. moved: files that lie in `_ran/damaged/` now."""

    before: Verification
    after: Verification
    recovered: int = 0
    lost: int = 0
    moved: list[str] = field(default_factory=list)


def repair(
    store: Store,
    *,
    stale_after_s: float = STALE_AFTER_S,
    checkpoint_every: int = CHECKPOINT_EVERY,
    wait: Callable[[str], bool] | None = None,
) -> Repair:
    """Mends what `verify` finds. wait: as `refuse_while_at_work` takes it.

    Raises UsageError while a run is at work, or if dataset.json can't be made again, and StoreError if the store fails:
    then nothing is taken for damaged that could not be read.
    """
    before = verify(store, checkpoint_every=checkpoint_every)
    if before.is_sound:
        return Repair(before=before, after=before)
    with Run.create(store, stale_after_s=stale_after_s) as run:
        state = before.replayed.state
        refuse_while_at_work(store, state, stale_after_s, "verify --repair", but=run.run_id, wait=wait)
        # Again, now that nobody takes files away: what was missing may have been merged into others while we looked.
        before = verify(store, checkpoint_every=checkpoint_every)
        result = Repair(before=before, after=before)
        if before.is_sound:
            return result
        _mend_dataset_file(store, before, result)
        _mend_log(store, before, result)
        log = CommitLog(store, checkpoint_every=checkpoint_every)
        _remove_lost(store, log, run, before, result)
        publish_missing(store, log)
        sweep(store, log, run)
        _recover_strays(store, log, run, before, result)
        run.save_summary({"status": "repaired", "recovered": result.recovered, "moved": result.moved})
    result.after = verify(store, checkpoint_every=checkpoint_every)
    result.lost = _lost(before.replayed.state, result.after.replayed.state)
    return result


def _lost(before: LogState, after: LogState) -> int:
    lost = 0
    for model_id in before.models:
        ids = list(before.committed(model_id))
        lost += len(ids) - int(after.committed(model_id).contains(ids).sum())
    return lost


def _mend_dataset_file(store: Store, before: Verification, result: Repair) -> None:
    """Makes dataset.json again from what a run recorded, if the committed segments agree that it is theirs."""
    with suppress(DamageError):
        Dataset.open(store)
        return
    runs = _recorded(store)
    for _, extraction in reversed(runs):
        if _is_of_this_dataset(store, extraction, before):
            root = _root([config for config, of in runs if of == extraction])
            _set_aside(store, DATASET_FILE, result)
            store.write_bytes(DATASET_FILE, dataset_file(extraction, root))
            return
    raise UsageError(
        f"{store.url_of(DATASET_FILE)} is damaged and no run recorded the extraction; restore it from a copy"
    )


def _recorded(store: Store) -> list[tuple[dict[str, Any], Extraction]]:
    """What each run recorded that recorded anything, oldest first; a record that is damaged itself is passed over."""
    found = []
    for path in store.list(RUNS):
        if path.endswith("/config.json"):
            data = store.read_bytes(path)
            with suppress(ValueError, TypeError, KeyError, AttributeError, UsageError):
                config = json.loads(data)
                config["run"].get("root")
                found.append((config, Extraction.from_json(config["extraction"])))
    return found


def _root(configs: list[dict[str, Any]]) -> str | None:
    """The dataset's root by the records of its runs. Older ones have only what was typed, and that not in each run.

    Raises UsageError if that meant something only in the folder where it was typed.
    """
    known: list[str | None] = [config["root"] for config in configs if "root" in config]
    if known:
        return known[-1]
    typed = [config["run"]["root"] for config in configs if config["run"].get("root")]
    if not typed:
        return None
    if not is_remote(typed[-1]) and not typed[-1].startswith(("/", "file:")):
        raise UsageError(
            f"{DATASET_FILE} is damaged, and of its root only is known that it was --root {typed[-1]!r} of the folder "
            f"in which a run was started; restore {DATASET_FILE} from a copy"
        )
    return normalise(typed[-1])


def _is_of_this_dataset(store: Store, extraction: Extraction, before: Verification) -> bool:
    """Whether the extraction gives an id that is committed. Without a committed segment, or source, any will do."""
    state = before.replayed.state

    def is_committed(ids: Collection[str]) -> bool:
        listed = list(ids)
        return any(state.committed(model_id).contains(listed).any() for model_id in state.models)

    if not len(state.sources) or not any(state.count(model_id) for model_id in state.models):
        return True
    if is_committed({segment_id(key, 0, extraction.id) for key in (*state.sources, *state.tails)}):
        return True
    for file in state.files("sources"):  # videos in archives have keys of their own, which only the index tells
        if file.path not in before.damaged:
            rows = sound_rows(store, file)
            nowhere = dict.fromkeys(rows["source_id"].to_pylist(), "")
            plan = plan_table(rows, locations=nowhere, extraction=extraction, tails=state.tails)
            if is_committed(plan["segment_id"].to_pylist()):
                return True
    return False


def _mend_log(store: Store, before: Verification, result: Repair) -> None:
    """Puts an entry that does nothing in the place of each lost one, so that the numbers have no gap."""
    replayed = before.replayed
    for path in replayed.lost_checkpoints:
        _set_aside(store, path, result)
    for number in replayed.lost_entries:
        path = entry_path(number)
        _set_aside(store, path, result)
        stubs = replayed.removed_unknown.get(number, [])
        store.write_bytes(path, Entry(run_id=f"repair-{uuid.uuid4().hex[:6]}", add=stubs, lost=True).to_bytes())


def _remove_lost(store: Store, log: CommitLog, run: Run, before: Verification, result: Repair) -> None:
    """Takes out segments, sources and kept faces whose rows are not all there, and the files that are damaged."""
    lost_files = before.damaged
    for model_id in before.replayed.state.models:
        gone = before.lost.get(model_id, [])

        def of_model(state: LogState, model_id: str = model_id, gone: list[str] = gone) -> Entry | None:
            files = [file for file in state.live.values() if file.model_id == model_id]
            damaged = [file.path for file in files if file.path in lost_files]
            if not gone and not damaged:
                return None
            rest = without(store, run.run_id, [file for file in files if file.path not in lost_files], gone)
            return Entry(
                run_id=run.run_id,
                model_id=model_id,
                remove=damaged + rest.remove,
                add=rest.add,
                segments_removed=gone,
            )

        _append(store, log, of_model, result, lost_files)

    def of_sources(state: LogState) -> Entry | None:
        files = [file for file in state.live.values() if not file.model_id]
        damaged = [file.path for file in files if file.path in lost_files]
        good = [file for file in files if file.path not in lost_files]
        lost_sources, lost_crops = before.lost_sources, before.lost_crops
        if not damaged and not lost_sources and not lost_crops:
            return None
        sources = [file for file in good if file.table == "sources"]
        first = without(store, run.run_id, sources, lost_sources, column="source_id")
        second = without(store, run.run_id, [file for file in good if file.table == "crops"], lost_crops)
        return Entry(
            run_id=run.run_id,
            remove=damaged + first.remove + second.remove,
            add=first.add + second.add,
            sources_removed=lost_sources,
            crops_removed=lost_crops,
        )

    _append(store, log, of_sources, result, lost_files)


def _append(
    store: Store, log: CommitLog, build: Callable[[LogState], Entry | None], result: Repair, damaged: set[str]
) -> None:
    entry = log.append(build)
    if entry is not None:
        for path in entry.remove:
            if path in damaged:
                _set_aside(store, path, result)
        publish_entry(store, log, entry)


def _recover_strays(store: Store, log: CommitLog, run: Run, before: Verification, result: Repair) -> None:
    """Commits anew what only lost entries named: stray files of known runs. Then the strays are set aside."""
    runs = {path.split("/")[2] for path in store.list(RUNS)}
    listed = public_files(store)
    log.refresh(write_checkpoints=True)  # after the listing: what a run publishes now is no stray
    strays = sorted(path for path in listed - log.state.live.keys() if path not in log.state.removed_files)
    ours = [path for path in strays if any(f"/part-{run_id}-" in path for run_id in runs)]
    tables = {path: rows for path in ours if (rows := _read(store, path)) is not None}
    by_model: dict[str, dict[str, list[pa.Table]]] = {}
    for path, rows in tables.items():
        model_id = path.split("/")[1] if path.split("/")[0] in ("faces", "segments") else ""
        by_model.setdefault(model_id, {}).setdefault(path.split("/")[0], []).append(rows)
    shared = by_model.pop("", {})
    _recover(store, log, run, before, "", {"sources": shared.get("sources", [])}, result)
    for model_id, parts in by_model.items():
        _recover(store, log, run, before, model_id, parts | {"crops": shared.get("crops", [])}, result)
    for path in sorted(listed - log.state.live.keys()):
        _set_aside(store, path, result)


def _recover(
    store: Store,
    log: CommitLog,
    run: Run,
    before: Verification,
    model_id: str,
    parts: dict[str, list[pa.Table]],
    result: Repair,
) -> None:
    committer = Committer(Dataset.open(store), log, run, model_id)
    staged = [stage_table(store, run.run_id, "sources", rows) for rows in parts.get("sources", ()) if rows.num_rows]
    ids: list[str] = []
    if parts.get("segments"):
        segments = _first_of_each(pa.concat_tables(parts["segments"]), "segment_id")
        faces = _all(parts, "faces")
        ids = _whole(store, log.state, segments, faces)
        chosen = pa.array(ids, pa.string())
        tables = {"segments": segments, "faces": _first_of_each(faces, "face_id"), "crops": _all(parts, "crops")}
        for name, rows in tables.items():
            kept = rows.filter(pc.is_in(rows["segment_id"], chosen))
            if kept.num_rows:
                staged.append(stage_table(store, run.run_id, name, kept))
    committer.add(StagedSet(segment_ids=ids, files=staged))
    already = log.state.count(model_id)
    committer.commit()
    result.recovered += log.state.count(model_id) - already


def _whole(store: Store, state: LogState, segments: pa.Table, faces: pa.Table) -> list[str]:
    """Segments that have all their faces, less each video's last planned window: only its reader knows whether more
    follow, and what it said was in the lost entry."""
    counts = faces.group_by("segment_id").aggregate([("face_id", "count_distinct")])
    faces_of = dict(zip(counts["segment_id"].to_pylist(), counts["face_id_count_distinct"].to_pylist(), strict=True))
    unsure = set(_last_windows(store, state))
    pairs = zip(segments["segment_id"].to_pylist(), segments["faces_kept"].to_pylist(), strict=True)
    return [one for one, kept in pairs if faces_of.get(one, 0) == kept and one not in unsure]


def _last_windows(store: Store, state: LogState) -> Iterator[str]:
    extraction = Dataset.open(store).extraction
    for file in state.files("sources"):
        rows = pq.read_table(pa.BufferReader(store.read_bytes(file.path)))
        rows = rows.filter(pc.invert(pc.is_in(rows["kind"], pa.array(["picture"]))))
        nowhere = dict.fromkeys(rows["source_id"].to_pylist(), "")
        plan = plan_table(rows, locations=nowhere, extraction=extraction, tails=state.tails)
        last = plan.filter(pc.and_(plan["is_last"], pc.equal(plan["kind"], "video")))
        yield from last["segment_id"].to_pylist()


def _all(parts: dict[str, list[pa.Table]], name: str) -> pa.Table:
    return pa.concat_tables(parts[name]) if parts.get(name) else schema.empty(name)


def _first_of_each(rows: pa.Table, column: str) -> pa.Table:
    numbered = pa.table({"id": rows[column], "at": pa.array(range(rows.num_rows), pa.int64())})
    first = numbered.group_by("id").aggregate([("at", "min")])["at_min"]
    return rows.take(first)


def _read(store: Store, path: str) -> pa.Table | None:
    """A stray's rows; None if it is gone, or no whole file of its table."""
    try:
        rows = pq.read_table(pa.BufferReader(store.read_bytes(path)))
        schema.check(rows, path.partition("/")[0])
    except UNREADABLE:
        return None
    return rows


def _set_aside(store: Store, path: str, result: Repair) -> None:
    """Moves the file, if there is one."""
    name = f"{DAMAGED}/{uuid.uuid4().hex[:8]}-{path.replace('/', '-')}"
    if store.publish(path, name):
        store.delete(path)
        result.moved.append(name)
