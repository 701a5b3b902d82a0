"""Throughput against the number of workers, and how many workers one driver can feed.

The first is measured as far as this machine has cores. The second is what a cluster needs to know: CPU seconds of the
driver's own process for each segment, from runs whose frames are as small as can be, in the units of eight in which a
video's segments travel, so that the driver has as much to do as it ever has.
"""

from __future__ import annotations

import os
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.clips import repeated
from benchmarks.processes import MeasuredRun, measured_run
from benchmarks.small_model import small_model

CLIP_S = 120.0
FRAMES, SEGMENT_FRAMES = 8_000, (8, 1)


def main() -> None:
    """Prints a table for each question."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        throughput(folder)
        driver(folder)


def throughput(folder: Path) -> None:
    """Faces per second of 1, 2, … actors, to the number of cores."""
    clip = repeated(folder / "clip.mp4", CLIP_S)
    print("| actors | faces/s | to one actor |\n|---|---|---|")
    one = 0.0
    for actors in sorted({2**power for power in range((os.cpu_count() or 1).bit_length())}):
        options = ["--decode-actors", str(actors), "--fps", "5"]
        answer = run(clip, folder / f"out-{actors}", *options).answer
        rate = answer["faces_per_s"]
        one = one or rate
        print(f"| {actors} | {rate:.1f} | × {rate / one:.2f} |", flush=True)


def driver(folder: Path) -> None:
    """The driver's CPU seconds for a segment: of two runs over the same frames one has eight times as many segments.
    What both spend alike goes by the clock: Ray's threads, the heartbeat, the progress."""
    model, video = small_model(folder / "model", aligned_size=48), _video(folder / "video.mp4", FRAMES)
    cpu, count = [], []
    print("\n| segments | seconds | the driver's CPU s |\n|---|---|---|")
    for size in SEGMENT_FRAMES:
        options = ["--fps", "25", "--segment-frames", str(size), "--model", str(model)]
        done = run(video, folder / f"segments-{size}", *options)
        cpu.append(done.cpu_seconds)
        count.append(done.answer["segments_done"])
        print(f"| {count[-1]} | {done.seconds:.0f} | {cpu[-1]:.1f} |", flush=True)
    each = (cpu[1] - cpu[0]) / (count[1] - count[0])
    print(f"\n{1000 * each:.2f} ms for a segment: at most {1 / each:.0f} segments a second on one core of the head")


def run(source: Path, output: Path, *options: str) -> MeasuredRun:
    """`ran-pipeline run` with its summary."""
    command = [sys.executable, "-m", "jobs.cli", "run", str(source), "-o", str(output), *options, "--json", "--quiet"]
    return measured_run(command)


def _video(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "25", "bf": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        picture = np.zeros((64, 64, 3), np.uint8)
        for number in range(frames):
            picture[:8] = number % 256
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
