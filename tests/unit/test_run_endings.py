"""How a run ends: which share of failed sources it accepts, and what Ctrl-C and SIGTERM do, once and twice."""

from __future__ import annotations

import os
import signal

import pytest

from jobs.run import check_error_rate, conclude
from pipeline.config import Extraction
from pipeline.driver import Driver
from pipeline.errors import ErrorRateError
from pipeline.infer import ModelBytes
from pipeline.ledger.dataset import Dataset
from pipeline.media.sources import Listing
from pipeline.prepare import Prepared
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from pipeline.storage.store import Store
from pipeline.summary import Summary
from tests.faulty_store import memory_url

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def config(**values: float) -> RunConfig:
    return RunConfig(inputs=("a.mp4",), output="out", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("failed", "accepted"), [(1, 0.25), (0, 0.0), (4, 1.0), (3, 0.75), (0, 0.24)])
def test_as_many_failures_as_are_accepted_are_no_error(failed: int, accepted: float) -> None:
    summary = Summary(sources=4, failed_sources=failed)
    assert check_error_rate(summary, config(max_error_rate=accepted)) == 0


@pytest.mark.parametrize(("failed", "accepted"), [(1, 0.24), (1, 0.0), (4, 0.99), (3, 0.74)])
def test_more_failures_than_are_accepted_are_exit_code_3(failed: int, accepted: float) -> None:
    summary = Summary(sources=4, failed_sources=failed)
    with pytest.raises(
        ErrorRateError, match=rf"{failed} of 4 sources have errors, over --max-error-rate {accepted:g};"
    ) as caught:
        check_error_rate(summary, config(max_error_rate=accepted))
    assert caught.value.exit_code == 3


def test_a_run_without_sources_has_no_error_rate() -> None:
    assert check_error_rate(Summary(), config()) == 0


def test_an_interrupted_run_is_130_however_much_of_it_failed() -> None:
    summary = Summary(sources=4, failed_sources=4, status="interrupted")
    assert conclude(summary, config(), as_json=True) == 130


class LeftError(Exception):
    """Instead of the end of this process."""


@pytest.fixture
def driver() -> Driver:
    dataset = Dataset.open_or_create(Store(memory_url()), Extraction())
    nothing = Prepared(listing=Listing(sources=[]), model=ModelBytes(b"", b""), model_id="m", dataset=dataset)
    return Driver(config(), nothing)


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_stops_the_run_and_the_second_leaves_at_once(
    driver: Driver,
    first: signal.Signals,
    second: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left: list[int] = []

    def leave(code: int) -> None:
        left.append(code)
        raise LeftError

    monkeypatch.setattr(os, "_exit", leave)
    before = [signal.getsignal(number) for number in SIGNALS]
    with ProgressReporter() as progress, driver._interruptible(progress):
        assert not driver._stop.is_set()
        assert not set(map(signal.getsignal, SIGNALS)) & set(before), "a signal is not listened to"
        signal.raise_signal(first)
        assert driver._stop.is_set(), "dispatch goes on"
        assert not left
        assert "committing what is staged" in capsys.readouterr().err
        with pytest.raises(LeftError):
            signal.raise_signal(second)
    assert left == [130]
    assert "run the same command again to resume" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in SIGNALS] == before
