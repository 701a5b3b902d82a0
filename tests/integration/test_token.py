"""Ray's token authentication: no file of it for a Ray of one's own, and a clear word where a cluster wants a token."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import DEMO_MEDIA, run_cli
from tests.datasets import table
from tests.ray_nodes import ray_head

TOKEN = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable says what to do: it is as on any user's machine."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home_with_a_token() -> Iterator[Path]:
    """As any `ray.init()` leaves it behind."""
    home = Path(tempfile.mkdtemp(prefix="home-"))
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(TOKEN)
    yield home
    shutil.rmtree(home)


def test_a_run_of_ones_own_writes_no_token(tiny_model: Path, tmp_path: Path) -> None:
    """To a home where nothing can be written, not even by root."""
    home = tmp_path / "home"
    home.write_bytes(b"")
    run = ("run", DEMO_MEDIA / "astronaut.png", "-o", tmp_path / "out", "--model", tiny_model)
    done = run_cli(*run, "--decode-actors", "1", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out", "faces").num_rows == 1


@pytest.mark.timeout(600)
def test_a_cluster_that_wants_a_token_as_ray_sets_it_up(
    tiny_model: Path, tmp_path: Path, home_with_a_token: Path
) -> None:
    run = ("run", DEMO_MEDIA / "astronaut.png", "-o", tmp_path / "out", "--model", tiny_model)
    home = {"HOME": str(home_with_a_token)}
    with ray_head(token=TOKEN, **home) as cluster:
        cluster.variables["RAY_AUTH_MODE"] = "token"  # the head found the file and asks; others don't look for it
        cluster.start([f"--address={cluster.address}", "--num-cpus=2"])
        refused = run_cli(*run, address=cluster.address, **home)
        assert refused.returncode == 2, refused.stderr
        assert f"the cluster at {cluster.address} wants a token: set RAY_AUTH_MODE=token" in refused.stderr
        assert len(refused.stderr.strip().splitlines()[-1]) < 200
        nowhere = run_cli(*run, address=cluster.address, HOME=str(tmp_path), RAY_AUTH_MODE="token")
        assert nowhere.returncode == 2, nowhere.stderr
        assert "wants a token" in nowhere.stderr
        done = run_cli(*run, address=cluster.address, RAY_AUTH_MODE="token", **home)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr + refused.stderr + nowhere.stderr
    assert table(tmp_path / "out", "faces").num_rows == 1
