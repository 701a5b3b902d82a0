"""What the fault tests share: one small job, and what it gives when nothing disturbs it."""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import DEMO_MEDIA
from tests.faults import processes
from tests.faults.comparison import assert_sound, table
from tests.faults.job import STARTED, Job
from tests.faults.s3 import direct, new_bucket
from tests.faults.soak import Soak
from tests.media import write_video

#: How many there are to be found in `media`.
FACES = {"a.mp4": 13, "b.mp4": 13, "portraits.tar": 11, "face.png": 1}


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Soak(config), "soak")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests wait for real processes, which take minutes on a machine that is busy with other things."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of a face that moves, an archive of pictures, a picture, and a file that fails."""
    folder = tmp_path_factory.mktemp("fault-media")
    face = Image.open(DEMO_MEDIA / "astronaut.png").convert("RGB").resize((256, 256))

    def moving(index: int) -> NDArray[np.uint8]:
        return np.asarray(face.crop((index, 0, index + 192, 192)))

    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, frames=60, width=192, height=192, picture=moving)
    shutil.copy(DEMO_MEDIA / "portraits.tar", folder)
    face.save(folder / "face.png")
    (folder / "junk.mp4").write_bytes(b"junk" * 500)
    return folder


@pytest.fixture(scope="session")
def job(media: Path, tiny_model: Path, ray_address: str) -> Job:
    """Sources are named relative to their folder, so a copy of it holds the same ones."""
    return Job(inputs=(str(media),), model=tiny_model, address=ray_address, changes=(("root", str(media)),))


@pytest.fixture(scope="session")
def undisturbed(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job's dataset when nothing goes wrong."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    _assert_all_is_well(output, job.run(output))
    return output


@pytest.fixture(scope="session")
def remote(job: Job, media: Path, s3_server: str) -> Job:
    """The job with its sources on S3."""
    bucket = f"s3://{new_bucket(s3_server, media)}"
    return job.but(bucket, root=bucket, storage_options=direct(s3_server))


@pytest.fixture(scope="session")
def from_s3(remote: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its dataset when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("from-s3")
    _assert_all_is_well(folder / "out", remote.but(scratch=str(folder / "scratch")).run(folder / "out"))
    return folder / "out"


def _assert_all_is_well(output: Path, summary: dict[str, Any]) -> None:
    """What others are compared with has every face, and no error but that of the junk."""
    assert (summary["status"], summary["failed_sources"]) == ("done", 1)
    rows = table(output, "segments").to_pylist()
    assert [row["source_uri"] for row in rows if row["status"] != "ok"] == ["junk.mp4"]
    faces = Counter(table(output, "faces")["source_uri"].to_pylist())
    assert faces == FACES, faces
    assert_sound(output)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever was killed: no decode process outlives its run."""
    if "job" not in request.fixturenames:
        yield
        return
    yield
    while STARTED:
        STARTED.pop().kill()
    processes.wait_for("the end of the decode processes", _are_gone)


def _are_gone() -> bool:
    gc.collect()  # the traceback of a run that failed in this process holds its actors
    return not processes.decode_children() and not processes.orphans()
