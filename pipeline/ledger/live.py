"""Live files for readers that go by the log: a file that is committed but not public yet is read where it is staged."""

from __future__ import annotations

from pipeline.errors import StoreError
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store


def live_paths(store: Store, state: LogState, table: str, model_id: str | None = None) -> list[str]:
    """Paths where the live files of a table lie now, oldest first; of one model if given."""
    files = state.files(table, model_id)
    if not files:
        return []
    public = set(store.list(table))
    return [
        file.staged if file.path not in public and store.exists(file.staged) else file.path  # published while we looked
        for file in files
    ]


def read_live(store: Store, file: CommittedFile) -> bytes:
    """The bytes of a live file, public yet or not. Raises StoreError if it is gone."""
    for path in (file.path, file.staged, file.path):  # again: it may be published between the first two looks
        try:
            return store.read_bytes(path)
        except FileNotFoundError:
            continue
    raise StoreError(f"{store.url_of(file.path)} is gone: another run replaced it meanwhile, or it was deleted by hand")
