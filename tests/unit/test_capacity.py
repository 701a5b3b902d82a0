"""What a plan needs of scratch: each source once, however many of its segments are planned."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.capacity import CUTTER_GIB, Need, check, estimate
from pipeline.config import Extraction
from pipeline.cut import pixels_grow
from pipeline.errors import CapacityError
from pipeline.media.scratch import Scratch
from pipeline.resources import Cluster, Resources
from pipeline.run_config import RunConfig
from pipeline.segments import plan_table
from pipeline.storage.store import Store
from ran_model.config import ModelConfig

LOCAL, REMOTE = "/in/", "s3://in/"


def scratch_bytes(*sources: tuple[str, dict[str, Any]], actors: int = 2, nodes: int = 1, **config: Any) -> int:
    rows, locations = [], {}
    for number, (location, values) in enumerate(sources):
        source_id = f"{number:016x}"
        common = {"source_uri": location, "fingerprint": "1:1", "duration_s": 600.0, "container_frames": None}
        rows.append(
            {**common, "source_id": source_id, "index": None, "error_code": None, "error_message": None, **values}
        )
        locations[source_id] = location
    todo = plan_table(rows, locations=locations, extraction=Extraction())
    share = Resources(decode_actors=actors, decode_cpus=0.2, ran_actors=1, ran_cpus=0.2, ran_gpus=0.0)
    run = RunConfig(inputs=("x",), output="out", **config)
    cluster = Cluster(cpus=8, gpus=0, nodes=nodes)
    return estimate(todo, Extraction(), ModelConfig(name="m"), run, cluster, share).scratch_bytes


def video(location: str, size: int) -> tuple[str, dict[str, Any]]:
    return location, {"kind": "video", "size_bytes": size}


def archive(location: str, size: int, *members: tuple[str, int, int]) -> tuple[str, dict[str, Any]]:
    index = [{"ordinal": n, "name": name, "offset": at, "size": of} for n, (name, at, of) in enumerate(members)]
    return location, {"kind": "archive", "size_bytes": size, "index": index}


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([video(LOCAL + "a.mp4", 100)], 0),
        ([video("file:///in/%E9.mp4", 100)], 0),  # local too: a name that isn't Unicode
        ([video(REMOTE + "a.mp4", 100)], 100),  # ninety segments, one file
        ([video(REMOTE + f"{size}.mp4", size) for size in (100, 7, 60)], 160),
        ([archive(LOCAL + "a.tar", 500, ("a.png", 0, 9), ("b.mp4", 9, 40), ("c.mp4", 49, 30), ("d.mp4", 79, 3))], 70),
        ([archive(REMOTE + "a.tar", 500, ("b.mp4", 9, 40))], 540),
        ([archive(LOCAL + "a.tar.gz", 50, ("a.png", 512, 9))], 0),
        ([archive(REMOTE + "a.TGZ", 50, ("a.mp4", 512, 9))], 50 + 9),
    ],
)
def test_scratch_at_once(sources: list[tuple[str, dict[str, Any]]], expected: int) -> None:
    assert scratch_bytes(*sources) == expected


def test_nodes_have_a_scratch_each() -> None:
    films = [video(REMOTE + f"{size}.mp4", size) for size in (100, 80, 60, 40)]
    assert scratch_bytes(*films, actors=4) == 280
    assert scratch_bytes(*films, actors=4, nodes=2) == 180
    assert scratch_bytes(*films, actors=3, nodes=2) == 180
    assert scratch_bytes(*films, actors=4, nodes=0, wait_for_nodes_s=600.0) == 100


def test_what_the_cache_leaves_free_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(total=100 << 30, free=15 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    config = RunConfig(inputs=("x",), output="out", scratch=str(tmp_path), scratch_gib=50.0)
    for gib in (4, 6):
        need = Need(frames=1, output_bytes=0, scratch_bytes=gib << 30, memory_gib=0.0)
        refused = pytest.raises(CapacityError, match=r"5\.00 GiB for it") if gib > 5 else contextlib.nullcontext()
        with refused:
            check(need, Store(str(tmp_path)), config, Cluster(cpus=8, gpus=0))


@pytest.mark.parametrize("named", [True, False])
def test_what_an_earlier_run_cached_gives_way(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = str(tmp_path / "cache") if named else None
    cached = Scratch(folder).derived("a", 0, lambda target: target.write_bytes(bytes(2000)) and None)
    usage = shutil.disk_usage(tmp_path)._replace(total=5000, free=1500)  # of which 500 stay free
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    need = Need(frames=1, output_bytes=0, scratch_bytes=1200, memory_gib=0.0)
    config = RunConfig(inputs=("x",), output="out", scratch=folder)
    with pytest.raises(CapacityError, match="point --scratch to a larger disk"):
        check(need, Store(str(tmp_path)), config, Cluster(cpus=8, gpus=0))
    cached.close()
    check(need, Store(str(tmp_path)), config, Cluster(cpus=8, gpus=0))


def test_the_disk_here_says_nothing_of_other_nodes(tmp_path: Path) -> None:
    need = Need(frames=1, output_bytes=0, scratch_bytes=2**60, memory_gib=0.0)
    config = RunConfig(inputs=("x",), output="out", scratch=str(tmp_path), scratch_gib=2.0**40)
    store = Store(str(tmp_path))
    with pytest.raises(CapacityError, match="point --scratch to a larger disk"):
        check(need, store, config, Cluster(cpus=8, gpus=0))
    check(need, store, config, Cluster(cpus=8, gpus=0, nodes=2))
    small = RunConfig(inputs=("x",), output="out", scratch=str(tmp_path), scratch_gib=1.0)
    with pytest.raises(CapacityError, match="over --scratch-gib 1 "):
        check(need, store, small, Cluster(cpus=8, gpus=0, nodes=2))


def test_a_decode_actor_that_cuts_regions_needs_memory_for_torch() -> None:
    todo = plan_table([], locations={}, extraction=Extraction())
    share = Resources(decode_actors=10, decode_cpus=1.0, ran_actors=1, ran_cpus=0.0, ran_gpus=1.0)
    cluster = Cluster(cpus=12, gpus=1)

    def memory_gib(crop_on: str, of: Resources) -> float:
        run = RunConfig(inputs=("x",), output="out", crop_on=crop_on)
        return estimate(todo, Extraction(), ModelConfig(name="m"), run, cluster, of).memory_gib

    assert memory_gib("cpu", share) - memory_gib("device", share) == pytest.approx(10 * CUTTER_GIB)
    fused = replace(share, is_fused=True)  # has torch anyway
    assert memory_gib("cpu", fused) == memory_gib("device", fused)


def test_how_much_larger_regions_are_than_their_face() -> None:
    large = ModelConfig(name="m", colour="rgb", input_size=224, aligned_size=224)
    assert pixels_grow(large.to_json()) == 6  # so a unit defers its segments after a sixth of the faces
    assert pixels_grow(replace(large, colour="grey", input_size=64, aligned_size=96).to_json()) == 1
