"""Planning, the log and its checkpoints at up to a million sources and ten million segments: time, memory, growth.

Each step runs in a process of its own over a generated dataset (`benchmarks.ledger`). Growth is how many times the CPU
seconds of the size before, beside how many times the segments: a step whose growth is the larger one is not linear.

python -m benchmarks.ledger_scale [SOURCES …]
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc

from benchmarks.ledger import Ledger, extraction, write_ledger
from benchmarks.processes import measured_run
from pipeline import planning
from pipeline.ledger import checkpoint
from pipeline.ledger.entry import Entry, parse_entry
from pipeline.ledger.log import CHECKPOINT_EVERY, CommitLog
from pipeline.ledger.state import LogState
from pipeline.media.sources import Listing, list_sources
from pipeline.passes import PassQueue
from pipeline.prepare import load, model_config
from pipeline.storage.store import Store
from pipeline.stored import StoredSegments

SOURCES = (10_000, 100_000, 1_000_000)
WITH_ROWS = 200_000  # sources at most whose data files are written too
SOURCES_PER_COMMIT = 100
RETRIED_PER_COMMIT = 100  # segments
WORKERS = 400
NEW_MODEL = "0123456789ab"


class Stopwatch:
    """CPU seconds of what is measured; preparing it is not in them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts."""
        begun = time.process_time()
        yield
        self.seconds += time.process_time() - begun


def list_inputs(ledger: Ledger, watch: Stopwatch) -> None:
    """Every file below the inputs' folder."""
    with watch.running():
        assert len(_listing(ledger).sources) == ledger.sources


def read_every_entry(ledger: Ledger, watch: Stopwatch) -> None:
    """The log from its first entry, as if no checkpoint were there."""
    with watch.running():
        log = CommitLog(Store(str(ledger.output)), checkpoint_every=10**9)
        log.refresh()
    assert log.state.count(ledger.model_id) == ledger.segments


def read_from_checkpoint(ledger: Ledger, watch: Stopwatch) -> None:
    """The newest checkpoint and the entries after it, as every start does."""
    with watch.running():
        state = _state(ledger)
    assert state.count(ledger.model_id) == ledger.segments


def write_checkpoint(ledger: Ledger, watch: Stopwatch) -> None:
    """One checkpoint; it comes with every thousandth entry."""
    state = _state(ledger)
    with watch.running():
        checkpoint.to_parquet(state)


def read_replacements(ledger: Ledger, watch: Stopwatch) -> None:
    """As many entries as may follow a checkpoint, of a `retry`: each takes segments out and puts them in again."""
    state, model_id = _state(ledger), ledger.model_id
    count = CHECKPOINT_EVERY - 1
    failed = [one.hex() for one in state.committed(model_id).packed()[: count * RETRIED_PER_COMMIT].to_pylist()]
    parts = [failed[number::count] for number in range(count)]
    entries = [
        Entry(run_id="retry", model_id=model_id, segments=part, segments_removed=part).to_bytes() for part in parts
    ]
    with watch.running():
        for number, data in enumerate(entries):
            state.apply(parse_entry(data, str(number)))
        assert state.count(model_id) == ledger.segments


def find_new_sources(ledger: Ledger, watch: Stopwatch) -> None:
    """The table `sources`, and which of the inputs are not in it."""
    state, listing = _state(ledger), _listing(ledger)
    with watch.running():
        known = planning.known_sources(Store(str(ledger.output)), state)
        assert planning.new_sources(Store(str(ledger.output)), state, listing, known) == ([], [])


def plan_a_resume(ledger: Ledger, watch: Stopwatch) -> None:
    """Every segment planned; all but the last are committed."""
    plan = _plan(ledger, watch, ledger.model_id)
    assert plan.total - plan.todo.num_rows == ledger.segments


def find_what_is_missing(ledger: Ledger, watch: Stopwatch) -> None:
    """The anti-join alone: which of all planned ids the log has not."""
    state, ids = _state(ledger), _plan(ledger, Stopwatch(), NEW_MODEL).todo["segment_id"]
    with watch.running():
        missing = pc.sum(state.filter_uncommitted(ledger.model_id, ids)).as_py()
    assert missing == len(ids) - ledger.segments


def plan_another_model(ledger: Ledger, watch: Stopwatch) -> None:
    """Every segment planned; none is committed."""
    plan = _plan(ledger, watch, NEW_MODEL)
    assert plan.total == plan.todo.num_rows >= ledger.segments


def cut_into_units(ledger: Ledger, watch: Stopwatch) -> None:
    """A plan's passes and their units, one after the other, as the driver dispatches them."""
    todo = _plan(ledger, Stopwatch(), NEW_MODEL).todo
    with watch.running():
        passes, units = PassQueue(todo), 0
        while passes:
            units += sum(unit.num_rows for unit in planning.dispatch_units(passes.pop(), WORKERS))
        assert units == todo.num_rows


def look_up_for_reprocess(ledger: Ledger, watch: Stopwatch) -> None:
    """The rows and faces of every segment of the base model, pass by pass, as `reprocess` hands them to its actors."""
    state = _state(ledger)
    todo = _plan(ledger, Stopwatch(), NEW_MODEL).todo
    model = model_config(load("default")[0])
    with watch.running():
        stored = StoredSegments(Store(str(ledger.output)), state, ledger.model_id, model)
        passes, rows = PassQueue(stored.plan(todo, NEW_MODEL)), 0
        while passes:
            rows += stored.attach(passes.pop().segments)["stored"].length()
        assert rows == ledger.segments


STEPS = (
    list_inputs,
    read_every_entry,
    read_from_checkpoint,
    write_checkpoint,
    read_replacements,
    find_new_sources,
    find_what_is_missing,
    plan_a_resume,
    plan_another_model,
    cut_into_units,
)


def measured(step: Callable[[Ledger, Stopwatch], None], ledger: Ledger) -> tuple[float, float]:
    """CPU seconds, and the peak of resident MiB above what the imports take, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(step, ledger, send))
    process.start()
    send.close()
    seconds, mib = receive.recv()
    process.join()
    return seconds, mib


def main(*sizes: int) -> None:
    """Prints a table per size."""
    model_id, before, segments_before = load("default")[1], dict[str, float](), 0
    for sources in sizes or SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            commits, with_rows = max(10, sources // SOURCES_PER_COMMIT), sources <= WITH_ROWS
            ledger = write_ledger(
                Path(folder), sources=sources, commits=commits, model_id=model_id, with_rows=with_rows
            )
            times = f", {ledger.segments / segments_before:.1f} times as many" if segments_before else ""
            print(f"\n{ledger.sources} sources, {ledger.segments} segments in {ledger.entries} entries{times}\n")
            print("| step | CPU s | growth | peak MiB |\n|---|---|---|---|")
            for step in (*STEPS, look_up_for_reprocess) if with_rows else STEPS:
                _print(step.__name__.replace("_", " "), *measured(step, ledger), before)
            command = [sys.executable, "-m", "jobs.cli", "run", str(ledger.inputs), "-o", str(ledger.output)]
            run = measured_run([*command, "--json", "--quiet"])
            assert run.answer["segments_already_done"] == ledger.segments, run.answer
            assert run.answer["segments_planned"] == 0
            _print("the same `run` again, as a whole", run.cpu_seconds, run.mib, before)
            segments_before = ledger.segments


def _print(name: str, seconds: float, mib: float, before: dict[str, float]) -> None:
    growth = f"× {seconds / before[name]:.1f}" if name in before else ""
    print(f"| {name} | {seconds:.2f} | {growth} | {mib:.0f} |", flush=True)
    before[name] = seconds


def _measure(step: Callable[[Ledger, Stopwatch], None], ledger: Ledger, send: object) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # a process begins with the peak of the one that forked it
    base, watch = _peak_mib(), Stopwatch()
    step(ledger, watch)
    send.send((watch.seconds, _peak_mib() - base))  # type: ignore[attr-defined]


def _peak_mib() -> float:
    """The highest resident size so far (Linux)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _listing(ledger: Ledger) -> Listing:
    return list_sources([str(ledger.inputs)])


def _state(ledger: Ledger) -> LogState:
    log = CommitLog(Store(str(ledger.output)))
    log.refresh()
    return log.state


def _plan(ledger: Ledger, watch: Stopwatch, model_id: str) -> planning.Plan:
    state, listing = _state(ledger), _listing(ledger)
    known = planning.known_sources(Store(str(ledger.output)), state)
    with watch.running():
        return planning.plan(listing, known, [], state, model_id, extraction())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
