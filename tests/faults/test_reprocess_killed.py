"""kill -9 of `reprocess` at a change that its driver makes to the store; then the same command again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import save_tiny_model
from tests.faults.comparison import assert_same_tables, table
from tests.faults.deaths import deaths_of, die
from tests.faults.job import Job


@pytest.fixture(scope="module", params=["crops", "decoding"])
def base(request: pytest.FixtureRequest, job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one model, whose faces another takes from kept crops or from the sources."""
    output = tmp_path_factory.mktemp(f"base-{request.param}") / "out"
    job.but(keep_crops=request.param == "crops").run(output)
    return output


@pytest.fixture(scope="module")
def other(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return job.again_with(save_tiny_model(tmp_path_factory.mktemp("other") / "tiny", seed=8))


@pytest.fixture(scope="module")
def reprocessed(base: Path, other: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed `reprocess` makes of it."""
    output = tmp_path_factory.mktemp("reprocessed") / "out"
    shutil.copytree(base, output)
    other.run(output)
    return output


@pytest.mark.seeds(1)
def test_reprocess_killed(
    base: Path,
    other: Job,
    reprocessed: Path,
    tmp_path: Path,
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    output = tmp_path / "out"
    shutil.copytree(base, output)
    died = die(other, output, tmp_path, deaths_of(seed))
    if not died:
        pytest.skip("the run has fewer steps")
    record_property("faults", died)
    other.run(output)
    assert_same_tables(reprocessed, output)
    assert set(table(output, "faces")["model_id"].to_pylist()) > set(table(base, "faces")["model_id"].to_pylist())
    assert rows_files(base).items() <= rows_files(output).items(), "the old model's files changed"


def rows_files(output: Path) -> dict[str, str]:
    """The sha256 of every public Parquet file, by its path in the output."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.rglob("*.parquet")
        if not path.relative_to(output).parts[0].startswith("_")
    }
