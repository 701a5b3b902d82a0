"""What the end of a run says about its stages: as much as is known."""

from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
import pytest

from jobs.run import describe
from pipeline.resources import Resources
from pipeline.stage import MANIFEST
from pipeline.summary import Summary

POOLS = Resources(decode_actors=4, decode_cpus=1.0, ran_actors=1, ran_cpus=0.0, ran_gpus=1.0)


def summary(resources: Resources) -> Summary:
    """After 100 s, in which the decoding actors worked for 240 s and the RAN actors for 90 s."""
    done = Summary(segments_done=10, segments_planned=10, sources=1, sampled_frames=320, faces=400, resources=resources)
    done.fetch_s, done.decode_s, done.detect_s, done.infer_s = 20.0, 60.0, 160.0, 90.0
    done._started_at, done._ended_at = 1000.0, 1100.0
    return done


def test_the_bottleneck_of_pools_that_stay_as_they_are() -> None:
    fixed = summary(dataclasses.replace(POOLS, max_decode_actors=4))
    assert [stage["busy_share"] for stage in fixed.stages().values()] == [0.05, 0.15, 0.4, 0.9]
    assert fixed.to_json()["bottleneck"] == "infer"
    assert ["detect", "320", "2.0", "40%"] in [line.split() for line in describe(fixed).splitlines()]
    assert "bottleneck: infer" in describe(fixed)


def test_what_took_no_time_has_no_rate_and_is_no_bottleneck() -> None:
    local = summary(dataclasses.replace(POOLS, max_decode_actors=4))
    local.fetch_s = 0.0
    assert local.stages()["fetch"]["items_per_s"] is None
    assert ["fetch", "10", "-", "0%"] in [line.split() for line in describe(local).splitlines()]
    local.decode_s = local.detect_s = local.infer_s = 0.0
    assert local.bottleneck() is None


def test_a_limit_leaves_a_rest() -> None:
    limited = summary(POOLS)
    assert "left by" not in describe(limited)
    limited.segments_left = 15
    assert "15 segments left by --limit: the same command goes on with them" in describe(limited)


def test_a_pool_that_grew_has_no_share_and_leaves_no_bottleneck() -> None:
    """With the fewest actors all stages read 100 % and decoding was the bottleneck, whatever the work was."""
    grown = summary(dataclasses.replace(POOLS, max_decode_actors=480))
    values = json.loads(json.dumps(grown.to_json()))
    assert [stage["busy_share"] for stage in values["stages"].values()] == [None, None, None, 0.9]
    assert values["stages"]["detect"]["items_per_s"] == 2.0
    assert values["bottleneck"] is None
    assert ["detect", "320", "2.0", "-"] in [line.split() for line in describe(grown).splitlines()]
    assert "bottleneck" not in describe(grown)
    both = summary(dataclasses.replace(POOLS, max_decode_actors=480, max_ran_actors=2))
    assert {stage["busy_share"] for stage in both.stages().values()} == {None}


@pytest.mark.parametrize("ahead_s", [0.0, 3600.0, -3600.0])
def test_the_rate_does_not_hang_on_the_clocks_of_the_nodes(monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> None:
    """An hour ahead, the run had a negative rate; an hour behind, it had taken an hour longer, and no time to start."""
    run = Summary(_began_at=1000.0)
    monkeypatch.setattr("time.time", lambda: 1030.0)  # a unit was taken up after 20 s, and took 10
    unit = {"segment_id": "a", "sampled_frames": 40, "faces_kept": 40, "started_at": 1020.0 + ahead_s}
    unit |= {"deferred": False, "decode_s": 7.0, "infer_s": 3.0}
    run.add(pa.Table.from_pylist([unit], MANIFEST))
    assert run.startup_s == 20.0
    run.processing_ended()
    assert run.to_json()["faces_per_s"] == 4.0
