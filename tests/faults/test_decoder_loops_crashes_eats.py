"""A decoder that loops in native code, one that crashes, one that eats memory: a row each, and the neighbours whole.

One real run over a folder, by the command line, against one that nothing disturbs; the decoder is really the one that
does it (`stand_in_decoders`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import run_cli, run_cli_here
from tests.faults.comparison import assert_same_tables, table
from tests.faults.job import EXTRACTION, Job
from tests.faults.stand_in_decoders import HOSTILE

CODES = {
    "loops.mp4": "timeout",
    "crashes.mp4": "decoder_crash",
    "aborts.mp4": "decoder_crash",
    "eats.mp4": "out_of_memory",
}


@pytest.fixture(scope="module")
def folder(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of the bad between two good ones."""
    folder = tmp_path_factory.mktemp("hostile-decoder")
    for name in ("a.mp4", *CODES, "b.mp4", "c.mp4", "d.mp4", "z.mp4"):
        shutil.copy2(media / "a.mp4", folder / name)
    shutil.copy2(media / "face.png", folder)
    return folder


def test_decoder_loops_crashes_eats(folder: Path, job: Job, tmp_path: Path) -> None:
    command = (
        "run", folder, "--root", folder, "--model", job.model, "--fps", EXTRACTION["fps"], "--segment-frames", "16",
        "--decode-actors", "1", "--ran-actors", "1", "--json",
    )  # fmt: skip
    good = run_cli_here(*command, "-o", tmp_path / "good")
    assert good.returncode == 0, good.stderr
    bad = run_cli(
        *command, "-o", tmp_path / "bad", "--decoder", HOSTILE, "--deadline-s", "15", "--decode-memory", "0.7",
        address=job.address,
    )  # fmt: skip
    assert bad.returncode == 3, bad.stderr
    assert json.loads(bad.stdout)["passes"] == 1, "no actor died of it"

    expected, found = table(tmp_path / "good", "segments"), table(tmp_path / "bad", "segments")
    assert found["segment_id"].equals(expected["segment_id"])
    for row in found.to_pylist():
        code = CODES.get(row["source_uri"])
        assert row["error_code"] == code, row
        assert row["status"] == ("error" if code else "ok")
        assert row["node"]
    messages = dict(zip(found["source_uri"].to_pylist(), found["error_message"].to_pylist(), strict=True))
    assert "15 s" in messages["loops.mp4"]
    assert "SIGSEGV" in messages["crashes.mp4"]
    assert "SIGABRT" in messages["aborts.mp4"]
    assert "--decode-memory" in messages["eats.mp4"]

    assert not set(CODES) & set(table(tmp_path / "bad", "faces")["source_uri"].to_pylist())
    assert_same_tables(tmp_path / "good", tmp_path / "bad", but=tuple(CODES), without=("decoder",))
