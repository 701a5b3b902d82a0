"""Processes that stage and commit a few segments, and kill themselves at the nth step in the file system.

Usage: python -m tests.faults.commit_process FOLDER. For n = 1, 2, … until a process gets through: FOLDER/killed-n is
what a process left that was killed at step n, FOLDER/resumed-n the same folder after another process went on with it.
FOLDER/codes has the exit codes of each pair.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, segment_id, stage

SEGMENTS = 7
COVERED = 5


def work(root: str, die_at: int = 0, stale_after_s: float = 60.0) -> None:
    """One driver's life: open, complete what is unpublished, sweep, commit what is missing in two commits, finish.

    die_at: SIGKILL before the die_at-th change of a file below `root`; 0: never.
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
        for units in ((missing[:2], missing[2:4]), (missing[4:],)):
            for unit in units:
                covered = [number for number in unit if number == COVERED]
                committer.add(stage(store, run.run_id, unit, keep_crops=True, source_numbers=unit, covered=covered))
            committer.commit()
        committer.finish()


def _kill_at(root: str, die_at: int) -> None:
    steps = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event in ("os.rename", "os.link", "os.remove") or (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa")
        ):
            if not str(arguments[0]).startswith(root):
                return
            steps += 1
            if steps == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _forked(root: str, die_at: int, stale_after_s: float) -> int:
    """`work` in a fresh process; this one has started no thread, so forking is safe, and spares the imports."""
    child = os.fork()
    if child == 0:
        try:
            work(root, die_at, stale_after_s)
        except BaseException as error:
            print(f"{root}: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    with (folder / "codes").open("w") as codes:
        for die_at in itertools.count(1):
            killed, resumed = folder / f"killed-{die_at}", folder / f"resumed-{die_at}"
            killed.mkdir()
            code = _forked(str(killed), die_at, 60.0)
            shutil.copytree(killed, resumed)
            codes.write(f"{code} {_forked(str(resumed), 0, -1.0)}\n")
            if code == 0:
                return
            codes.flush()  # a fork must not inherit what is not written yet


if __name__ == "__main__":
    main(Path(sys.argv[1]))
