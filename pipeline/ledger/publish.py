"""Committed files take their public names; removed ones vanish. Every step may be repeated by anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline import schema
from pipeline.errors import DamageError
from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.log import CommitLog
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store

#: Segments last: whoever sees a segment's row sees its faces too.
PUBLICATION_ORDER = ("crops", "sources", "faces", "segments")


def commit_entry(store: Store, log: CommitLog, build: Callable[[LogState], Entry | None]) -> bool:
    """Appends and publishes what `build` makes of the state; whether it makes something. Raises StoreError."""
    entry = log.append(build)
    if entry is None:
        return False
    publish_entry(store, log, entry)
    return True


def publish_entry(store: Store, log: CommitLog, entry: Entry) -> None:
    """Makes the entry's files public, after deleting what it and others removed.

    A glob may miss rows for a moment, but never holds them twice. Raises StoreError, also if a live file is lost.
    """
    _publish(store, log, [file for file in entry.add if file.path in log.state.live])


def publish_missing(store: Store, log: CommitLog) -> int:
    """Completes the publication of every entry, whoever committed it; returns how many entries. Raises StoreError."""
    # Listed before the log is read: whatever is listed was committed before, so what the log removed can go.
    listed = {path for table in schema.TABLES for path in store.list(table)}
    log.refresh(write_checkpoints=True)
    entries = log.state.next_entry
    log.removals |= listed & log.state.removed_files.keys()
    _publish(store, log, [file for path, file in log.state.live.items() if path not in listed])
    return entries


def _publish(store: Store, log: CommitLog, files: Iterable[CommittedFile]) -> None:
    _delete_removed(store, log)
    ordered = sorted(files, key=lambda file: PUBLICATION_ORDER.index(file.table))
    if not ordered:
        return
    absent = [file for file in ordered if not store.publish(file.staged, file.path)]
    log.refresh(write_checkpoints=True)  # somebody may have removed a file while we were publishing it
    _delete_removed(store, log)
    lost = [file for file in absent if file.path in log.state.live]
    if lost:
        raise DamageError(
            f"{store.url_of(lost[0].path)} is committed, but neither it nor its staged file exists: "
            f"`verify {store.url} --repair` mends the dataset"
        )


def _delete_removed(store: Store, log: CommitLog) -> None:
    """Staged files first: a slow publisher must not find them after the public ones are gone. Segments before faces: as
    they come, so they go."""
    gone = sorted(log.removals)
    rows = [path for path in gone if path.startswith("segments/")]
    store.delete_many(log.state.removed_files[path] for path in gone)
    store.delete_many(rows)
    store.delete_many(set(gone).difference(rows))
    log.removals.difference_update(gone)
