"""`reprocess` finds the model whose faces it takes by the beginning of its id, as `compare` and `overlay` do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.prepare import prepare_reprocess
from pipeline.run_config import RunConfig
from tests.staged_rows import MODEL, OTHER_MODEL
from tests.two_models import write_dataset


def test_the_base_may_be_the_beginning_of_an_id(tiny_model: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", [1, 2])
    config = RunConfig(inputs=(str(tmp_path / "out"),), output=str(tmp_path / "out"), model=str(tiny_model))
    assert prepare_reprocess(config, OTHER_MODEL[:3]).base_model_id == OTHER_MODEL
    assert prepare_reprocess(config, None).base_model_id == OTHER_MODEL
    for wrong in ("feed", ""):
        with pytest.raises(UsageError, match=f"models are: {MODEL}, {OTHER_MODEL}"):
            prepare_reprocess(config, wrong)
