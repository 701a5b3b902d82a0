"""An output that is not this run's to write: made with another extraction, by a newer version, or damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.ledger.seal import sealed, unsealed
from tests.conftest import run_cli_here
from tests.faults.job import EXTRACTION, Job


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"extraction": {"fps": "7"}}, 2, "made with another extraction (fps is '7' there and '5' now)"),
        ({"extraction": {"blinks": True}}, 2, "unknown extraction fields blinks: upgrade ran-pipeline"),
        ({"schema_version": 99}, 2, "has schema version 99"),
    ],
)
def test_output_of_another_extraction_is_refused_and_untouched(
    job: Job, undisturbed: Path, tmp_path: Path, change: dict[str, object], code: int, says: str
) -> None:
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    stated = unsealed((output / "dataset.json").read_bytes())
    for name, value in change.items():
        stated[name] = {**stated[name], **value} if isinstance(value, dict) else value
    (output / "dataset.json").write_bytes(sealed(stated))
    before = contents(output)
    done = run_cli_here(
        "run", *job.inputs, "-o", output, "--model", job.model,
        "--fps", EXTRACTION["fps"], "--segment-frames", EXTRACTION["segment_frames"],
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert contents(output) == before


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }
