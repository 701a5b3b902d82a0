"""The whole log read from its first entry, past whatever is damaged in it.

Other readers start from the newest checkpoint and stop at a damaged entry. Here each entry and each checkpoint is
looked at; where an entry is lost, the next checkpoint tells what it did, and without one the replay goes on without it.
A checkpoint that other readers do not reach, because one before it is lost, tells nothing: they would go by the entry
that stands for the lost one.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace

from pipeline.errors import DamageError
from pipeline.ledger import checkpoint
from pipeline.ledger.entry import CommittedFile, Entry, parse_entry
from pipeline.ledger.log import CHECKPOINT_EVERY, LOG, checkpoint_path, entry_path
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store

_NAME = re.compile(r"_ran/log/(checkpoint-)?(\d{12})\.(json|parquet)")


@dataclass(kw_only=True)
class Replay:
    """state: after all entries. entries: how many there are. problems: path -> what is wrong with it.

    lost_entries: numbers of the damaged and missing ones. lost_checkpoints: paths of those to be deleted.
    removed_unknown: files that a later entry removes but no readable one added, each with the lost entry before it.
    """

    state: LogState = field(default_factory=LogState)
    entries: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    lost_entries: list[int] = field(default_factory=list)
    lost_checkpoints: list[str] = field(default_factory=list)
    removed_unknown: dict[int, list[CommittedFile]] = field(default_factory=dict)


def replay(store: Store, *, checkpoint_every: int = CHECKPOINT_EVERY) -> Replay:
    """Reads every entry and checkpoint. Raises StoreError if the store fails, which says nothing about what it could
    not read, and NewerVersionError.

    Memory: two states, whatever the number of checkpoints.
    """
    numbers, checkpoints = _listed(store)
    result = Replay(entries=max(numbers, default=-1) + 1)
    checkpoints.sort(reverse=True)  # those that are still to be looked at, the next one last
    missing = next(at for at in itertools.count(checkpoint_every, checkpoint_every) if at not in checkpoints)
    number = 0
    while checkpoints and checkpoints[-1] == 0:  # nobody writes one before the first entry
        _compare(store, checkpoints.pop(), result)
    while number < result.entries:
        entry = _entry(store, number, result)
        if entry is None or entry.lost:
            is_reached = not result.lost_checkpoints and bool(checkpoints) and checkpoints[-1] < missing
            known = _checkpoint(store, checkpoints.pop(), result) if is_reached else None
            if known is not None:  # what lies between is history; it is read only to name what is damaged
                for between in range(number + 1, known.next_entry):
                    _entry(store, between, result)
                result.state, number = known, known.next_entry
                continue
        _apply(entry or Entry(run_id="", lost=True), number, result)
        number += 1
        if checkpoints and checkpoints[-1] == number:
            _compare(store, checkpoints.pop(), result)
    for left in checkpoints:
        _checkpoint(store, left, result)
    return result


def _listed(store: Store) -> tuple[list[int], list[int]]:
    names = [_NAME.fullmatch(path) for path in store.list(LOG)]
    entries = [int(name[2]) for name in names if name and not name[1]]
    return entries, [int(name[2]) for name in names if name and name[1]]


def _checkpoint(store: Store, number: int, result: Replay) -> LogState | None:
    """The state in a checkpoint; None, and what is wrong noted, if it can't be read."""
    path = checkpoint_path(number)
    try:
        state = checkpoint.from_parquet(store.read_bytes(path), path)
        if state.next_entry == number:
            return state
        reason = f"says {state.next_entry} entries"
    except FileNotFoundError:
        reason = "is gone"
    except DamageError as error:
        reason = _reason(error)
    result.problems[path] = reason
    result.lost_checkpoints.append(path)
    return None


def _compare(store: Store, number: int, result: Replay) -> None:
    state = _checkpoint(store, number, result)
    if state is not None and not _same(result.state, state):
        path = checkpoint_path(number)
        result.problems[path] = "does not say what the entries before it add up to"
        result.lost_checkpoints.append(path)


def _entry(store: Store, number: int, result: Replay) -> Entry | None:
    path = entry_path(number)
    try:
        return parse_entry(store.read_bytes(path), path)
    except FileNotFoundError:
        result.problems[path] = "is missing: later entries exist"
    except DamageError as error:
        result.problems[path] = _reason(error)
    result.lost_entries.append(number)
    return None


def _apply(entry: Entry, number: int, result: Replay) -> None:
    state = result.state
    unknown = [path for path in entry.remove if path not in state.live]
    if unknown and result.lost_entries:
        result.removed_unknown.setdefault(result.lost_entries[-1], []).extend(_unknown_file(path) for path in unknown)
        entry = replace(entry, remove=[path for path in entry.remove if path in state.live])
    elif unknown:
        result.problems[entry_path(number)] = f"removes {unknown[0]}, which is not live"
        entry = replace(entry, remove=[path for path in entry.remove if path in state.live])
    state.apply(entry)


def _unknown_file(path: str) -> CommittedFile:
    table, _, rest = path.partition("/")
    model_id = rest.partition("/")[0] if "/" in rest else ""
    return CommittedFile(table=table, path=path, staged=path, rows=0, bytes=0, sha256="", model_id=model_id)


def _same(left: LogState, right: LogState) -> bool:
    def told(state: LogState) -> tuple[object, ...]:
        return (
            *(state.models, state.tails, state.closed_runs, state.removed_files, state.last_nonces, state.live),
            state.next_entry,
        )

    def ids(state: LogState) -> list[object]:
        sets = [state.sources, state.crops]
        sets += [kept for model in state.models for kept in (state.committed(model), state.covered(model))]
        return [one.packed() for one in sets]

    return told(left) == told(right) and ids(left) == ids(right)


def _reason(error: DamageError) -> str:
    cause = error.__cause__
    return f"can't be read: {cause or error}"
