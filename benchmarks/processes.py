"""A command measured from outside, with everything that it starts."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import psutil

INTERVAL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """seconds by the clock; cpu_seconds of the command's own process; mib: the peak over time of the summed
    proportional set sizes (PSS) of all its processes, so that pages they share (libraries, the object store) count
    once; answer: what it printed, as JSON."""

    seconds: float
    cpu_seconds: float
    mib: float
    answer: dict[str, Any]


def measured_run(command: list[str]) -> MeasuredRun:
    """Runs a command that prints JSON; memory is sampled twice a second."""
    begun = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.PIPE)
    peak = cpu = 0.0
    while process.poll() is None:
        total = 0
        for member in [process, *_descendants(process)]:
            try:
                total += member.memory_full_info().pss
                if member == process:
                    times = member.cpu_times()
                    cpu = times.user + times.system
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peak = max(peak, total / 2**20)
        time.sleep(INTERVAL_S)
    seconds = time.monotonic() - begun
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return MeasuredRun(seconds=seconds, cpu_seconds=cpu, mib=peak, answer=json.loads(process.stdout.read()))


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []
