"""The example that reads a dataset without this package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.staged_rows import MODEL, OTHER_MODEL, source_id, table
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


def test_pictures_of_one_name_in_an_archive_are_as_many_frames(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    happy = [(0, 0), (1, 0), (1, 1), (2, 0)]  # the picture among the members, and its face
    faces = table(
        "faces", len(happy), member=["same.png"] * len(happy), frame=[0] * len(happy), Yaw=[0.0] * len(happy),
        face_id=[f"{source_id(1)}-{ordinal}-0-{face}" for ordinal, face in happy],
        expression=["happiness"] * len(happy), confidence=[0.9] * len(happy),
    )  # fmt: skip
    segments = table("segments", 1, frames=[[0] * 4], face_counts=[[1, 2, 1, 0]], members=[["same.png"] * 4])
    for name, rows in (("faces", faces), ("segments", segments)):
        (tmp_path / name).mkdir()
        pq.write_table(rows, tmp_path / name / "part.parquet")
    example.main(str(tmp_path))
    assert capsys.readouterr().out.splitlines()[-1].split()[1:] == ["4", "0.75", "0.75"]
