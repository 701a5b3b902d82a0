"""`run` against the same stages in two plain processes without Ray, on a two-minute clip, in alternating pairs.

Both use one thread per process. The plain loop is the best that two cores can do without a framework: each process
takes the next segment, decodes, detects, aligns and scores it, and writes its rows to files as the last stage does; it
has no log and no recovery. Start-up (imports,
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

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import repeated

PAIRS = 3
CLIP_S = 120.0
FPS = "5"


def plain_worker(output: str, tasks: Any, results: Any) -> None:
    """One of the two processes."""
    import torch

    from pipeline.config import Extraction
    from pipeline.extract import append_results
    from pipeline.infer import InferConfig, ModelBytes, RanActor
    from pipeline.segments import Segment
    from pipeline.stage import StageConfig, StageWriter
    from pipeline.storage.store import Store
    from pipeline.worker import SegmentExtractor, WorkerConfig
    from ran_model.model_files import default_model_dir, read_model_bytes

    torch.set_num_threads(1)
    config, weights = read_model_bytes(default_model_dir())
    extraction = Extraction(fps=FPS)
    extractor = SegmentExtractor(WorkerConfig(extraction=extraction, model_config=config))
    infer = RanActor(ModelBytes(config, weights), InferConfig())
    write = StageWriter(StageConfig(store=Store(output), run_id="plain", model_id="0" * 12, model_config=config))
    results.put(("ready", time.time()))
    faces = 0
    while (row := tasks.get()) is not None:
        parts: list[NDArray[np.uint8]] = []
        result = extractor.extract(Segment.from_row(row.to_pylist()[0]), parts.append)
        pixels = b"".join(part.tobytes() for part in parts)
        write(infer(append_results(row, [result], [pixels], [False], extraction, time.time())))
        faces += result.faces_kept
    results.put(("faces", faces))


def plain(clip: Path, output: Path) -> dict[str, float]:
    """Faces per second of the plain loop."""
    from pipeline.config import Extraction
    from pipeline.media.probe import probe_source
    from pipeline.media.scratch import Scratch
    from pipeline.media.sources import list_sources
    from pipeline.segments import plan_table

    begun = time.time()
    extraction = Extraction(fps=FPS)
    source = list_sources([str(clip)]).sources[0]
    row = probe_source(source, scratch=Scratch(None), storage_options={}, extraction=extraction)
    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    workers = [context.Process(target=plain_worker, args=(str(output), tasks, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    ready = max(results.get()[1] for _ in workers)
    plan = plan_table([row], locations={source.source_id: source.location}, extraction=extraction)
    for number in range(plan.num_rows):
        tasks.put(plan.slice(number, 1))
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
                answers[name] = (plain if name == "plain" else run)(clip, Path(folder) / f"{name}-{pair}")
            assert answers["plain"]["faces"] == answers["run"]["faces"], answers
            ratios.append(answers["run"]["faces_per_s"] / answers["plain"]["faces_per_s"])
            for name in order:
                shown = ", ".join(f"{key} {value:.2f}" for key, value in answers[name].items() if key != "bottleneck")
                print(f"pair {pair + 1} {name:5}: {shown}", flush=True)
        print(f"run / plain: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
