"""A driver that stages segments, waits for a line on stdin, and commits; it exits with its error's code."""

from __future__ import annotations

import sys

from pipeline.config import Extraction
from pipeline.errors import RanError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, stage

STALE_AFTER_S = 1.0


def main(folder: str) -> int:
    store = Store(folder)
    dataset = Dataset.open_or_create(store, Extraction())
    try:
        with Run.create(store, interval_s=0.1, stale_after_s=STALE_AFTER_S) as run:
            committer = Committer(dataset, CommitLog(store), run, MODEL)
            committer.add(stage(store, run.run_id, [0, 1, 2]))
            print(run.run_id, flush=True)
            sys.stdin.readline()
            committer.commit()
    except RanError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
