"""Bits flip, files are cut and deleted in a finished dataset: it is named, mended, and made whole by the same run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import DEMO_MEDIA, run_cli, run_cli_here
from tests.datasets import assert_equal_datasets


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    shutil.copy(DEMO_MEDIA / "portrait.mp4", folder)
    shutil.copy(DEMO_MEDIA / "portraits.tar", folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(media: Path, tiny_model: Path, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several commits: every unit of two segments is committed when it comes."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    _run(media, output, tiny_model)
    return output


def _run(media: Path, output: Path, model: Path) -> None:
    options = ("--segment-frames", "8", "--decode-actors", "1", "--commit-interval-s", "1e-6", "--quiet")
    done = run_cli_here("run", media, "-o", output, "--model", model, *options)
    assert done.returncode == 0, done.stderr


def test_what_was_damaged_is_named_mended_and_made_again(
    undisturbed: Path, media: Path, tiny_model: Path, ray_address: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    entries = sorted((output / "_ran" / "log").glob("*.json"))
    assert len(entries) >= 4
    parts = sorted((output / "faces").rglob("*.parquet"))
    damaged = [output / "dataset.json", entries[2], parts[0]]
    damaged[0].write_bytes(damaged[0].read_bytes().replace(b'"fps": "5"', b'"fps": "4"'))
    damaged[1].write_bytes(damaged[1].read_bytes()[:100])
    data = bytearray(damaged[2].read_bytes())
    data[len(data) // 2] ^= 1
    damaged[2].write_bytes(data)

    refused = run_cli("run", media, "-o", output, "--model", tiny_model, address=ray_address)
    assert refused.returncode == 5
    assert "dataset.json is malformed" in refused.stderr
    assert "verify --repair" in refused.stderr
    found = run_cli_here("verify", output, "--json")
    assert found.returncode == 3, found.stderr
    named = {finding["path"] for finding in json.loads(found.stdout)["findings"]}
    assert {path.relative_to(output).as_posix() for path in damaged} <= named

    mended = run_cli_here("verify", output, "--repair")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "repaired:" in mended.stdout
    assert run_cli_here("verify", output).returncode == 0
    _run(media, output, tiny_model)
    assert_equal_datasets(output, undisturbed)
    assert run_cli_here("verify", output).returncode == 0
