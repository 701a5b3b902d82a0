"""A process that stages and commits a few segments, and kills itself at the nth step in the file system."""

from __future__ import annotations

import os
import signal
import sys

from pipeline.commit import Committer
from pipeline.config import Extraction
from pipeline.dataset import Dataset
from pipeline.log import CommitLog
from pipeline.runs import Run
from pipeline.store import Store
from tests.staged_rows import MODEL, segment_id, stage

SEGMENTS = 7


def work(root: str, die_at: int = 0, stale_after_s: float = 60.0) -> None:
    """One driver's life: open, complete what is unpublished, sweep, commit what is missing in two commits, finish.

    die_at: SIGKILL before the die_at-th change of a file or folder below `root`; 0: never.
    """
    if die_at:
        _kill_at(root, die_at)
    store = Store(root)
    dataset = Dataset.open_or_create(store, Extraction())
    log = CommitLog(store, checkpoint_every=2)
    run = Run.create(store, stale_after_s=stale_after_s)
    with run:
        committer = Committer(dataset, log, run, MODEL)
        committer.publish_missing()
        committer.sweep()
        ids = [segment_id(number) for number in range(SEGMENTS)]
        missing = [n for n, new in enumerate(log.state.filter_uncommitted(MODEL, ids).to_pylist()) if new]
        half = len(missing) // 2 + 1
        for numbers in (missing[:half], missing[half:]):
            for unit in (numbers[:2], numbers[2:]):
                committer.add(
                    stage(
                        store,
                        run.run_id,
                        unit,
                        keep_crops=True,
                        source_numbers=unit,
                        covered=[n for n in unit if n == 5],
                    )
                )
            committer.commit()
        committer.finish()


def _kill_at(root: str, die_at: int) -> None:
    steps = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event in ("os.rename", "os.link", "os.remove", "os.mkdir") or (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa")
        ):
            if not str(arguments[0]).startswith(root):
                return
            steps += 1
            if steps == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
