"""The real processes of the suite's own Ray: found among the descendants of this one, killed by their id."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil

T = TypeVar("T")

PATIENCE_S = 300.0  # on a machine that is busy with other things


def wait_for(what: str, find: Callable[[], T]) -> T:
    """What `find` finds, as soon as it is something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := find()):
        assert time.monotonic() < end, f"{what}: it did not happen in {PATIENCE_S:g} s"
        time.sleep(0.05)
    return found


def decode_children(below: int | None = None) -> list[psutil.Process]:
    """The decode processes."""
    return [process for process, command in _descendants(below) if "pipeline.worker" in command]


def orphans() -> list[psutil.Process]:
    """Decode processes anywhere whose actor is gone; they must end by themselves, even in the middle of a loop."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            if process.ppid() == 1 and "pipeline.worker" in process.cmdline():
                found.append(process)
    return found


def actors(name: str, below: int | None = None) -> list[psutil.Process]:
    """The processes of a stage's actors, by the class's name; Ray writes it into the process' title."""
    return [process for process, command in _descendants(below) if command.startswith("ray::") and name in command]


def kill(process: psutil.Process | int) -> None:
    """SIGKILL, and proof that it hit something that was alive and is not any more."""
    process = psutil.Process(process) if isinstance(process, int) else process
    assert is_alive(process), f"{process} was dead before it was killed: the fault did not fire"
    process.send_signal(signal.SIGKILL)
    wait_for(f"the end of {process.pid}", lambda: not is_alive(process))


def is_alive(process: psutil.Process) -> bool:
    """Running, and no zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def is_stopped(pid: int) -> bool:
    """By SIGSTOP."""
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def _descendants(below: int | None) -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.Process(below).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            yield process, " ".join(process.cmdline())
