"""One run over the hostile corpus, which every test of this folder looks at."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.aftermath import Aftermath, run_over
from tests.hostile.canaries import Canaries
from tests.hostile.corpus import IN_EVERY_RUN, corpus


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("hostile").addoption(
        "--whole-corpus", action="store_true", help="all files of the hostile corpus instead of sixty (`make soak`)"
    )


@pytest.fixture(scope="session")
def whole_corpus(request: pytest.FixtureRequest) -> bool:
    """Whether all files run, not only those of every test run."""
    return bool(request.config.getoption("--whole-corpus", default=False))


@pytest.fixture(scope="session")
def canaries() -> Iterator[Canaries]:
    """What nobody may open."""
    folder = Path(tempfile.mkdtemp(prefix="canaries-"))
    canaries = Canaries(folder / "canaries")
    yield canaries
    canaries.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def aftermath(
    canaries: Canaries, whole_corpus: bool, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Aftermath:
    """What one run of the command line over all files left behind."""
    cases = [case for case in corpus(canaries) if whole_corpus or case.name in IN_EVERY_RUN]
    return run_over(cases, canaries, tmp_path_factory.mktemp("hostile"), tiny_model)
