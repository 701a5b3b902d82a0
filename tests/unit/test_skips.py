"""A skip that CI does not accept fails there, also where pytest-xdist runs the tests, and only there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="there is a GPU")
def test_with_a_gpu(): ...

def test_with_media():
    pytest.skip("../shared/media is not here")

@pytest.mark.xfail(strict=True)
def test_that_is_expected_to_fail():
    assert False

@pytest.mark.skip(reason="later")
def test_marked(): ...

@pytest.fixture
def thing():
    pytest.skip("the run has fewer steps")

def test_with_a_fixture(thing): ...

def test_in_the_middle():
    pytest.importorskip("no_such_library")
"""


@pytest.mark.parametrize("options", [("-p", "no:xdist"), ("-n", "1")], ids=["alone", "xdist"])
def test_a_skip_for_another_reason_fails(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    assert outcomes(tmp_path, *options, NO_SKIPS="1") == (1, {"error": 2, "failed": 1, "skipped": 2, "xfailed": 1})
    if "-n" not in options:
        assert outcomes(tmp_path, *options) == (0, {"skipped": 5, "xfailed": 1})


def test_a_module_that_skips_itself_fails(tmp_path: Path) -> None:
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_library')\n")
    assert outcomes(tmp_path, NO_SKIPS="1") == (2, {"error": 1})


def outcomes(folder: Path, *options: str, **environment: str) -> tuple[int, dict[str, int]]:
    """The exit code, and how many tests came to what."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    variables = {name: value for name, value in os.environ.items() if name != "NO_SKIPS" and "PYTEST" not in name}
    done = subprocess.run(
        [*command, *options, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=variables | {"PYTHONPATH": str(ROOT)} | environment,
        timeout=200,
    )
    counts = re.findall(r"(\d+) (failed|error|skipped|xfailed|passed)", done.stdout.splitlines()[-1])
    return done.returncode, {outcome: int(count) for count, outcome in counts}


def test_ci_sets_it() -> None:
    assert "NO_SKIPS=1 make test" in (ROOT / ".ci" / "run").read_text()
