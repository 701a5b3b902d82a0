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
        while len(self.processes) < 1 + nodes:
            self.start([f"--address={self.address}", f"--num-cpus={cpus}"])

    def start(self, arguments: list[str]) -> None:
        """One more process of `ray start`. Returns when the dashboard shows its node as alive."""
        until = time.monotonic() + START_S
        alive = None
        self.processes.append(self._begin(arguments))
        while alive != len(self.processes):
            if self.processes[-1].poll() is not None:  # Ray gives a node 30 s, which a busy machine may not have
                self.processes[-1] = self._begin(arguments)
            log = (self.folder / "start.txt").read_text()[-2000:]
            assert time.monotonic() < until, f"{alive} of {len(self.processes)} nodes are up\n{log}"
            time.sleep(0.2)
            with contextlib.suppress(requests.RequestException, KeyError):
                answer = requests.get(f"{self.url}/api/v0/nodes", timeout=10).json()
                alive = [row["state"] for row in answer["data"]["result"]["result"]].count("ALIVE")

    def _begin(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats", *arguments]
        command += ["--node-ip-address=127.0.0.1", f"--object-store-memory={100 << 20}"]
        ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
        command += [f"--{name}-port={_free_port()}" for name in ports]
        with (self.folder / "start.txt").open("wb") as log:
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
        cluster.start(head)
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
