"""A cluster with a GPU: stages with pools of their own, RAN actors that reserve the GPU, and the same rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import DEMO_MEDIA, ROOT, run_cli
from tests.datasets import table


def test_a_run_on_a_gpu_has_the_rows_of_one_without(tiny_model: Path, tmp_path: Path, ray_address: str) -> None:
    source = DEMO_MEDIA / "portraits.tar"
    command = [sys.executable, "-m", "tests.integration.gpu_run", source, tmp_path / "gpu", tiny_model]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["status"], summary["passes"], summary["gpus"]) == ("done", 1, 1.0)
    plain = run_cli("run", source, "-o", tmp_path / "cpu", "--model", tiny_model, address=ray_address)
    assert plain.returncode == 0, plain.stderr
    ours, theirs = (
        {row["face_id"]: row["confidence"] for row in table(tmp_path / name, "faces").to_pylist()}
        for name in ("gpu", "cpu")
    )
    assert len(ours) > 5
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[face] - theirs[face]) for face in ours) < 1e-5
