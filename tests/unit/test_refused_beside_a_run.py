"""`retry` and `run --on-changed replace` take rows out, so they don't start beside a run that is at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import cli
from pipeline import driver
from pipeline.config import Extraction
from pipeline.detect import MOBILENET, weights_sha256
from pipeline.errors import UsageError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.prepare import load
from pipeline.storage.store import Store
from tests.conftest import DEMO_MEDIA
from tests.staged_rows import segment_id, source_id, table

PICTURE = DEMO_MEDIA / "astronaut.png"


class RayStartedError(Exception):
    """The command went so far."""


@pytest.fixture
def store(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A dataset of an earlier content of the picture: a good row, and one that failed."""
    store = Store(str(tmp_path / "out"))
    dataset = Dataset.open_or_create(store, Extraction(detector_sha256=weights_sha256(MOBILENET)))
    model_id = load(str(tiny_model))[1]
    source = {"source_id": [source_id(0)], "source_uri": [str(PICTURE)]}
    rows = {
        "sources": table("sources", 1, **source, fingerprint=["1:1"], kind=["picture"]),
        "segments": table(
            "segments",
            2,
            **{name: value * 2 for name, value in source.items()},
            segment_id=[segment_id(0), segment_id(1)],
            model_id=[model_id] * 2,
            status=["ok", "error"],
            error_code=[None, "timeout"],
            faces_kept=[0, 0],
        ),
    }
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, model_id)
        files = [stage_table(store, run.run_id, name, part) for name, part in rows.items()]
        committer.add(StagedSet(segment_ids=[segment_id(0), segment_id(1)], files=files))
        committer.commit()
        committer.finish()

    def connected(address: str | None) -> None:
        raise RayStartedError

    monkeypatch.setattr(driver, "connected", connected)
    return store


def command(name: str, store: Store, model: Path) -> list[str]:
    replace = ["run", str(PICTURE), "-o", store.url, "--on-changed", "replace"]
    return [*(["retry", store.url] if name == "retry" else replace), "--model", str(model), "--quiet"]


@pytest.mark.parametrize("name", ["retry", "run"])
def test_a_command_that_takes_rows_out_is_refused_while_a_run_is_at_work(
    name: str, store: Store, tiny_model: Path
) -> None:
    before = live(store)
    with Run.create(store, interval_s=0.05) as other, pytest.raises(UsageError, match="is at work") as refused:
        cli.main(command(name, store, tiny_model), standalone_mode=False)
    assert other.run_id in str(refused.value)
    assert f"`{name}` when it has ended" in str(refused.value)
    assert refused.value.exit_code == 2
    assert live(store) == before


@pytest.mark.parametrize("name", ["retry", "run"])
def test_the_same_command_goes_on_when_the_run_has_ended(name: str, store: Store, tiny_model: Path) -> None:
    with Run.create(store):
        pass
    before = live(store)
    with pytest.raises(RayStartedError):
        cli.main(command(name, store, tiny_model), standalone_mode=False)
    assert live(store) == before, "nothing leaves before the cluster is there"


def live(store: Store) -> set[str]:
    log = CommitLog(store)
    log.refresh()
    return set(log.state.live)
