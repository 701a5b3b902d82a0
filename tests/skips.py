"""Skips that CI accepts. With NO_SKIPS set, a test that skips for another reason than what a machine may lack fails: a
missing library, or a fault that did not come about, would otherwise pass unseen."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

#: What the reason of a skip must name.
MAY_LACK = ("GPU", "../shared", "needs root")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judged((yield))


def _judged(report: Report) -> Report:
    """The report, which pytest-xdist sends on as it is; a failure where it was a skip that may not be."""
    if report.outcome == "skipped" and os.environ.get("NO_SKIPS") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(lack in reason for lack in MAY_LACK):
            report.outcome = "failed"
            report.longrepr = f"{reason}\nNo reason to skip where NO_SKIPS is set: see tests/skips.py"
    return report
