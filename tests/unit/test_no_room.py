"""Output that can't be written where the user wants it is no bug of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.deliver import deliver
from pipeline.errors import UsageError
from tests.conftest import ROOT
from tests.report_dataset import write

needs_a_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")


@needs_a_full_device
@pytest.mark.parametrize("to", [(), ("--to", "/dev/full")])
def test_a_full_disk_is_said_in_a_line(tmp_path: Path, to: tuple[str, ...]) -> None:
    write(tmp_path / "out", crops=False)
    sql = "FROM faces"  # more than a buffer holds
    command = [sys.executable, "-m", "jobs.cli", "query", tmp_path / "out", sql, "--format", "csv", *to]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: the disk")
    assert done.stderr.count("\n") == 1


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    target = tmp_path / f"{'x' * 251}.csv"
    deliver(str(target), {}, lambda path: path.write_text("a"))
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_longer_name_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        deliver(str(tmp_path / f"{'x' * 260}.csv"), {}, lambda path: path.write_text("a"))
