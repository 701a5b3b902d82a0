"""`run` against the same stages in two plain processes without Ray, on a two-minute clip, in alternating pairs.

Both use one thread per process. The plain loop is the best that two cores can do without a framework: each process
takes the next segment, decodes, detects, aligns and scores it, and appends its rows to a list. Start-up (imports,
weights, Ray) is reported apart for both; the rate counts from the first segment that is taken up to the last row.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.clips import repeated

PAIRS = 3
CLIP_S = 120.0
FPS = "5"


def plain_worker(clip: str, tasks: Any, results: Any) -> None:
    """One of the two processes."""
    import torch

    from pipeline.child import DecodeChild  # noqa: F401 - the same import cost as an actor
    from pipeline.config import Extraction
    from pipeline.infer import CPU_BATCH
    from pipeline.worker import SegmentExtractor, WorkerConfig
    from ran_model.pretrained import default_model_dir, load_model_bytes, read_model_bytes

    torch.set_num_threads(1)
    config, weights = read_model_bytes(default_model_dir())
    extractor = SegmentExtractor(WorkerConfig(extraction=Extraction(fps=FPS), model_config=config))
    model = load_model_bytes(config, weights)
    results.put(("ready", time.time()))
    faces = 0
    while (segment := tasks.get()) is not None:
        result, pixels = extractor.extract(segment)
        for start in range(0, len(pixels), CPU_BATCH):
            end = start + CPU_BATCH
            model.predict(pixels[start:end], result.region_boxes[start:end])
        faces += len(pixels)
    results.put(("faces", faces))


def plain(clip: Path) -> dict[str, float]:
    """Faces per second of the plain loop."""
    from pipeline.config import Extraction
    from pipeline.media.probe import probe_source
    from pipeline.media.scratch import Scratch
    from pipeline.media.sources import list_sources
    from pipeline.segments import plan_segments

    begun = time.time()
    extraction = Extraction(fps=FPS)
    source = list_sources([str(clip)]).sources[0]
    row = probe_source(source, scratch=Scratch(None), storage_options={}, extraction=extraction)
    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    workers = [context.Process(target=plain_worker, args=(str(clip), tasks, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    ready = max(results.get()[1] for _ in workers)
    for segment in plan_segments(row, location=source.location, extraction=extraction):
        tasks.put(segment)
    for _ in workers:
        tasks.put(None)
    faces = sum(results.get()[1] for _ in workers)
    seconds = time.time() - ready
    for worker in workers:
        worker.join()
    return {"faces": faces, "faces_per_s": faces / seconds, "startup_s": ready - begun, "processing_s": seconds}


def run(clip: Path, output: Path) -> dict[str, float]:
    """Faces per second of the product, from its own summary."""
    command = [sys.executable, "-m", "jobs.cli", "run", str(clip), "-o", str(output), "--fps", FPS, "--json", "--quiet"]
    answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {
        "faces": answer["faces"],
        "faces_per_s": answer["faces_per_s"],
        "startup_s": answer["startup_s"],
        "processing_s": answer["faces"] / answer["faces_per_s"],
        "bottleneck": answer["bottleneck"],
    }


def main() -> None:
    """Prints each pair and the median ratio."""
    with tempfile.TemporaryDirectory() as folder:
        clip = repeated(Path(folder) / "clip.mp4", CLIP_S)
        ratios = []
        for pair in range(PAIRS):
            answers = {}
            order = ("plain", "run") if pair % 2 == 0 else ("run", "plain")
            for name in order:
                answers[name] = plain(clip) if name == "plain" else run(clip, Path(folder) / f"out-{pair}")
            assert answers["plain"]["faces"] == answers["run"]["faces"], answers
            ratios.append(answers["run"]["faces_per_s"] / answers["plain"]["faces_per_s"])
            for name in order:
                shown = ", ".join(f"{key} {value:.2f}" for key, value in answers[name].items() if key != "bottleneck")
                print(f"pair {pair + 1} {name:5}: {shown}", flush=True)
        print(f"run / plain: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
