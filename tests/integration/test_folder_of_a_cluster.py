"""A local output on a cluster: it must be one and the same folder on every node, and that is found out before work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DEMO_MEDIA, ROOT, run_cli
from tests.datasets import table
from tests.ray_nodes import ray_head

BUSY = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
actor = ray.remote(num_cpus=1)(type("Busy", (), {"here": lambda self: 1}))
busy = [actor.options(resources={"first": 0.1}).remote() for _ in range(2)]
ray.get([one.here.remote() for one in busy])
print("busy", flush=True)
time.sleep(1000)
"""


@pytest.mark.timeout(600)
def test_a_folder_that_a_node_does_not_share_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip("hiding a folder from a node needs root")
    here = tmp_path / "here"
    here.mkdir()
    run = ("run", DEMO_MEDIA / "astronaut.png", "--model", tiny_model, "--decode-actors", "1")
    with ray_head() as cluster:
        disabled = {"address": cluster.address, "RAY_AUTH_MODE": "disabled"}
        cluster.start([f"--address={cluster.address}", "--num-cpus=2"], without=here)
        for nodes in ("a head that only drives, and one that works", "one more"):
            refused = run_cli(*run, "-o", here / "out", **disabled)
            assert refused.returncode == 4, (nodes, refused.stderr)
            assert "do not share; use a shared folder or an s3:// URL" in refused.stderr
            assert not list((here / "out").rglob("*.parquet"))
            if nodes != "one more":
                cluster.start([f"--address={cluster.address}", "--num-cpus=2", '--resources={"first": 1}'])
        busy = subprocess.Popen(
            [sys.executable, "-c", BUSY, cluster.address], env=cluster.variables, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"busy\n"  # a node without a free CPU can still be asked
        done = run_cli(*run, "-o", tmp_path / "out", **disabled)
        busy.kill()
        assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out", "faces").num_rows == 1
