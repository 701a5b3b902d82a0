from __future__ import annotations

import pytest

from pipeline.errors import StoreError
from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.live import live_paths, read_live
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store
from tests.faulty_store import memory_url
from tests.staged_rows import MODEL


def test_committed_file_is_read_where_it_lies() -> None:
    store, state = Store(memory_url()), LogState()
    files = [
        CommittedFile(
            table="faces",
            path=f"faces/{MODEL}/{n}",
            staged=f"_ran/staging/r/{n}",
            rows=1,
            bytes=1,
            sha256="",
            model_id=MODEL,
        )
        for n in range(2)
    ]
    state.apply(Entry(run_id="r", model_id=MODEL, add=files))
    assert live_paths(store, state, "segments") == []
    for file in files:
        store.write_bytes(file.staged, file.staged.encode())
    store.publish(files[0].staged, files[0].path)
    assert live_paths(store, state, "faces", MODEL) == [files[0].path, files[1].staged]
    assert [read_live(store, file) for file in files] == [file.staged.encode() for file in files]
    store.publish(files[1].staged, files[1].path)
    assert live_paths(store, state, "faces") == [file.path for file in files]
    assert read_live(store, files[1]) == files[1].staged.encode()
    store.delete(files[1].path)
    with pytest.raises(StoreError, match=f"faces/{MODEL}/1 is gone"):
        read_live(store, files[1])
