"""The disk of the output, or that of the scratch cache, runs full in the middle of a run. Real disks, in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.media.scratch import kept_free_bytes
from tests.faults.comparison import assert_same_tables, table
from tests.faults.holding import held, waiting
from tests.faults.job import Job
from tests.faults.processes import wait_for
from tests.faults.stand_in_decoders import HELD


@contextmanager
def disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of that size, mounted at `folder`."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all space but a few bytes of one page."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    assert os.statvfs(folder).f_bavail == 0
    return ballast


def test_disk_of_the_output_full(job: Job, media: Path, undisturbed: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 8 << 20) as folder:
        output = folder / "out"
        with held(media) as hold:
            run = job.but(decoder=HELD).beside(output)
            wait_for("a frame of b.mp4", lambda: waiting(media))
            ballast = fill(folder)
            hold.unlink()
            with pytest.raises(StoreError, match="No space left on device"):
                run.result()
        before = table(output, "segments")["segment_id"].to_pylist() if list(output.glob("segments/*/*")) else []
        assert len(before) < table(undisturbed, "segments").num_rows
        ballast.unlink()
        job.run(output)
        assert_same_tables(undisturbed, output, without=("decoder",))


def test_disk_of_scratch_full(remote: Job, from_s3: Path, tmp_path: Path) -> None:
    """Sources that don't fit are not at fault: no row says so, and with space they are read."""
    with disk(tmp_path / "disk", 20 << 20) as scratch:
        room = (20 << 20) - kept_free_bytes(20 << 20)
        small = remote.but(scratch=str(scratch / "ran"))
        ballast = scratch / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room - (100 << 10))  # room for a video, none for the archive
        with pytest.raises(StoreError, match="don't fit on the scratch disk"):
            small.run(tmp_path / "out")
        ballast.unlink()
        small.run(tmp_path / "out")
    assert_same_tables(from_s3, tmp_path / "out")
