"""Memory against the length of the input: peak resident memory of a run over a clip and over one ten times as long.

Sums the proportional set sizes (PSS) of the driver and everything it started, twice a second, so pages that processes
share (libraries, the object store) count once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.clips import repeated

SHORT_S = 60.0


def peak_mib(command: list[str]) -> tuple[float, dict[str, float]]:
    """Peak PSS of a command with its descendants, in MiB, and its JSON answer."""
    process = psutil.Popen(command, stdout=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        total = 0
        for member in [process, *process.children(recursive=True)]:
            try:
                total += member.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peak = max(peak, total / 2**20)
        time.sleep(0.5)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return peak, json.loads(process.stdout.read())


def main() -> None:
    """Prints the peaks of the short and the long clip and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for factor in (1, 10):
            clip = repeated(Path(folder) / f"{factor}.mp4", SHORT_S * factor)
            output = f"{folder}/out-{factor}"
            command = [sys.executable, "-m", "jobs.cli", "run", str(clip), "-o", output, "--json", "--quiet"]
            peak, answer = peak_mib(command)
            peaks.append(peak)
            print(f"{SHORT_S * factor:.0f} s of video, {answer['faces']} faces: peak {peak:.0f} MiB", flush=True)
        print(f"10× longer / 1×: {peaks[1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
