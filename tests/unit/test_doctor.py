"""`doctor` says what is not ready, whichever check it is, and goes on to the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs import doctor
from jobs.cli import cli
from pipeline.errors import CapacityError

CHECKS = {
    "video decoder": "_decoder",
    "detector": "_detector",
    "model": "_model",
    "device": "_device",
    "ray": "_ray",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `doctor` really does, `test_usage.py` shows."""
    for name, function in CHECKS.items():
        monkeypatch.setattr(doctor, function, lambda name=name: f"{name} was looked at")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["doctor", *map(str, arguments)])


def test_a_store_that_can_not_hold_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = run("--store", tmp_path / "file" / "out")
    assert isinstance(done.exception, CapacityError)
    assert done.exception.exit_code == 4
    assert str(done.exception) == "this machine is not ready: store; see the messages above"
    failed = [line for line in done.stdout.splitlines() if "FAILED" in line]
    assert len(failed) == 1
    assert failed[0].split()[:2] == ["FAILED", "store"]
    assert f"{tmp_path / 'file'} is a file" in failed[0]
    assert run("--store", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_that_fails_is_named_and_the_others_are_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise AssertionError("the library is not there")

    monkeypatch.setattr(doctor, CHECKS[name], broken)
    done = run("--json")
    assert isinstance(done.exception, CapacityError)
    assert str(done.exception) == f"this machine is not ready: {name}; see the messages above"
    found = {row["check"]: row for row in json.loads(done.stdout)}
    assert found.pop(name)["detail"] == "AssertionError: the library is not there"
    assert found.keys() == {"python", *CHECKS} - {name}
    assert all(row["ok"] for row in found.values())


def test_a_machine_that_is_ready() -> None:
    done = run()
    assert (done.exit_code, done.exception) == (0, None), done.output
    assert "FAILED" not in done.stdout
    assert all(f"{name} was looked at" in done.stdout for name in CHECKS)
