"""A store that can't create a file only if it is absent would let two drivers overwrite each other's entries: it is
refused when a dataset is made."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import Entry
from pipeline.ledger.log import CommitLog
from pipeline.storage.store import Store
from tests.faults.faulty_proxy import Request, between
from tests.faults.s3 import direct, new_bucket


def test_an_s3_that_does_not_know_conditional_writes(s3_server: str) -> None:
    """It takes the request and leaves the condition out, as some S3-compatible servers do."""

    def rule(request: Request) -> str | None:
        return "condition ignored" if request.is_conditional_put else None

    url = f"s3://{new_bucket(s3_server)}/out"
    with between(s3_server, rule) as proxy:
        store = Store(url, {**direct(s3_server), "endpoint": proxy.url})
        with pytest.raises(UsageError, match="a second file replaced the first") as refused:
            Dataset.open_or_create(store, Extraction())
    assert proxy.fired["condition ignored"] == 2
    assert url in str(refused.value)
    assert "conditional writes" in str(refused.value)
    whole = Store(url, direct(s3_server))
    assert whole.list("") == []
    Dataset.open_or_create(whole, Extraction())
    assert whole.list("") == ["dataset.json"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As exFAT and some network file systems are."""

    def link(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    store = Store(str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", link)
        with pytest.raises(UsageError, match=r"out can't hold a dataset: its file system has no hard links.* another"):
            Dataset.open_or_create(store, Extraction())
    assert store.list("") == []
    Dataset.open_or_create(store, Extraction())
    assert store.list("") == ["dataset.json"]
    with monkeypatch.context() as patched:  # a dataset that was copied to such a file system
        patched.setattr(os, "link", link)
        with pytest.raises(UsageError, match="no hard links") as refused:
            CommitLog(store).append(lambda _: Entry(run_id="r"))
        assert refused.value.exit_code == 2
