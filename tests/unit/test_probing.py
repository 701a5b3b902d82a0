"""Few new sources are probed by the driver; many, or large ones far away, are left to actors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import child, schema
from pipeline.config import Extraction
from pipeline.errors import StartError, StoreError
from pipeline.execution import MOST_STARTS
from pipeline.media.sources import Source, list_sources
from pipeline.probing import MOST_BYTES_HERE, MOST_SOURCES_HERE, Probing, are_few, probe_here
from pipeline.resources import Cluster, Resources, share
from pipeline.worker import WorkerConfig
from ran_model.model_files import read_model_bytes
from tests.conftest import DEMO_MEDIA
from tests.faults.processes import decode_children
from tests.scripted_processing import failed_start
from tests.silent_server import silent_server


def source(location: str, size_bytes: int) -> Source:
    return Source(source_id="0" * 16, uri=location, location=location, fingerprint="1:1", size_bytes=size_bytes)


def test_which_are_few() -> None:
    here, far, large = source("/a.tar", 1 << 40), source("s3://b/a.tar", 1000), source("s3://b/c.tar", 1 << 40)
    assert are_few([here] * MOST_SOURCES_HERE)
    assert not are_few([here] * (MOST_SOURCES_HERE + 1))
    assert are_few([far] * MOST_SOURCES_HERE)
    assert not are_few([far, large])
    assert are_few([source("s3://b/a.mp4", 1 << 40)])
    assert not are_few([source("s3://b/a.zip", MOST_BYTES_HERE // 2 + 1)] * 2)


@pytest.fixture
def config(tiny_model: Path) -> WorkerConfig:
    return WorkerConfig(extraction=Extraction(), model_config=read_model_bytes(tiny_model)[0])


def test_rows_are_those_of_the_table(config: WorkerConfig) -> None:
    sources = list_sources([str(DEMO_MEDIA)]).sources
    rows = probe_here(sources, config, deadline_s=120, run_id="run")
    assert rows.schema == schema.SOURCES
    assert rows["source_id"].to_pylist() == [one.source_id for one in sources]
    assert set(rows["kind"].to_pylist()) == {"video", "picture", "archive"}
    assert rows["error_code"].null_count == len(sources) > 2
    assert probe_here([], config, deadline_s=120, run_id="run").num_rows == 0


class Scripted(Probing):
    """Its executions end as `script` says: after so many sources, with that exception. asked: sources of each."""

    script: Sequence[tuple[int, Exception | None]]

    def _execution(self, sources: Sequence[Source], resources: Resources, stop: threading.Event) -> Iterator[pa.Table]:
        self.asked = [*getattr(self, "asked", []), len(sources)]
        count, error = self.script[len(self.asked) - 1]
        yield pa.table({"source_id": [one.source_id for one in sources[:count]]})
        if error is not None:
            raise error


def scripted(*script: tuple[int, Exception | None]) -> Scripted:
    sources = [replace(source("/a", 1), source_id=f"{number:016x}") for number in range(9)]
    probing = Scripted(sources, WorkerConfig(extraction=Extraction(), model_config=b""), deadline_s=1, run_id="run")
    probing.script = script
    return probing


def tables_of(probing: Probing, stop: threading.Event | None = None) -> list[pa.Table]:
    return list(probing.tables(share(Cluster(cpus=3, gpus=0)), stop or threading.Event()))


def probed(probing: Scripted) -> list[str]:
    return [one for table in tables_of(probing) for one in table["source_id"].to_pylist()]


def test_actors_that_do_not_start_at_once_are_tried_again_with_what_is_left() -> None:
    probing = scripted((4, failed_start("")), (0, failed_start("")), (5, None))
    assert probed(probing) == [f"{number:016x}" for number in range(9)]
    assert probing.asked == [9, 5, 5]


def test_actors_that_never_start_are_told_with_the_reason() -> None:
    probing = scripted(*[(0, failed_start("ImportError: no av"))] * MOST_STARTS)
    with pytest.raises(StoreError, match=r"^actors don't start on the cluster: ImportError: no av; mend that"):
        probed(probing)
    assert len(probing.asked) == MOST_STARTS


def test_decode_processes_of_actors_that_do_not_come_up_are_tried_as_often() -> None:
    probing = scripted((4, StartError("it did not start")), (5, None))
    assert len(probed(probing)) == 9
    probing = scripted(*[(0, StartError("it did not start"))] * MOST_STARTS)
    with pytest.raises(StoreError, match=r"^it did not start; mend that and run the same command again to resume$"):
        probed(probing)
    assert len(probing.asked) == MOST_STARTS


def test_the_drivers_own_decode_process_that_does_not_come_up_is_no_bug(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "START_DEADLINE_S", 1e-6)
    sources = list_sources([str(DEMO_MEDIA / "astronaut.png")]).sources
    told = r"^the decode process did not start within 1e-06 s .*; mend that"
    with (
        Probing(sources, config, deadline_s=120, run_id="run") as probing,
        pytest.raises(StoreError, match=told) as caught,
    ):
        tables_of(probing)
    assert caught.value.exit_code == 5
    assert "--deadline-s" not in str(caught.value)


@pytest.fixture
def around() -> list[Source]:
    """Two that can be read."""
    return list_sources([str(DEMO_MEDIA / name) for name in ("astronaut.png", "portrait.mp4")]).sources


def test_a_stop_leaves_out_the_source_that_hangs_and_those_behind_it(
    around: list[Source], config: WorkerConfig, tmp_path: Path
) -> None:
    before, after = around
    scratched = replace(config, scratch_dir=str(tmp_path))
    stop = threading.Event()
    with silent_server() as server:
        sources = [before, server.source(), after]
        with Probing(sources, scratched, deadline_s=120, run_id="run") as probing:
            server.wait_for_reader()
            stop.set()
            (rows,) = tables_of(probing, stop)
            assert not decode_children(), "nobody needs it any more"
    assert rows["source_id"].to_pylist() == [before.source_id]
    assert rows["error_code"].null_count == 1


def _fail_within(probing: Probing, come_to_it: Callable[[], None]) -> None:
    with probing:
        come_to_it()
        raise RuntimeError("no cluster")


def test_an_error_elsewhere_does_not_wait_for_a_source_that_hangs(
    around: list[Source], config: WorkerConfig, tmp_path: Path
) -> None:
    scratched = replace(config, scratch_dir=str(tmp_path))
    with silent_server() as server:
        probing = Probing([server.source(), *around], scratched, deadline_s=120, run_id="run")
        with pytest.raises(RuntimeError, match="no cluster"):
            _fail_within(probing, server.wait_for_reader)
        assert not decode_children()
        assert tables_of(probing)[0].num_rows == 0, "it was read to its end"


def test_what_else_fails_ends_the_probing_at_once() -> None:
    probing = scripted((3, ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        probed(probing)
    assert probing.asked == [9]
