"""Training processes: one per GPU, or per core to use, as far as batches go round; each is shared among them.

On a CPU one single-threaded process per core beats threads, which wait for each other hundreds of times per step.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ran_model.recipe import Recipe

PATIENCE = timedelta(hours=1)  # while the first process validates, the others wait for it
LEAST_SHARE = 8  # faces of a batch for each process, whose BatchNorms see no others
DEATH_S = 5.0  # that the pool may take to see a death of which the other processes tell first
OUT_OF_MEMORY = (
    "a training process ran out of memory, or was killed: a smaller batch_size in the recipe, or fewer --processes, "
    "take less memory"
)


def device_count() -> int:
    """GPUs, or where there are none, cores."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else core_count()


def core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_for(recipe: Recipe) -> int:
    """As many as there are devices, as long as each has enough faces of every stage's batches for BatchNorm."""
    stages = [recipe.single_pass, recipe.ran] + ([recipe.teacher.train] if recipe.teacher else [])
    smallest = min((stage.batch_size for stage in stages if stage.epochs > 0), default=LEAST_SHARE)
    return max(1, min(device_count(), smallest // LEAST_SHARE))


def in_processes(processes: int, work: Path, act: Callable[..., None], *arguments: Any) -> None:
    """Calls `act(device, *arguments)` in so many processes that share one torch.distributed group.

    Raises the first error of any of them, and ends the others, which would wait for that one for an hour. Raises
    ValueError for more processes than there are GPUs, and where memory runs out.
    """
    import torch

    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise ValueError(f"--processes {processes}, but there are only {torch.cuda.device_count()} GPUs")
    work.mkdir(parents=True, exist_ok=True)
    meeting = (work / f"meeting-{uuid.uuid4().hex}").resolve()
    others = multiprocessing.active_children()
    try:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            ranks = [pool.submit(_member, rank, processes, meeting, act, arguments) for rank in range(processes)]
            try:
                for done in as_completed(ranks):
                    done.result()
            except BaseException as error:
                is_short = _is_out_of_memory(error, ranks)
                _terminate([child for child in multiprocessing.active_children() if child not in others])
                if is_short:
                    raise ValueError(OUT_OF_MEMORY) from error
                raise
    finally:
        meeting.unlink(missing_ok=True)


def _terminate(children: Iterable[BaseProcess]) -> None:
    for child in children:
        child.terminate()


def _is_out_of_memory(error: BaseException, ranks: Iterable[Future[None]]) -> bool:
    """Whether the first error is of want of memory, or came of the death of another process."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    if any(words in str(error) for words in ("out of memory", "can't allocate memory")):  # torch's, on GPU and CPU
        return True
    told = wait(ranks, DEATH_S).done
    return any(isinstance(rank.exception(), BrokenProcessPool) for rank in told)


def is_first() -> bool:
    """Whether this process is the one that reports and writes."""
    import torch.distributed

    return torch.distributed.get_rank() == 0


def _end_with_the_command() -> None:
    """A command that was killed takes its training processes along: they would write beside those of the next one."""
    command = multiprocessing.parent_process()
    assert command is not None
    connection.wait([command.sentinel])
    os._exit(1)


def _member(rank: int, processes: int, meeting: Path, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    import torch
    import torch.distributed

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(rank)
        torch.backends.cudnn.benchmark = True  # a stage's batches are all of one size
    else:
        torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "nccl" if cuda else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes, timeout=PATIENCE
    )
    act(f"cuda:{rank}" if cuda else "cpu", *arguments)
    torch.distributed.destroy_process_group()
