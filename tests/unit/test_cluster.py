"""Joining Ray: an address that can't be one is told apart before anything is tried."""

from __future__ import annotations

import pytest

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
