"""A real driver in a process of its own, that may kill or stop itself at the nth change that it makes to the store.

Usage: python -m tests.faults.driver_process CONFIG.json [kill|stop N before|after [PATH]] [slow SECONDS]

PATH: count only changes of paths that start with it. slow: so long does every change take.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from jobs.leaving import leave
from pipeline.config import Extraction
from pipeline.detect import MOBILENET, weights_sha256
from pipeline.driver import Driver
from pipeline.errors import RanError
from pipeline.prepare import prepare, prepare_reprocess
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from pipeline.storage.store import Store

CHANGES = {"write", "put_if_absent", "upload", "publish", "delete"}


def fail_at(number: int, when: str, number_of_signal: int, below: str = "") -> None:
    """Arms the process: its `number`th change of the store raises the signal before or after it happens.

    Heartbeats don't count: they come by the clock. Workers are other processes and stay as they are.
    """
    original = Store._attempt
    seen = 0

    def attempt(store: Store, operation: str, path: str, act: Callable[[], Any]) -> Any:
        nonlocal seen
        counts = operation in CHANGES and not path.endswith("heartbeat") and path.startswith(below)
        seen += counts
        if counts and seen == number and when == "before":
            os.kill(os.getpid(), number_of_signal)
        answer = original(store, operation, path, act)
        if counts and seen == number and when == "after":
            os.kill(os.getpid(), number_of_signal)
        return answer

    Store._attempt = attempt  # type: ignore[method-assign]


def slow_down(seconds: float) -> None:
    """Every change of the store takes so long, as on a far or busy one."""
    original = Store._attempt

    def attempt(store: Store, operation: str, path: str, act: Callable[[], Any]) -> Any:
        if operation in CHANGES:
            time.sleep(seconds)
        return original(store, operation, path, act)

    Store._attempt = attempt  # type: ignore[method-assign]


def arm(fault: list[str]) -> None:
    """The fault as the command line names it."""
    if not fault:
        return
    kind, number, *when = fault
    if kind == "slow":
        slow_down(float(number))
    else:
        fail_at(int(number), when[0], signal.SIGKILL if kind == "kill" else signal.SIGSTOP, *when[1:])


def run(config: RunConfig, extraction: Extraction) -> dict[str, Any]:
    """One run, as the command line does it; a `reprocess` if its input is its output."""
    again = config.inputs == (config.output,)
    prepared = prepare_reprocess(config, None) if again else prepare(config, extraction)
    with ProgressReporter(quiet=True) as progress:
        return Driver(config, prepared).run(progress).to_json()


def extraction_of(**changes: Any) -> Extraction:
    """The default extraction with changes."""
    return Extraction(detector_sha256=weights_sha256(MOBILENET), **changes)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        values = json.load(file)
    values["run"]["inputs"] = tuple(values["run"]["inputs"])
    arm(sys.argv[2:])
    try:
        run(RunConfig(**values["run"]), extraction_of(**values["extraction"]))
    except RanError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        leave(error.exit_code)
    leave(0)
