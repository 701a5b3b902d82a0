"""The example that reads a dataset without this package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT
from tests.staged_rows import MODEL, OTHER_MODEL
from tests.two_models import write_dataset


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_with_pandas", ROOT / "examples" / "read_with_pandas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_of_several_models_one_has_to_be_named(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path, [2, 3, 1], only_first=1)
    with pytest.raises(SystemExit, match=f"several models; add one of: {MODEL}, {OTHER_MODEL}"):
        example.main(str(tmp_path))
    for model, frames in ((MODEL, "3"), (OTHER_MODEL, "2")):
        example.main(str(tmp_path), model)
        assert capsys.readouterr().out.splitlines()[-1].split()[1] == frames
