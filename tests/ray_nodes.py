"""A Ray cluster of processes on this machine: a head with dashboard and no CPUs, and nodes that do the work.

It has ports and a temporary folder of its own, so it neither sees nor disturbs another Ray; its processes end with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from tests.conftest import ROOT

START_S = 180


@dataclass(kw_only=True)
class RayNodes:
    """A running head and the nodes that joined it. url: of the dashboard."""

    url: str
    address: str
    variables: dict[str, str]
    folder: Path
    processes: list[subprocess.Popen[bytes]]

    def grow_to(self, nodes: int, *, cpus: int) -> None:
        """Starts nodes with so many CPUs until there are `nodes` besides the head."""
        while len(self.processes) < 1 + nodes:  # one by one: a busy machine starts no two in Ray's 30 s
            join = [f"--address={self.address}", f"--num-cpus={cpus}"]
            log = self.folder / f"node-{len(self.processes)}.txt"
            self.processes.append(_start(join, self.variables, log))
            _wait_for_nodes(self)


@contextlib.contextmanager
def ray_head(**environment: str) -> Iterator[RayNodes]:
    """A head without CPUs. Its own environment and that of its nodes is this process's and `environment`."""
    variables = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    variables |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    variables |= {
        "RAY_AUTH_MODE": "disabled",  # else it is whether this user once started Ray that decides
        "RAY_agent_register_timeout_ms": str(START_S * 1000),
    }
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Unix sockets have 107 characters for their path
    gcs, dashboard = _free_port(), _free_port()
    cluster = RayNodes(
        url=f"http://127.0.0.1:{dashboard}",
        address=f"127.0.0.1:{gcs}",
        variables=variables,
        folder=folder,
        processes=[],
    )
    head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}", "--num-cpus=0"]
    head += [f"--ray-client-server-port={_free_port()}"]
    try:
        cluster.processes.append(_start(head, variables, folder / "head.txt"))
        _wait_for_nodes(cluster)
        yield cluster
    finally:
        _end(cluster.processes)
        shutil.rmtree(folder, ignore_errors=True)


def _start(arguments: list[str], variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats", *arguments]
    command += ["--node-ip-address=127.0.0.1", f"--object-store-memory={100 << 20}"]
    ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
    command += [f"--{name}-port={_free_port()}" for name in ports]
    with log.open("wb") as file:
        return subprocess.Popen(command, env=variables, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def _wait_for_nodes(cluster: RayNodes) -> None:
    """Until the dashboard shows as many nodes as were started."""
    until = time.monotonic() + START_S
    alive = None
    while alive != len(cluster.processes):
        ended = [process.args for process in cluster.processes if process.poll() is not None]
        assert not ended, (ended, [log.read_text()[-2000:] for log in cluster.folder.glob("*.txt")])
        assert time.monotonic() < until, f"{alive} of {len(cluster.processes)} nodes are up"
        time.sleep(0.2)
        with contextlib.suppress(requests.RequestException, KeyError):
            answer = requests.get(f"{cluster.url}/api/v0/nodes", timeout=10).json()
            alive = [row["state"] for row in answer["data"]["result"]["result"]].count("ALIVE")


def _end(nodes: list[subprocess.Popen[bytes]]) -> None:
    """Kills every process of these nodes and of no other Ray, and waits until they are gone."""
    for node in nodes:
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(node.pid)
            family = [top, *top.children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            node.wait()
            _, alive = psutil.wait_procs(family, timeout=20)
            assert not alive, alive


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
