"""kill -9 of a real run at a change that its driver makes to the store; then the same run again.

Whatever step it was, the next run ends with the table of an undisturbed one, and no reader ever saw a row twice. Seeds
take the steps in turn, then several deaths at random; `test_commit_killed_at_every_step` has all steps in each run of
the suite, without Ray.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import DEMO_MEDIA, ROOT
from tests.faults.comparison import assert_same_tables
from tests.faults.deaths import deaths_of, die
from tests.faults.job import Job


@pytest.fixture(scope="module")
def small(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A picture with a face and a file that fails: every kind of step, and two commits besides that of the sources."""
    folder = tmp_path_factory.mktemp("kill-media")
    shutil.copy(DEMO_MEDIA / "astronaut.png", folder)
    (folder / "junk.mp4").write_bytes(b"junk" * 500)
    return job.but(folder, root=str(folder))


@pytest.fixture(scope="module")
def whole(small: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its dataset when nothing goes wrong."""
    output = tmp_path_factory.mktemp("kill-undisturbed") / "out"
    small.run(output)
    return output


@pytest.mark.seeds(2)
def test_every_step_can_be_the_last(
    small: Job, whole: Path, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    output = tmp_path / "out"
    died = die(small, output, tmp_path, deaths_of(seed))
    if not died:
        pytest.skip("the run has fewer steps")
    record_property("faults", died)
    small.run(output)
    assert_same_tables(whole, output)


def test_the_fault_counts_what_the_store_really_does(tmp_path: Path) -> None:
    """The arm itself: the second change of a fresh process never returns."""
    script = (
        "import signal\nfrom tests.faults.driver_process import fail_at\nfrom pipeline.storage.store import Store\n"
        f"fail_at(2, 'after', signal.SIGKILL); store = Store({str(tmp_path)!r})\n"
        "store.write_bytes('a', b'1'); store.write_bytes('b', b'2'); store.write_bytes('c', b'3')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a", "b"]
