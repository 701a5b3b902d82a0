"""Replay of the log and the anti-join at a million committed segments: CPU seconds and memory.

python -m benchmarks.log_scale [SEGMENTS] [ENTRIES]
"""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable

import pyarrow as pa

from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.log import CommitLog, entry_path
from pipeline.storage.store import Store

MODEL = "0123456789ab"


def segment_id(number: int) -> str:
    """Ids as they are in life: without order."""
    return hashlib.sha256(number.to_bytes(8, "big")).hexdigest()[:20]


def write_entries(root: str, segments: int, entries: int) -> None:
    """A log as many commits left it, without the data files."""
    store = Store(root)
    share = segments // entries
    for number in range(entries):
        files = [
            CommittedFile(
                table=table,
                path=f"{table}/{MODEL}/part-20260101T000000-abcdef-{number:016x}.parquet",
                staged=f"_ran/staging/20260101T000000-abcdef/{number:032x}-{table}.parquet",
                rows=share,
                bytes=share * 300,
                sha256=hashlib.sha256(str(number).encode()).hexdigest(),
                model_id=MODEL,
            )
            for table in ("faces", "segments")
        ]
        entry = Entry(
            run_id="20260101T000000-abcdef",
            model_id=MODEL,
            segments=[segment_id(n) for n in range(number * share, (number + 1) * share)],
            add=files,
        )
        path = f"{root}/{entry_path(number)}"
        if number == 0:
            store.write_bytes(entry_path(number), entry.to_bytes())
        else:  # no fsync: this is not what is measured
            with open(path, "wb") as file:
                file.write(entry.to_bytes())


def replay(root: str, segments: int) -> None:
    """Every entry, one by one."""
    CommitLog(Store(root), checkpoint_every=10**9).refresh()


def write_checkpoints(root: str, segments: int) -> None:
    """As `replay`, and the checkpoints that it passes."""
    CommitLog(Store(root)).refresh(write_checkpoints=True)


def from_checkpoint(root: str, segments: int) -> None:
    """The newest checkpoint and the entries after it."""
    CommitLog(Store(root)).refresh()


def anti_join(root: str, segments: int) -> float:
    """The newest checkpoint, then a plan of twice as many segments; returns the CPU seconds of the anti-join alone."""
    log = CommitLog(Store(root))
    log.refresh()
    plan = pa.chunked_array([pa.array([segment_id(n) for n in range(2 * segments)])])
    begun = time.process_time()
    mask = log.state.filter_uncommitted(MODEL, plan)
    elapsed = time.process_time() - begun
    assert mask.true_count == 2 * segments - log.state.count(MODEL)
    return elapsed


def measured(act: Callable[[str, int], float | None], root: str, segments: int) -> tuple[float, float]:
    """CPU seconds, and the peak of resident MiB above what the imports take, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(act, root, segments, send))
    process.start()
    seconds, mib = receive.recv()
    process.join()
    return seconds, mib


def _measure(act: Callable[[str, int], float | None], root: str, segments: int, send: object) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    own = act(root, segments)
    elapsed = own if own is not None else time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    send.send((elapsed, (peak - before) / 1024))  # type: ignore[attr-defined]


def main(segments: int = 1_000_000, entries: int = 10_000) -> None:
    with tempfile.TemporaryDirectory() as root:
        write_entries(root, segments, entries)
        print(f"{segments} committed segments in {entries} entries")
        print("| step | CPU s | peak MiB |\n|---|---|---|")
        for name, act in (
            ("replay of every entry", replay),
            ("the same, writing checkpoints", write_checkpoints),
            ("start from the newest checkpoint", from_checkpoint),
            ("anti-join of a plan twice as long", anti_join),
        ):
            seconds, mib = measured(act, root, segments)
            print(f"| {name} | {seconds:.2f} | {mib:.0f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
