"""How a run ends: which share of failed sources it accepts, and what Ctrl-C and SIGTERM do, once and twice."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from jobs.run import check_error_rate, conclude
from pipeline import driver as driver_module
from pipeline import execution, planning
from pipeline.config import Extraction
from pipeline.driver import Driver
from pipeline.errors import ErrorRateError
from pipeline.infer import ModelBytes
from pipeline.ledger import compact as compaction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.media.sources import Listing, Source, list_sources
from pipeline.prepare import Prepared, load
from pipeline.probing import Probing
from pipeline.progress import ProgressReporter
from pipeline.resources import Cluster
from pipeline.run_config import RunConfig
from pipeline.storage.store import Store
from pipeline.summary import Summary
from tests.conftest import DEMO_MEDIA
from tests.faulty_store import memory_url
from tests.silent_server import silent_server
from tests.staged_rows import stage
from tests.unit.test_planning import probed, row

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


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs that end before anything is processed."""
    size = contextlib.nullcontext(Cluster(cpus=3, gpus=0))
    monkeypatch.setattr(driver_module, "connected", lambda address: size)
    monkeypatch.setattr(driver_module, "check_output_is_shared", lambda store: None)
    monkeypatch.setattr(execution, "configure_ray_data", lambda **_: None)
    monkeypatch.setattr(ray, "put", lambda value: value)


def driver_for(sources: list[Source], model: Path, folder: Path) -> Driver:
    stored, model_id = load(str(model))
    dataset = Dataset.open_or_create(Store(str(folder / "out")), Extraction())
    prepared = Prepared(listing=Listing(sources=sources), model=stored, model_id=model_id, dataset=dataset)
    return Driver(RunConfig(inputs=("s3://b",), output=str(folder / "out"), scratch=str(folder / "scratch")), prepared)


@pytest.mark.usefixtures("no_cluster")
def test_a_stop_while_a_source_hangs_ends_the_run_and_blames_no_source(tiny_model: Path, tmp_path: Path) -> None:
    (good,) = list_sources([str(DEMO_MEDIA / "astronaut.png")]).sources
    with silent_server() as server, ThreadPoolExecutor(1) as beside:
        driver = driver_for([good, server.source()], tiny_model, tmp_path)

        def stop_once_it_hangs() -> None:
            server.wait_for_reader()
            driver._stop.set()

        beside.submit(stop_once_it_hangs)
        with ProgressReporter(quiet=True) as progress:
            summary = driver.run(progress)
    assert (summary.status, summary.failed_sources, summary.sources_probed) == ("interrupted", 0, 1)
    log = CommitLog(driver._store)
    log.refresh()
    known = planning.known_sources(driver._store, log.state)
    assert known["source_id"].to_pylist() == [good.source_id], "the next run has to probe the other"


@pytest.mark.usefixtures("no_cluster")
def test_a_stop_while_sources_are_probed_is_no_lack_of_room(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is planned by then may need more than there is; nobody will do it."""
    one, other = (
        Source(source_id=f"{n:016x}", uri=uri, location=uri, fingerprint="1:1", size_bytes=1 << 60)
        for n, uri in enumerate(("s3://b/0.mp4", "s3://b/1.mp4"))
    )
    driver = driver_for([one, other], tiny_model, tmp_path)

    def tables(*_: Any) -> Iterator[pa.Table]:
        driver._stop.set()
        yield probed(row(one) | {"size_bytes": one.size_bytes})

    monkeypatch.setattr(Probing, "__enter__", lambda probing: probing)
    monkeypatch.setattr(Probing, "tables", tables)
    with ProgressReporter(quiet=True) as progress:
        assert driver.run(progress).status == "interrupted"
    assert driver.summary.segments_planned > 0


@pytest.mark.parametrize("read", ["known_sources", "count_failed", "outlived"])
def test_a_compaction_that_had_begun_before_the_run_takes_no_file_from_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    driver = driver_for([], tiny_model, tmp_path)
    store, before = driver._store, getattr(planning, read)
    for number in (4, 9):  # which failed
        with Run.create(store) as run:
            committer = Committer(driver._dataset, CommitLog(store), run, driver._model_id)
            committer.add(stage(store, run.run_id, [number], model_id=driver._model_id, source_numbers=[number]))
            committer.commit()
            committer.finish()
    merged: list[compaction.Compaction] = []

    def beside_it(*arguments: Any, **options: Any) -> Any:
        if not merged:
            merged.append(compaction.compact(store))
        return before(*arguments, **options)

    monkeypatch.setattr(compaction, "refuse_while_at_work", lambda *_, **__: None)  # it had looked before the run began
    monkeypatch.setattr(planning, read, beside_it)
    with ProgressReporter(quiet=True) as progress:
        assert driver.run(progress).status == "done"
    assert merged[0].files_after < merged[0].files_before
