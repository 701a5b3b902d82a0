"""Waiting for another run, which may be dead: see `pipeline.ledger.runs.refuse_while_at_work`."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

LOOK_S = 1.0


def patiently() -> Callable[[str], bool]:
    """Says once why, and waits a moment each time; until Ctrl-C."""
    told: set[str] = set()

    def wait(why: str) -> bool:
        if why not in told:
            click.echo(why, err=True)
            told.add(why)
        time.sleep(LOOK_S)
        return False

    return wait
