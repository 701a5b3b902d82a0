"""Memory against the length of the input: peak memory of a run over a clip and over one ten times as long."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.clips import repeated
from benchmarks.processes import measured_run

SHORT_S = 60.0


def main() -> None:
    """Prints the peaks of the short and the long clip and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for factor in (1, 10):
            clip = repeated(Path(folder) / f"{factor}.mp4", SHORT_S * factor)
            output = f"{folder}/out-{factor}"
            run = measured_run([sys.executable, "-m", "jobs.cli", "run", str(clip), "-o", output, "--json", "--quiet"])
            peaks.append(run.mib)
            print(f"{SHORT_S * factor:.0f} s of video, {run.answer['faces']} faces: peak {run.mib:.0f} MiB", flush=True)
        print(f"10× longer / 1×: {peaks[1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
