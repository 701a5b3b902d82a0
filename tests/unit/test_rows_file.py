"""What a committer can't spool to the temporary folder ends as an error of the store, which another run mends."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import schema
from pipeline.errors import StoreError
from pipeline.ledger.rows_file import RowsFile
from pipeline.storage.store import Store
from tests.staged_rows import table

ROWS = 2000


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk with so little room: the system refuses to write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("is_large", [True, False], ids=["in a row group", "at the end"])
def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(schema, "ROW_GROUP_ROWS", ROWS if is_large else 10 * ROWS)
    rows = table("segments", ROWS, segment_id=[os.urandom(16).hex() for _ in range(ROWS)])
    store = Store(str(tmp_path / "out"))

    def write() -> None:
        with files_of_at_most(1000), RowsFile(store, "r", "segments") as file:
            file.add(rows)
            file.finish()

    with pytest.raises(StoreError, match="TMPDIR") as raised:
        write()
    assert str(temporary) in str(raised.value)
    assert not list(temporary.iterdir())
