"""The examples, run as the README says: what a stranger sees first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from PIL import Image

from tests.conftest import ROOT


def _python(script: str, *arguments: str | Path, address: str | None = None) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | ({"RAY_ADDRESS": address} if address else {})
    command = [sys.executable, f"examples/{script}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=ROOT, timeout=280, check=False)


@pytest.fixture(scope="module")
def demo(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "demo-out"
    done = _python("demo.py", folder, address=ray_address)
    assert done.returncode == 0, done.stderr
    for noise in ("Traceback", "Warning", "WARNING", "(raylet)"):
        assert noise not in done.stdout + done.stderr
    return folder, done.stdout


def test_the_demo_says_what_it_found(demo: tuple[Path, str]) -> None:
    _, said = demo
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith("  ")}
    assert lines["astronaut.png"][1:4] == ["1", "1", "happiness"]
    assert lines["portrait.mp4"][1] == "41"
    assert lines["portraits.tar"][1:3] == ["12", "11"]
    assert lines["5.5"][1:] == ["2", "0", "-"]  # the portrait is gone, and the row says so
    assert "annotator" in said


def test_the_demo_draws_a_picture(demo: tuple[Path, str]) -> None:
    with Image.open(demo[0] / "overlay.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


def test_attention_leaves_the_inner_face_while_the_mouth_is_covered(demo: tuple[Path, str]) -> None:
    """What the README says of the default model; a model that does otherwise needs another README."""
    rows = duckdb.execute(
        'SELECT "timestamp" BETWEEN 2.0 AND 3.2 AS covered, avg(attention_center_85), mode(expression), '
        "avg(confidence) FROM read_parquet(?) WHERE source_uri LIKE '%portrait.mp4' "
        'AND ("timestamp" < 3.2 OR "timestamp" > 6) GROUP BY 1 ORDER BY 1',
        [f"{demo[0]}/dataset/faces/**/*.parquet"],
    ).fetchall()
    (_, plain, seen, sure), (_, covered, guessed, unsure) = rows
    assert covered < 0.6 * plain
    assert (seen, guessed) == ("happiness", "neutral")
    assert unsure < 0.8 * sure


def test_reading_with_pandas(demo: tuple[Path, str]) -> None:
    done = _python("read_with_pandas.py", demo[0] / "dataset")
    assert done.returncode == 0, done.stderr
    video = next(line.split() for line in done.stdout.splitlines() if line.startswith("portrait.mp4"))
    assert video[1:3] == ["41", "0.83"]
