"""The two decoders under the whole extraction (decode, detect, align): CPU seconds and memory, in one run.

Each reads the same clip in a process of its own, one thread, in alternating pairs.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.clips import repeated
from pipeline.media.decoders import DECODERS

PAIRS = 3
CLIP_S = 120.0


def extract(clip: str, decoder: str, send: Any) -> None:
    """Sends faces, seconds, CPU seconds of all threads, and the process's peak MiB."""
    from pipeline.config import Extraction
    from pipeline.media.probe import probe_source
    from pipeline.media.scratch import Scratch
    from pipeline.media.sources import list_sources
    from pipeline.segments import plan_segments
    from pipeline.worker import SegmentExtractor, WorkerConfig
    from ran_model.model_files import default_model_dir, read_model_bytes

    extraction = Extraction()
    source = list_sources([clip]).sources[0]
    row = probe_source(source, scratch=Scratch(None), storage_options={}, extraction=extraction)
    config, _ = read_model_bytes(default_model_dir())
    extractor = SegmentExtractor(WorkerConfig(extraction=extraction, model_config=config, decoder=decoder))
    wall, cpu, faces = time.perf_counter(), time.process_time(), 0
    for segment in plan_segments(row, location=source.location, extraction=extraction):
        faces += extractor.extract(segment, lambda _: None).faces_kept
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    send.send((faces, wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Prints a table and the ratios of the medians."""
    context = multiprocessing.get_context("spawn")
    figures: dict[str, list[tuple[float, ...]]] = {decoder: [] for decoder in DECODERS}
    with tempfile.TemporaryDirectory() as folder:
        clip = repeated(Path(folder) / "clip.mp4", CLIP_S)
        for pair in range(PAIRS):
            for decoder in DECODERS if pair % 2 == 0 else DECODERS[::-1]:
                receive, send = context.Pipe(duplex=False)
                process = context.Process(target=extract, args=(str(clip), decoder, send))
                process.start()
                figures[decoder].append(receive.recv())
                process.join()
    print("| decoder | faces | s | CPU s | peak MiB |\n|---|---|---|---|---|")
    medians = {
        decoder: [statistics.median(column) for column in zip(*rows, strict=True)] for decoder, rows in figures.items()
    }
    for decoder, (faces, wall, cpu, mib) in medians.items():
        print(f"| {decoder} | {faces:.0f} | {wall:.1f} | {cpu:.1f} | {mib:.0f} |")
    first, second = (medians[decoder] for decoder in DECODERS)
    print(f"{DECODERS[1]} / {DECODERS[0]}: CPU {second[2] / first[2]:.2f}, memory {second[3] / first[3]:.2f}")


if __name__ == "__main__":
    main()
