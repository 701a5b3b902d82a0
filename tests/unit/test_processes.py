"""Training processes that share a group: how many there are, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed

from jobs import processes
from jobs.processes import in_processes, processes_for
from ran_model.config import ModelConfig
from ran_model.recipe import Recipe, Teacher
from ran_model.train_config import TrainConfig

WAIT = timedelta(seconds=60)


def _one_raises(device: str, told: Path) -> None:
    """The second process raises while the first waits for it in an all-reduce."""
    if torch.distributed.get_rank() == 1:
        told.write_text(str(time.time()))
        raise ValueError("the second can't go on")
    torch.distributed.all_reduce(torch.zeros(1, device=device), async_op=True).wait(WAIT)


@pytest.mark.parametrize(
    ("batch_sizes", "teacher", "expected"),
    [((64, 128), None, 8), ((8, 8), None, 1), ((4, 4), None, 1), ((1024, 2048), None, 96), ((64, 64), 16, 2)],
)
def test_each_process_has_eight_faces_of_the_smallest_batch(
    batch_sizes: tuple[int, int], teacher: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "device_count", lambda: 96)
    model = ModelConfig()
    single_pass, ran = (TrainConfig(batch_size=size) for size in batch_sizes)
    taught = None if teacher is None else Teacher(model=model, train=TrainConfig(batch_size=teacher))
    recipe = Recipe(data=Path("d"), model=model, single_pass=single_pass, ran=ran, teacher=taught)
    assert processes_for(recipe) == expected
    without = replace(recipe, single_pass=replace(single_pass, epochs=0, batch_size=2))
    assert processes_for(without) >= expected


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none")
def test_an_error_in_one_process_ends_all_of_them(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with pytest.raises(ValueError, match="the second can't go on"):
        in_processes(2, tmp_path, _one_raises, told)
    assert time.time() - float(told.read_text()) < WAIT.total_seconds() / 2
    assert list(tmp_path.iterdir()) == [told]


def _one_is_killed(device: str) -> None:
    """As by the kernel where memory runs out; the others lose it, and may tell first."""
    if torch.distributed.get_rank() == torch.distributed.get_world_size() - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.all_reduce(torch.zeros(1, device=device), async_op=True).wait(WAIT)


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none")
def test_a_process_that_is_killed_is_told_as_want_of_memory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ran out of memory, or was killed"):
        in_processes(2, tmp_path, _one_is_killed)


def _writes_on(device: str, folder: Path) -> None:
    while True:
        (folder / f"at-work-{os.getpid()}").touch()
        time.sleep(0.05)


def test_processes_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    """They would write beside those of the same command when it is run again."""
    command = multiprocessing.get_context("spawn").Process(
        target=in_processes, args=(1, tmp_path / "work", _writes_on, tmp_path)
    )
    command.start()
    try:
        deadline = time.monotonic() + 120
        while not (signs := list(tmp_path.glob("at-work-*"))):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        command.kill()
        command.join()
    member = int(signs[0].name.rpartition("-")[2])
    while _is_there(member):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_there(pid: int) -> bool:
    """Dead processes that nobody has asked for yet are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class _Refused:
    """A pool whose one task raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __enter__(self) -> _Refused:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, *_: object) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(self._error)
        return future


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_told_with_what_takes_less(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ProcessPoolExecutor", lambda *_, **__: _Refused(error))
    with pytest.raises(ValueError, match=r"ran out of memory, or was killed: a smaller batch_size .* --processes"):
        in_processes(1, tmp_path, _one_is_killed)
    monkeypatch.setattr(processes, "ProcessPoolExecutor", lambda *_, **__: _Refused(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        in_processes(1, tmp_path, _one_is_killed)
