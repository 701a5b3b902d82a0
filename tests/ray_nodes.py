"""A Ray cluster of processes on this machine: a head with dashboard and no CPUs, and nodes that do the work.

It has ports and a temporary folder of its own, so it neither sees nor disturbs another Ray; its processes end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.conftest import ROOT

START_S = 240


@dataclass(kw_only=True)
class RayNodes:
    """A running head and the nodes that joined it. url: of the dashboard. headers: of requests to it."""

    url: str
    headers: dict[str, str]
    address: str
    variables: dict[str, str]
    folder: Path
    processes: list[subprocess.Popen[bytes]]

    def grow_to(self, nodes: int, *, cpus: int) -> None:
        """Starts nodes with so many CPUs until there are `nodes` besides the head."""
        while len(self.processes) < 1 + nodes:
            self.start([f"--address={self.address}", f"--num-cpus={cpus}"])

    def start(self, arguments: list[str], *, without: Path | None = None) -> None:
        """One more process of `ray start`. Returns when the dashboard shows its node as alive.

        without: a folder of this machine that is another, empty one for that node; needs root.
        """
        until = time.monotonic() + START_S
        alive = None
        self.processes.append(self._begin(arguments, without))
        while alive != len(self.processes):
            if self.processes[-1].poll() is not None:  # Ray gives a node 30 s, which a busy machine may not have
                _kill_group(self.processes[-1])  # else what it has started keeps the head's ports, or joins too
                self.processes[-1] = self._begin(arguments, without)
            log = (self.folder / "start.txt").read_text()[-4000:]
            assert time.monotonic() < until, f"{alive} of {len(self.processes)} nodes are up\n{log}"
            time.sleep(0.2)
            with contextlib.suppress(requests.RequestException, KeyError):
                answer = requests.get(f"{self.url}/api/v0/nodes", headers=self.headers, timeout=10).json()
                alive = [row["state"] for row in answer["data"]["result"]["result"]].count("ALIVE")

    def _begin(self, arguments: list[str], without: Path | None = None) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats", *arguments]
        command += ["--node-ip-address=127.0.0.1", f"--object-store-memory={100 << 20}"]
        ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
        command += [f"--{name}-port={_free_port()}" for name in ports]
        if without is not None:
            hidden = ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(without)]
            command = ["unshare", "--mount", *hidden, *command]
        with (self.folder / "start.txt").open("ab") as log:
            return subprocess.Popen(command, env=self.variables, stdout=log, stderr=log, start_new_session=True)

    def end(self) -> None:
        """Kills every process of these nodes and of no other Ray, and waits until they are gone."""
        family = [process for process in psutil.process_iter() if self._is_ours(process)]
        for node in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                family += [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for node in self.processes:
            node.wait()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, alive

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return str(self.folder) in " ".join(process.cmdline())
        return False


@contextlib.contextmanager
def ray_head(
    *, node_cpus: int = 0, most_nodes: int = 0, token: str | None = None, **environment: str
) -> Iterator[RayNodes]:
    """A head without CPUs. Its own environment and that of its nodes is this process's and `environment`.

    most_nodes: Ray's autoscaler starts so many nodes of `node_cpus`, when something waits for them.
    token: what the environment makes Ray ask for; without one nobody is asked.
    """
    variables = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    variables |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    variables |= {"RAY_agent_register_timeout_ms": str(START_S * 1000)}
    if token is None:  # else it is whether this user once started Ray that decides
        variables |= {"RAY_AUTH_MODE": "disabled"}
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Unix sockets have 107 characters for their path
    gcs, dashboard = _free_port(), _free_port()
    cluster = RayNodes(
        url=f"http://127.0.0.1:{dashboard}",
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
        address=f"127.0.0.1:{gcs}",
        variables=variables,
        folder=folder,
        processes=[],
    )
    head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}", "--num-cpus=0"]
    head += [f"--ray-client-server-port={_free_port()}"]
    if most_nodes:
        (folder / "autoscaling.json").write_text(json.dumps(_autoscaling(cluster.address, node_cpus, most_nodes)))
        head += [f"--autoscaling-config={folder / 'autoscaling.json'}"]
        variables |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    try:
        cluster.start(head)
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


def _autoscaling(address: str, node_cpus: int, most_nodes: int) -> dict[str, Any]:
    """A cluster's configuration whose provider starts nodes as processes of this machine."""
    none: dict[str, Any] = {}
    return {
        "cluster_name": "grows",
        "max_workers": most_nodes,
        "provider": {"type": "fake_multinode", "gcs_address": address, "disable_node_updaters": True},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": none, "max_workers": 0},
            "worker": {
                "resources": {"CPU": node_cpus, "object_store_memory": 100 << 20},
                "node_config": none,
                "min_workers": 0,
                "max_workers": most_nodes,
            },
        },
        "idle_timeout_minutes": 60,
        "upscaling_speed": 1.0,
        "auth": none,
        "docker": none,
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": none,
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


def _kill_group(leader: subprocess.Popen[bytes]) -> None:
    """Ends what a process that has ended left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)


def _free_port() -> int:
    """A port that nothing takes before Ray does: above those of its workers, below those of outgoing connections."""
    for port in random.Random(os.urandom(8)).sample(range(20_000, 32_768), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
    raise RuntimeError("No port between 20000 and 32768 is free")
