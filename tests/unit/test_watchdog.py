"""When a head counts as gone: after so many questions in a row without an answer, whatever the clock says."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pipeline import watchdog
from pipeline.watchdog import is_gone


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "INTERVAL_S", 0.01)


def test_gone_after_six_silent_questions_in_a_row() -> None:
    asked: list[bool] = []
    assert is_gone(*_saying([True, *5 * [False], True, *6 * [False], True], asked))
    assert asked == [True, *5 * [False], True, *6 * [False]]


def test_a_driver_that_slept_finds_one_question_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = itertools.count(step=3600.0)  # from each look at the clock to the next
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    assert not is_gone(*_saying(20 * [False, True], []))


def test_nothing_happens_once_the_command_is_through() -> None:
    ended = threading.Event()

    def ends_meanwhile() -> bool:
        ended.set()
        return False

    assert not is_gone(ends_meanwhile, watchdog.INTERVAL_S, ended)


def test_a_head_that_is_only_busy_takes_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:  # never looks at them
        address = f"127.0.0.1:{head.getsockname()[1]}"
        assert watchdog._takes_connections(address)
    assert not watchdog._takes_connections(address)


def _saying(answers: list[bool], asked: list[bool]) -> tuple[Callable[[], bool], float, threading.Event]:
    """What `is_gone` takes: these answers, after which the command is through, and patience for six."""
    ended = threading.Event()
    left = iter(answers)

    def answer() -> bool:
        for one in left:
            asked.append(one)
            return one
        ended.set()
        return True

    return answer, 6 * watchdog.INTERVAL_S, ended
