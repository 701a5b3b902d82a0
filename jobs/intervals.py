"""Intervals in words: a figure with its ends, and what to think of them over so few sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ran_model.source_bootstrap import CONFIDENCE, TRUSTED_SOURCES


def about_intervals(sources: int) -> str:
    """What the intervals are, and what to think of them over so few sources."""
    what = f"{CONFIDENCE:.0%} intervals over resampled sources, not faces"
    if sources == 1:
        return f"No intervals: they would be {what}, and this is one source."
    return f"In brackets: {what}. {about_few(sources)}".rstrip()


def about_few(sources: int) -> str:
    """A sentence on intervals over so few sources; empty where there are enough."""
    if sources >= TRUSTED_SOURCES:
        return ""
    of = f"{sources} sources" if sources > 1 else "one source"
    return f"Over {of} they come out too narrow; {TRUSTED_SOURCES} or more are needed to trust them."


def about_mcnemar(sources: int) -> str:
    """What McNemar's test takes for granted, and whether the interval over so many sources may stand in for it."""
    instead = "; with many faces of a source, trust the interval" if sources >= TRUSTED_SOURCES else ""
    return f"takes faces as independent{instead}"


def percent_difference(bootstrap: Mapping[str, Any]) -> str:
    """Such as +1.2 (-0.3 to +2.7), in points. bootstrap: `ran_model.significance.Difference` as JSON."""
    value = f"{100 * bootstrap['difference']:+.1f}"
    if bootstrap["low"] is None or bootstrap["high"] is None:
        return value
    return f"{value} ({100 * bootstrap['low']:+.1f} to {100 * bootstrap['high']:+.1f})"


def about_groups(bootstraps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line per list whose faces come in groups, which are sources: `Difference` as JSON by the list's name."""
    return [
        f"{name}: {about_intervals(each['groups'])} McNemar's p is left out: it takes faces as independent."
        for name, each in bootstraps.items()
        if each.get("groups") is not None
    ]
