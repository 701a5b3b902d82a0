"""Every stage's share is explicit, fits, and is refused with numbers and a flag when it doesn't."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CapacityError, UsageError
from pipeline.resources import Cluster, Resources, share
from pipeline.run_config import RunConfig

#: What a command may say besides the two numbers of actors.
SHARES = st.fixed_dictionaries(
    {},
    optional={
        "decode_cpus": st.floats(0.05, 4),
        "ran_gpus": st.floats(0.05, 1) | st.integers(2, 4).map(float),
        "max_decode_actors": st.integers(1, 500),
        "max_ran_actors": st.integers(1, 8),
        "device": st.sampled_from(["auto", "cpu"]),
    },
)


@pytest.mark.parametrize("cores", [1, 2, 4, 16, 400])
def test_the_default_fits_a_local_machine_of_any_size(cores: int) -> None:
    cluster = Cluster(cpus=cores + 1, gpus=0)
    resources = share(cluster)
    assert resources.decode_actors >= 1
    assert resources.ran_actors >= 1
    assert resources.cpus <= cluster.cpus


def test_without_gpus_an_actor_does_all_stages_unless_pools_are_asked_for() -> None:
    fused = share(Cluster(cpus=3, gpus=0))
    assert fused.is_fused
    assert (fused.decode_actors, fused.ran_actors, fused.cpus) == (2, 2, pytest.approx(2.8))
    assert share(Cluster(cpus=16, gpus=1), device="cpu").is_fused
    few = share(Cluster(cpus=9, gpus=0), decode_actors=2, max_decode_actors=6)
    assert few.is_fused
    assert (few.decode_pool, few.ran_pool) == ((2, 6), (2, 6))
    assert not share(Cluster(cpus=3, gpus=0), ran_actors=1).is_fused
    assert not share(Cluster(cpus=3, gpus=0), max_ran_actors=1).is_fused
    with pytest.raises(
        CapacityError, match=r"needs 9\.1 CPUs \(9 actors for all stages × 0\.9 \+ 1 .*--decode-actors,"
    ):
        share(Cluster(cpus=3, gpus=0), decode_actors=9)
    assert not share(Cluster(cpus=16, gpus=1)).is_fused


@pytest.mark.parametrize(("cpus", "gpus"), [(4, 1), (16, 1), (96, 8), (400, 1)])
def test_a_gpu_cluster_gives_each_gpu_to_one_ran_actor(cpus: int, gpus: int) -> None:
    resources = share(Cluster(cpus=cpus, gpus=gpus))
    assert resources.ran_actors == gpus
    assert resources.ran_gpus == 1
    assert resources.ran_cpus == 0, "decode actors could have taken the CPUs of the GPU's node"
    assert resources.cpus <= cpus


def test_too_many_actors_are_refused_with_numbers_and_the_flag() -> None:
    with pytest.raises(CapacityError, match=r"needs 16\.1 CPUs.*has 3; lower --decode-actors") as caught:
        share(Cluster(cpus=3, gpus=0), decode_actors=5, ran_actors=20)
    assert caught.value.exit_code == 4


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(CapacityError, match="--device cuda"):
        share(Cluster(cpus=8, gpus=0), device="cuda")
    with pytest.raises(CapacityError, match="--ran-actors"):
        share(Cluster(cpus=64, gpus=1), ran_actors=2)


def test_two_ran_actors_share_a_gpu() -> None:
    resources = share(Cluster(cpus=16, gpus=2), ran_gpus=0.5, decode_cpus=0.5)
    assert (resources.ran_actors, resources.gpus) == (4, 2)
    assert resources.decode_actors == 25
    assert resources.cpus <= 16
    with pytest.raises(CapacityError, match="--ran-gpus"):
        share(Cluster(cpus=16, gpus=2), ran_gpus=0.5, ran_actors=5)


def test_pools_grow_but_only_the_fewest_actors_must_fit() -> None:
    resources = share(Cluster(cpus=8, gpus=1), decode_actors=4, max_decode_actors=64, max_ran_actors=8)
    assert (resources.decode_pool, resources.ran_pool, resources.write_pool) == ((4, 64), (1, 8), (1, 4))
    few = resources.at_most(3)
    assert (few.decode_pool, few.ran_pool, few.write_pool) == ((3, 3), (1, 3), (1, 1))
    fused = share(Cluster(cpus=3, gpus=0), max_decode_actors=40)
    assert fused.is_fused
    assert fused.decode_pool == (2, 40)


def test_a_cluster_that_grows_is_asked_for_nodes_that_are_not_up_yet() -> None:
    head_only = Cluster(cpus=0, gpus=0)
    with pytest.raises(CapacityError, match="--wait-for-nodes-s"):
        share(head_only, device="cuda", ran_actors=2)
    gpus = share(head_only, device="cuda", decode_actors=32, ran_actors=2, may_grow=True)
    assert (gpus.decode_actors, gpus.ran_actors, gpus.gpus) == (32, 2, 2)
    assert share(head_only, device="cuda", may_grow=True).gpus == 1
    cpus = share(head_only, max_decode_actors=40, may_grow=True)
    assert cpus.is_fused
    assert cpus.decode_pool == (1, 40)


@given(cpus=st.integers(0, 600), gpus=st.integers(0, 9), asked=SHARES)
def test_numbers_that_nobody_gave_fit_any_cluster_that_holds_one_actor_of_each_kind(
    cpus: int, gpus: int, asked: dict[str, Any]
) -> None:
    cluster = Cluster(cpus=cpus, gpus=gpus)
    grows = share(cluster, **asked, may_grow=True)
    assert 1 <= grows.decode_actors <= asked.get("max_decode_actors", 600 * 20)
    if not grows.is_fused:
        assert 1 <= grows.ran_actors <= asked.get("max_ran_actors", 9 * 20)
    try:
        share(cluster, **asked, decode_actors=1, ran_actors=None if grows.is_fused else 1)
    except CapacityError:
        with pytest.raises(CapacityError, match=r"^(?!.*-actors)"):  # nobody gave one
            share(cluster, **asked)
        return
    resources = share(cluster, **asked)
    assert resources == grows
    assert resources.cpus <= cpus + 1e-6
    assert resources.gpus <= gpus + 1e-6


@given(cpus=st.integers(2, 600), decode_cpus=st.floats(0.05, 4), decode_actors=st.integers(1, 40))
def test_the_number_that_nobody_gave_makes_room_for_the_other(
    cpus: int, decode_cpus: float, decode_actors: int
) -> None:
    for given_actors in ({"decode_actors": decode_actors, "max_ran_actors": 99}, {"ran_actors": decode_actors}):
        least = {"decode_actors": 1, "ran_actors": 1} | given_actors
        try:
            share(Cluster(cpus=cpus, gpus=0), decode_cpus=decode_cpus, **least)
        except CapacityError:
            continue
        share(Cluster(cpus=cpus, gpus=0), decode_cpus=decode_cpus, **given_actors)


@pytest.mark.parametrize(("decode_cpus", "actors"), [(None, 15), (0.1, 15), (0.3, 15), (0.5, 12), (1.3, 7), (20, None)])
def test_without_gpus_there_are_fewer_actors_where_each_reserves_more_than_a_core(
    decode_cpus: float | None, actors: int | None
) -> None:
    cluster = Cluster(cpus=16, gpus=0)
    if actors is None:
        with pytest.raises(CapacityError, match=r"needs 21\.7 CPUs .* has 16; lower --decode-cpus, or add nodes$"):
            share(cluster, decode_cpus=decode_cpus)
    else:
        assert share(cluster, decode_cpus=decode_cpus).decode_actors == actors


def test_only_flags_that_were_given_and_can_be_less_are_named() -> None:
    with pytest.raises(CapacityError, match=r"has 1; add nodes$"):
        share(Cluster(cpus=1, gpus=0))
    with pytest.raises(CapacityError, match=r"has 3; lower --ran-actors, or add nodes$"):
        share(Cluster(cpus=3, gpus=0), decode_actors=1, ran_actors=20)
    with pytest.raises(CapacityError, match=r"has 3; lower --decode-cpus, or add nodes$"):
        share(Cluster(cpus=3, gpus=1), decode_actors=1, ran_actors=1, decode_cpus=2.5)


def test_a_pool_starts_with_no_more_actors_than_its_maximum() -> None:
    gpus = share(Cluster(cpus=64, gpus=8), max_decode_actors=10, max_ran_actors=2)
    assert (gpus.decode_pool, gpus.ran_pool) == ((10, 10), (2, 2))
    assert share(Cluster(cpus=16, gpus=0), max_decode_actors=4).decode_pool == (4, 4)


def cluster_of(*nodes: tuple[int, int]) -> Cluster:
    """Of nodes with so many CPUs and GPUs."""
    cpus, gpus = zip(*nodes, strict=True)
    return Cluster(
        cpus=sum(cpus), gpus=sum(gpus), nodes=len(nodes), node_cpus=cpus, node_gpus=tuple(filter(None, gpus))
    )


def place(free: list[float], requests: list[float], dice: random.Random) -> None:
    """Gives each in turn what it wants of any one that has it left; fails if none has."""
    for request in requests:
        able = [number for number, left in enumerate(free) if left >= request - 1e-6]
        assert able, (free, request)
        free[dice.choice(able)] -= request


def place_all(resources: Resources, cluster: Cluster, dice: random.Random) -> None:
    """As Ray does it: CPUs of one node; a part of one GPU, or whole ones of one node; stage by stage."""
    if resources.is_fused:
        requests = [resources.fused_cpus] * resources.decode_actors
    else:
        requests = [resources.decode_cpus] * resources.decode_actors + [resources.ran_cpus] * resources.ran_actors
        requests.append(resources.write_cpus)
    place(list(cluster.node_cpus), requests, dice)
    if resources.ran_gpus:
        is_part = resources.ran_gpus < 1
        gpus = [1.0] * int(cluster.gpus) if is_part else list(cluster.node_gpus)
        place(gpus, [resources.ran_gpus] * resources.ran_actors, dice)


@given(
    nodes=st.lists(st.tuples(st.integers(1, 16), st.integers(0, 4)), min_size=1, max_size=8),
    asked=SHARES,
    dice=st.randoms(use_true_random=False),
)
def test_numbers_that_nobody_gave_have_a_place_on_whichever_nodes_ray_begins(
    nodes: list[tuple[int, int]], asked: dict[str, Any], dice: random.Random
) -> None:
    asked = {**asked, "decode_cpus": max(0.1, asked.get("decode_cpus", 0.2))}  # below, the writer may be in trouble
    cluster = cluster_of(*nodes)
    is_fused = share(cluster, **asked, may_grow=True).is_fused
    try:
        share(cluster, **asked, decode_actors=1, ran_actors=None if is_fused else 1)
    except CapacityError:
        return
    resources = share(cluster, **asked)
    place_all(resources, cluster, dice)


@pytest.mark.parametrize(
    ("gpus_of_nodes", "ran_gpus", "places"),
    [
        ([2], 0.4, 4),
        ([1, 1], 0.4, 4),
        ([2], 0.6, 2),
        ([1, 2], 1 / 3, 9),
        ([3], 2, 1),
        ([1, 1, 1], 2, 0),
        ([4, 3], 2, 3),
        ([8], 1, 8),
    ],
)
def test_ran_actors_share_a_gpu_or_take_whole_ones_of_a_node(
    gpus_of_nodes: list[int], ran_gpus: float, places: int
) -> None:
    cluster = cluster_of(*((16, gpus) for gpus in gpus_of_nodes))
    if places:
        assert share(cluster, ran_gpus=ran_gpus).ran_actors == places
        assert share(cluster, ran_gpus=ran_gpus, ran_actors=places, max_ran_actors=50).ran_pool == (places, 50)
    with pytest.raises(CapacityError, match=rf"have room for {places}; lower --ran-actors or --ran-gpus") as caught:
        share(cluster, ran_gpus=ran_gpus, ran_actors=places + 2)
    assert caught.value.exit_code == 4


def test_a_part_of_several_gpus_is_refused() -> None:
    assert RunConfig(inputs=("in",), output="out", ran_gpus=2.0)
    with pytest.raises(UsageError, match=r"ran-gpus is 1\.5: above 1 it must be a whole number"):
        RunConfig(inputs=("in",), output="out", ran_gpus=1.5)


def test_an_actor_has_its_cpus_on_one_node() -> None:
    cluster = cluster_of(*[(2, 0)] * 8)
    assert share(cluster).decode_actors == 15
    assert share(cluster, decode_cpus=0.5).decode_actors == 7, "one per node, and one for Ray Data's own tasks"
    with pytest.raises(
        CapacityError, match=r"9 actors of 1\.2 .* 8 nodes has 2, and there is room for 8; lower --deco"
    ):
        share(cluster, decode_cpus=0.5, decode_actors=9)
    with pytest.raises(CapacityError, match=r"1 actors of 2\.5 CPUs .* lower --decode-cpus, or add nodes$"):
        share(cluster_of(*[(2, 1)] * 8), decode_cpus=2.5)
