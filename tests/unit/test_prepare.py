"""`reprocess` finds the model whose faces it takes by the beginning of its id, as `compare` and `overlay` do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import prepare
from pipeline.errors import UsageError
from pipeline.infer import ModelBytes
from pipeline.ledger.runs import Run
from pipeline.prepare import prepare_reprocess, prepare_retry
from pipeline.run_config import RunConfig
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, OTHER_MODEL
from tests.two_models import write_dataset
from tests.unit.test_inspect import commit


def test_the_base_may_be_the_beginning_of_an_id(tiny_model: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", [1, 2])
    config = RunConfig(inputs=(str(tmp_path / "out"),), output=str(tmp_path / "out"), model=str(tiny_model))
    assert prepare_reprocess(config, OTHER_MODEL[:3]).base_model_id == OTHER_MODEL
    assert prepare_reprocess(config, None).base_model_id == OTHER_MODEL
    with pytest.raises(UsageError, match="has no rows"):
        prepare_retry(config, ())
    for wrong in ("feed", ""):
        with pytest.raises(UsageError, match=f"models are: {MODEL}, {OTHER_MODEL}"):
            prepare_reprocess(config, wrong)


def test_who_retries_a_model_without_errors_hears_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    commit(store, MODEL, 1, 2, 3)
    commit(store, OTHER_MODEL, 1, 4, 9)  # of which two failed
    monkeypatch.setattr(prepare, "_check_detector", lambda *_: None)
    config = RunConfig(inputs=(store.url,), output=store.url)
    for model_id, notes in (
        (MODEL, (f"model {MODEL} has no errors, others have: {OTHER_MODEL} (2 segments); ",)),
        (OTHER_MODEL, ()),
    ):
        monkeypatch.setattr(prepare, "load", lambda _, loaded=model_id: (ModelBytes(b"", b""), loaded))
        told = prepare_retry(config, ()).notes
        assert [note.startswith(start) for note, start in zip(told, notes, strict=True)] == [True] * len(notes)


@pytest.mark.parametrize("asked", [(), (False,), (True,), (True, False)])
def test_retry_keeps_crops_where_a_run_that_had_none_was_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[bool, ...]
) -> None:
    store = Store(str(tmp_path))
    commit(store, MODEL, 4)  # which failed
    for keep_crops in asked:
        with Run.create(store) as run:
            run.save_config({"run": RunConfig(inputs=("a",), output=store.url, keep_crops=keep_crops).to_json()})
    monkeypatch.setattr(prepare, "_check_detector", lambda *_: None)
    monkeypatch.setattr(prepare, "load", lambda _: (ModelBytes(b"", b""), MODEL))
    assert prepare_retry(RunConfig(inputs=(store.url,), output=store.url), ()).keeps_crops == any(asked)
