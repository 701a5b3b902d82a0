"""Joining Ray: an address that can't be one is told apart before anything is tried."""

from __future__ import annotations

import pytest
from ray._private import worker

from pipeline import cluster
from pipeline.cluster import connected
from pipeline.errors import UsageError


def test_the_dashboards_url_is_no_address_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="ran-pipeline submit"), connected("http://head:8265"):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "https://head:8265")
    with pytest.raises(UsageError, match="unset RAY_ADDRESS"), connected(None):
        pass


def test_an_address_of_ray_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would take it, and then the head's own address can't be reached from here: a healthy run ended after 30 s."""
    with pytest.raises(UsageError, match=r"ray://head:10001.*ran-pipeline submit"), connected("ray://head:10001"):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match="unset RAY_ADDRESS"), connected(None):
        pass


def test_what_ray_says_of_its_nodes_is_not_among_our_data(capsys: pytest.CaptureFixture[str]) -> None:
    """It would stand before the JSON on standard output."""
    for _ in range(2):
        cluster._send_notices_to_stderr()
    worker.print_to_stdstream({"lines": ["a node died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("a node died") == 1
