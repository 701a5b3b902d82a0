"""Every stage's share is explicit, fits, and is refused with numbers and a flag when it doesn't."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CapacityError
from pipeline.resources import Cluster, share

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
