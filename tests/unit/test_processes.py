"""Training processes that share a group: how many there are, and how they end."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed

from jobs.processes import in_processes

WAIT = timedelta(seconds=60)


def _one_raises(device: str, told: Path) -> None:
    """The second process raises while the first waits for it in an all-reduce."""
    if torch.distributed.get_rank() == 1:
        told.write_text(str(time.time()))
        raise ValueError("the second can't go on")
    torch.distributed.all_reduce(torch.zeros(1, device=device), async_op=True).wait(WAIT)


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none")
def test_an_error_in_one_process_ends_all_of_them(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with pytest.raises(ValueError, match="the second can't go on"):
        in_processes(2, tmp_path, _one_raises, told)
    assert time.time() - float(told.read_text()) < WAIT.total_seconds() / 2
    assert list(tmp_path.iterdir()) == [told]
