"""A pool that grows on a cluster whose autoscaler starts real nodes when actors wait for them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from ray.util.state import list_actors

from pipeline.ledger.verify import verify
from pipeline.storage.store import Store
from tests.conftest import ROOT
from tests.faults.holding import held, waiting
from tests.faults.processes import wait_for
from tests.faults.stand_in_decoders import HELD
from tests.media import write_video
from tests.ray_nodes import RayNodes, ray_head


@pytest.fixture
def cluster() -> Iterator[RayNodes]:
    with ray_head(node_cpus=1, most_nodes=2) as started:
        yield started


@pytest.mark.timeout(600)
def test_a_run_starts_on_no_node_and_grows_while_work_waits(
    cluster: RayNodes, tiny_model: Path, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    write_video(media / "a.mp4", frames=100)  # Ray Data asks for nodes once it knows how long a unit takes
    write_video(media / "b.mp4", frames=100)
    command = [sys.executable, "-m", "jobs.cli", "run", str(media), "-o", str(tmp_path / "out")]
    command += ["--model", str(tiny_model), "--fps", "25", "--segment-frames", "4", "--decoder", HELD]
    command += ["--decode-actors", "1", "--max-decode-actors", "2", "--wait-for-nodes-s", "300"]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
    assert working_nodes(cluster) == 0
    with held(media):
        run = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE)
        try:
            wait_for("a frame of b.mp4", lambda: waiting(media))
            assert working_nodes(cluster) >= 1
            wait_for("a second node", lambda: working_nodes(cluster) == 2)
            wait_for("a second actor", lambda: len(waiting(media)) == 2)
        except BaseException:
            run.kill()
            raise
    stderr = run.communicate(timeout=200)[1]
    assert run.returncode == 0, stderr
    checked = verify(Store(str(tmp_path / "out")))
    assert checked.is_sound
    assert checked.segments == 52
    actors = [actor for actor in list_actors(address=cluster.url, limit=100) if "FusedActor" in actor.class_name]
    assert len({actor.node_id for actor in actors}) == 2, actors


def working_nodes(cluster: RayNodes) -> int:
    """Nodes that are up and have CPUs."""
    with contextlib.suppress(requests.RequestException, KeyError):
        nodes = requests.get(f"{cluster.url}/api/v0/nodes?detail=1", timeout=10).json()["data"]["result"]["result"]
        return sum(1 for node in nodes if node["state"] == "ALIVE" and node["resources_total"].get("CPU"))
    return 0
