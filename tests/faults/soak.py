"""Many seeds of the fault tests (`make soak`), and the table of what they came to.

A test that takes a `seed` runs with a few in the suite, and with `--soak-seeds N` of them here: all tests with seed 0
(or `--soak-first-seed`) first, then all with the next, and so on until `--soak-minutes` are over. The seed stands in
the test's name, so a failure is repeated by `pytest "tests/faults/test_….py::test_…[seed-17]" --soak-first-seed 17`.
What a test broke on the way it says by `record_property("faults", n)`.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline import __version__


@dataclass
class Figures:
    """What the seeds of one test came to."""

    seeds: list[int] = field(default_factory=list)
    faults: int = 0
    seconds: float = 0.0
    failed: list[int] = field(default_factory=list)


class Soak:
    """A pytest plugin."""

    def __init__(self, config: pytest.Config) -> None:
        self._first: int = config.getoption("--soak-first-seed")
        self._seeds: int = config.getoption("--soak-seeds")
        self._minutes: float = config.getoption("--soak-minutes")
        self._report: str | None = config.getoption("--soak-report")
        self._is_worker = hasattr(config, "workerinput")  # of pytest-xdist; the reports come to the first process
        self._began = time.monotonic()
        self._figures: dict[str, Figures] = defaultdict(Figures)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        marker = metafunc.definition.get_closest_marker("seeds")
        if marker is not None:
            metafunc.parametrize(
                "seed",
                range(self._first, self._first + (self._seeds or marker.args[0])),
                ids=lambda seed: f"seed-{seed}",
            )

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._seeds:
            items[:] = sorted((item for item in items if _seed(item) is not None), key=lambda item: _seed(item) or 0)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self._minutes and time.monotonic() - self._began > 60 * self._minutes:
            pytest.skip("the time is over")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = re.fullmatch(r".*/test_(\w+)\.py::.*\bseed-(\d+).*", report.nodeid)
        if found is None:
            return
        figures, seed = self._figures[found[1].replace("_", " ")], int(found[2])
        if report.when == "call" and not report.skipped:
            figures.seeds.append(seed)
            figures.faults += int(dict(report.user_properties).get("faults", 0))
            figures.seconds += report.duration
        if report.failed:
            figures.failed.append(seed)
        if self._report and not self._is_worker:
            Path(self._report).write_text(self._table())  # each time: a night's soak may be cut

    def _table(self) -> str:
        rows = []
        for name, figures in sorted(self._figures.items()):
            result = f"seeds {figures.failed} failed" if figures.failed else "same tables"
            seeds = f"{min(figures.seeds)}–{max(figures.seeds)}" if figures.seeds else ""
            figures_shown = (name, seeds, len(figures.seeds), figures.faults, f"{figures.seconds / 60:.1f}", result)
            rows.append("| " + " | ".join(map(str, figures_shown)) + " |")
        every = self._figures.values()
        runs, faults = sum(len(f.seeds) for f in every), sum(f.faults for f in every)
        rows.append(f"| **together** | | {runs} | {faults} | {sum(f.seconds for f in every) / 60:.1f} | |")
        head = HEAD.format(
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            version=__version__,
            python=platform.python_version(),
            cores=os.cpu_count(),
        )
        return "\n".join([head, *rows, ""])


HEAD = """# Soak

`make soak` runs the fault tests of `tests/faults/` with many seeds, on real processes, real files and a real S3 server.
Each run is broken at moments that its seed chooses, resumed where its driver died, and its tables are compared with
those of an undisturbed run: every column but the run's own (`tests/faults/comparison.py`). The commit state machine
breaks the ledger alone, within one process, 40 or 10 histories per test.

{date}, version {version}, Python {python}, {cores} cores that other work shared:

| fault | seeds | tests | faults that fired | minutes | result |
|---|---|---|---|---|---|"""


def _seed(item: pytest.Item) -> int | None:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("seed")
