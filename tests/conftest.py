"""What the whole suite shares: one Ray, one S3 server, a tiny model, real media."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import settings

from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 - hooks

ROOT = Path(__file__).parent.parent
SHARED_MEDIA = ROOT.parent / "shared" / "media"
DEMO_MEDIA = ROOT / "examples" / "media"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak", "Many more seeds of the tests that take one (`make soak`)")
    group.addoption("--soak-seeds", type=int, default=0, help="run each seeded test with so many seeds")
    group.addoption("--soak-first-seed", type=int, default=0, help="begin with this one: a later night goes on")
    group.addoption("--soak-minutes", type=float, default=0.0, help="leave out the seeds that this time does not allow")
    group.addoption("--soak-report", metavar="PATH", help="write the figures there, as a Markdown table")


settings.register_profile("suite", deadline=None, print_blob=True)  # a busy machine is no failure
settings.register_profile("soak", deadline=None, print_blob=True, max_examples=3000)
settings.load_profile("suite")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads that wait for each other crawl on a busy machine
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A local Ray for the whole suite; runs in this process use it, subprocesses join it by address."""
    import ray

    from pipeline.cluster import connected

    with connected(None):
        yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with random weights and small pictures: the real code, quickly."""
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny", seed=7)


@pytest.fixture(scope="session")
def shared_media() -> Path:
    """Real videos and photos that are not part of the product."""
    if not SHARED_MEDIA.is_dir():
        pytest.skip("../shared/media is not here")
    return SHARED_MEDIA


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a real S3 server (moto) on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def save_tiny_model(folder: Path, *, seed: int) -> Path:
    """Saves a model of small pictures with random weights into a folder of its own, and returns it."""
    from ran_model.config import ModelConfig
    from ran_model.network import RegionAttentionNetwork
    from ran_model.pretrained import save_model

    torch.manual_seed(seed)
    config = ModelConfig(name="tiny", input_size=32, aligned_size=48)
    save_model(folder, config, RegionAttentionNetwork(config), "# A random model for tests\n")
    return folder


def run_cli(*arguments: str | Path, address: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`ran-pipeline` as a user runs it."""
    variables = os.environ | environment | ({"RAY_ADDRESS": address} if address else {})
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=variables,
        cwd=ROOT,
        timeout=280,
        check=False,
    )


def run_cli_here(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`ran-pipeline` in this process, where what it says and ends with is the point and not that it is a process.

    Its Ray is that of `ray_address`, which a test that runs anything must have; a cluster of its own, the way to it and
    what is written past Python need a process.
    """
    import jobs.cli

    command = ["ran-pipeline", *map(str, arguments)]
    codes: list[int | None] = []
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with (
        mock.patch.object(jobs.cli, "leave", codes.append),
        mock.patch.object(sys, "argv", command),
        mock.patch.object(sys, "stdin", given),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _warnings_shown_as_by_a_process(),
    ):
        jobs.cli.main()
    for stream in (out, err):
        stream.seek(0)
    return subprocess.CompletedProcess(command, codes[0] or 0, out.read(), err.read())


@contextlib.contextmanager
def _warnings_shown_as_by_a_process() -> Iterator[None]:
    """Those inside come on stderr, by Python's own filters; pytest would keep them for its summary."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        yield
        for one in caught:
            sys.stderr.write(warnings.formatwarning(one.message, one.category, one.filename, one.lineno))
