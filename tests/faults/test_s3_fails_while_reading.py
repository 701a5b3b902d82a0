"""503, silence and broken connections while sources are read from S3; and an S3 that goes away for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from tests.faults.comparison import assert_same_tables, table
from tests.faults.faulty_proxy import Request, at_random, between
from tests.faults.job import Job

SHARE = 0.3


@pytest.mark.seeds(1)
def test_s3_fails_while_reading(
    remote: Job,
    from_s3: Path,
    s3_server: str,
    tmp_path: Path,
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    with between(s3_server, at_random(seed, SHARE)) as proxy:
        flaky = remote.but(storage_options=proxy.storage_options(), scratch=str(tmp_path / "scratch"))
        for _ in range(10):
            try:
                flaky.run(tmp_path / "out")
            except StoreError:  # an unlucky run may end early, but never with a wrong row
                continue
            break
    assert proxy.faults, f"{proxy.fired}: the fault did not fire"
    record_property("faults", proxy.faults)
    assert_same_tables(from_s3, tmp_path / "out")


def test_s3_gone_after_the_plan_makes_no_error_rows(remote: Job, from_s3: Path, s3_server: str, tmp_path: Path) -> None:
    """Not one source is unreachable but all are: that says something about the store, nothing about them."""
    with between(s3_server) as proxy:
        stuck = remote.but(storage_options=proxy.storage_options(), scratch=str(tmp_path / "scratch"))

        def after_two_downloads(request: Request) -> str | None:
            return "503" if sum(path.suffix == "" for path in (tmp_path / "scratch").glob("[!.]*")) >= 2 else None

        proxy.rule = after_two_downloads
        with pytest.raises(StoreError, match="does not answer"):
            stuck.run(tmp_path / "out")
        assert proxy.fired["503"] > 3
        proxy.rule = lambda request: None
        stuck.run(tmp_path / "out")
    assert "unreachable" not in table(tmp_path / "out", "segments")["error_code"].to_pylist()
    assert_same_tables(from_s3, tmp_path / "out")


def test_one_object_that_does_not_come_is_a_row(remote: Job, from_s3: Path, s3_server: str, tmp_path: Path) -> None:
    """The store answers, but not about a.mp4: that one is unreachable, and the others are as ever."""
    with between(s3_server, lambda request: "503" if "a.mp4" in request.path else None) as proxy:
        remote.but(storage_options=proxy.storage_options(), scratch=str(tmp_path / "scratch")).run(tmp_path / "out")
    assert proxy.fired["503"] > 3
    rows = {row["source_uri"]: row["error_code"] for row in table(tmp_path / "out", "segments").to_pylist()}
    assert rows["a.mp4"] == "unreachable"
    assert_same_tables(from_s3, tmp_path / "out", but=("a.mp4",))
