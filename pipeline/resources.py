"""Who gets which share of the machine, and the check that the cluster can hold it before anything starts.

Ray hangs without a word when actor pools own every CPU, because its own tasks wait for one (measured, with a
`repartition`: ten minutes, then killed). So every stage's share is explicit here, and one CPU stays unreserved.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import CapacityError

BOOKKEEPING_CPUS = 1.0
DECODERS_PER_WRITER = 16
LOCAL_DECODE_CPUS, LOCAL_RAN_CPUS, WRITE_CPUS = 0.2, 0.7, 0.1
#: Left free for each actor whose work a GPU does, but not reserved by it: decode actors, which come first, could take
#: every CPU of the nodes with GPUs, and it would wait for ever.
GPU_RAN_CPUS = 0.5


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What there is: logical CPUs, GPUs and memory over all nodes. nodes: those that have CPUs.

    node_cpus, node_gpus: of each node that has any; empty: one node has all.
    """

    cpus: float
    gpus: float
    nodes: int = 1
    memory_gib: float | None = None
    node_cpus: tuple[float, ...] = ()
    node_gpus: tuple[float, ...] = ()

    def cpu_places(self, share: float, *, beside: float = 0.0) -> int:
        """How many actors with such a share of CPUs have a place, each on one node, while one node has `beside` left
        for others."""
        sizes = self.node_cpus or (self.cpus,)
        lost = min(_times(size, share) - _times(max(0.0, size - beside), share) for size in sizes)
        return sum(_times(size, share) for size in sizes) - lost

    def gpu_places(self, share: float) -> int:
        """How many actors with such a share of GPUs have a place: on one GPU, or above 1 on whole GPUs of one node."""
        sizes = self.node_gpus or (self.gpus,)
        if share > 1:
            return sum(_times(size, share) for size in sizes)
        return sum(int(size) for size in sizes) * _times(1.0, share)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Actors per stage and what each reserves. One thread per actor unless a GPU does the work.

    decode_actors, ran_actors: as many are there before work begins. max_decode_actors, max_ran_actors: a pool grows to
    as many while it has work waiting and the cluster has, or starts, nodes for them; None: it stays as it is.
    is_fused: every actor does all stages in turn; both numbers are then of the same actors.
    """

    decode_actors: int
    decode_cpus: float
    ran_actors: int
    ran_cpus: float
    ran_gpus: float = 0.0
    write_cpus: float = WRITE_CPUS
    is_fused: bool = False
    max_decode_actors: int | None = None
    max_ran_actors: int | None = None

    @property
    def decode_pool(self) -> tuple[int, int]:
        """Fewest and most actors that decode, or do all stages."""
        return self.decode_actors, max(self.decode_actors, self.max_decode_actors or 0)

    @property
    def ran_pool(self) -> tuple[int, int]:
        """Fewest and most RAN actors."""
        return self.ran_actors, max(self.ran_actors, self.max_ran_actors or 0)

    @property
    def write_pool(self) -> tuple[int, int]:
        """Writers; actors rather than tasks, whose processes would start in the middle of the work. One is enough to
        start with: more would want CPUs that the sum below doesn't have."""
        return 1, max(1, self.decode_pool[1] // DECODERS_PER_WRITER)

    @property
    def cpus(self) -> float:
        """CPUs that the stages and Ray Data's own tasks need at least, together."""
        if self.is_fused:
            return self.decode_actors * self.fused_cpus + BOOKKEEPING_CPUS
        return (
            self.decode_actors * self.decode_cpus + self.ran_actors * self.ran_cpus + self.write_cpus + BOOKKEEPING_CPUS
        )

    @property
    def fused_cpus(self) -> float:
        """CPUs of an actor that does all stages."""
        return self.decode_cpus + self.ran_cpus

    def at_most(self, units: int) -> Resources:
        """The same shares with no more actors than there are units of work."""
        return replace(
            self,
            decode_actors=min(self.decode_actors, units),
            ran_actors=min(self.ran_actors, units),
            max_decode_actors=min(self.decode_pool[1], units),
            max_ran_actors=min(self.ran_pool[1], units),
        )

    @property
    def gpus(self) -> float:
        """GPUs reserved by the RAN actors."""
        return self.ran_actors * self.ran_gpus


def local_cpus() -> int:
    """Logical CPUs for a local Ray: one more than cores, for Ray Data's own tasks."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def this_machine() -> Cluster:
    """What a local Ray would have, without starting it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Cluster(cpus=local_cpus(), gpus=len(list(Path("/proc/driver/nvidia/gpus").glob("*"))), memory_gib=memory)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the command says of its pools; None: the cluster decides."""

    decode_actors: int | None
    ran_actors: int | None
    max_decode_actors: int | None
    max_ran_actors: int | None
    decode_cpus: float | None
    ran_gpus: float | None

    def lower(self, *names: str) -> str:
        """What to do about too large a job: lower those of the flags that were given and can be less, or add nodes."""
        given = [name for name in names if (getattr(self, name) or 0) > (1 if name.endswith("actors") else 0)]
        flags = " or ".join(f"--{name.replace('_', '-')}" for name in given)
        return f"lower {flags}, or add nodes" if flags else "add nodes"


def share(
    cluster: Cluster,
    *,
    device: str = "auto",
    decode_actors: int | None = None,
    ran_actors: int | None = None,
    max_decode_actors: int | None = None,
    max_ran_actors: int | None = None,
    decode_cpus: float | None = None,
    ran_gpus: float | None = None,
    may_grow: bool = False,
) -> Resources:
    """Divides a cluster. Raises CapacityError, with the numbers and the given flags to change, if the shares don't fit.

    Numbers of actors that are not given follow from the shares and are at most the maxima: as many as the cluster has
    room for, one at least. Without GPUs there is one actor per core, or per its share of CPUs where that is more, for
    all stages; asking for RAN actors gives the stages pools of their own. A cluster that may_grow starts nodes for
    actors that wait: then the shares need not fit today, and `device` "cuda" asks for GPUs that are not up yet.
    """
    if device == "cuda" and cluster.gpus < 1 and not may_grow:
        raise CapacityError(
            "--device cuda needs a GPU and the cluster has none; use --device auto or cpu, another cluster, or "
            "--wait-for-nodes-s if this one starts GPU nodes on demand"
        )
    asked = _Asked(
        decode_actors=decode_actors,
        ran_actors=ran_actors,
        max_decode_actors=max_decode_actors,
        max_ran_actors=max_ran_actors,
        decode_cpus=decode_cpus,
        ran_gpus=ran_gpus,
    )
    on_gpus = device == "cuda" or (device == "auto" and cluster.gpus >= 1)
    resources = _on_gpus(cluster, asked) if on_gpus else _on_cpus(cluster, asked)
    if not may_grow:
        _check_fits(cluster, resources, asked)
    return resources


def _on_gpus(cluster: Cluster, asked: _Asked) -> Resources:
    """RAN actors on the GPUs, decode actors on the CPUs that those leave."""
    decode_cpus, ran_gpus = asked.decode_cpus or 1.0, asked.ran_gpus or 1.0
    ran_actors = asked.ran_actors or _pool(cluster.gpu_places(ran_gpus), asked.max_ran_actors)
    others = BOOKKEEPING_CPUS + WRITE_CPUS
    spare_cpus = cluster.cpus - others - GPU_RAN_CPUS * ran_actors
    for_decode = min(_times(spare_cpus, decode_cpus), cluster.cpu_places(decode_cpus, beside=others))
    return Resources(
        decode_actors=asked.decode_actors or _pool(for_decode, asked.max_decode_actors),
        decode_cpus=decode_cpus,
        ran_actors=ran_actors,
        ran_cpus=0.0,
        ran_gpus=ran_gpus,
        max_decode_actors=asked.max_decode_actors,
        max_ran_actors=asked.max_ran_actors,
    )


def _on_cpus(cluster: Cluster, asked: _Asked) -> Resources:
    """One pool of actors for all stages, or two if RAN actors are asked for; in each at most one actor per core."""
    decode_cpus = asked.decode_cpus or LOCAL_DECODE_CPUS
    if asked.ran_actors is None and asked.max_ran_actors is None:
        room = cluster.cpu_places(max(1.0, decode_cpus + LOCAL_RAN_CPUS), beside=BOOKKEEPING_CPUS)
        actors = asked.decode_actors or _pool(room, asked.max_decode_actors)
        return Resources(
            decode_actors=actors,
            decode_cpus=decode_cpus,
            ran_actors=actors,
            ran_cpus=LOCAL_RAN_CPUS,
            is_fused=True,
            max_decode_actors=asked.max_decode_actors,
            max_ran_actors=asked.max_decode_actors,
        )
    cores = cluster.cpus - BOOKKEEPING_CPUS
    # Of two sizes of actors the first may leave on every node a bit less than the second needs.
    fragments = (len(cluster.node_cpus) - 1) * max(decode_cpus, LOCAL_RAN_CPUS) if cluster.node_cpus else 0.0
    spare_cpus = cores - WRITE_CPUS - fragments
    if asked.decode_actors is None:
        for_ran = _times(spare_cpus, decode_cpus + LOCAL_RAN_CPUS)  # as many of each
    else:
        for_ran = _times(spare_cpus - asked.decode_actors * decode_cpus, LOCAL_RAN_CPUS)
    ran_actors = asked.ran_actors or _pool(min(for_ran, int(cores)), asked.max_ran_actors)
    for_decode = _times(spare_cpus - ran_actors * LOCAL_RAN_CPUS, decode_cpus)
    return Resources(
        decode_actors=asked.decode_actors or _pool(min(for_decode, int(cores)), asked.max_decode_actors),
        decode_cpus=decode_cpus,
        ran_actors=ran_actors,
        ran_cpus=LOCAL_RAN_CPUS,
        max_decode_actors=asked.max_decode_actors,
        max_ran_actors=asked.max_ran_actors,
    )


def _times(room: float, share: float) -> int:
    """How many such shares there is room for; what binary fractions lose does not cost one."""
    return int(room / share + 1e-9)


def _pool(room: int, most: int | None) -> int:
    """How many actors a pool starts with where the command doesn't say."""
    return max(1, room if most is None else min(room, most))


def _check_fits(cluster: Cluster, resources: Resources, asked: _Asked) -> None:
    """Raises CapacityError."""
    if resources.cpus > cluster.cpus + 1e-6:
        stages = (
            f"{resources.decode_actors} actors for all stages × {resources.fused_cpus:g}"
            if resources.is_fused
            else f"{resources.decode_actors} decode actors × {resources.decode_cpus:g} + {resources.ran_actors} RAN "
            f"actors × {resources.ran_cpus:g} + {resources.write_cpus:g} for writing"
        )
        counts = ("decode_actors", "ran_actors") if resources.ran_cpus else ("decode_actors",)
        raise CapacityError(
            f"the job needs {resources.cpus:.1f} CPUs ({stages} + {BOOKKEEPING_CPUS:g} for Ray Data's own tasks), but "
            f"the cluster has {cluster.cpus:g}; {asked.lower(*counts, 'decode_cpus')}"
        )
    for count, cpus, flag in _cpu_pools(resources):
        if count > (places := cluster.cpu_places(cpus)):
            raise CapacityError(
                f"{count} actors of {cpus:g} CPUs each don't fit: the largest of the cluster's {cluster.nodes} nodes "
                f"has {max(cluster.node_cpus or (cluster.cpus,)):g}, and there is room for {places}; "
                f"{asked.lower(flag, 'decode_cpus')}"
            )
    if resources.ran_gpus and resources.ran_actors > (places := cluster.gpu_places(resources.ran_gpus)):
        raise CapacityError(
            f"{resources.ran_actors} RAN actors of {resources.ran_gpus:g} GPUs each don't fit: an actor's share is of "
            f"one GPU, or above 1 of one node's, and the cluster's {cluster.gpus:g} GPUs have room for {places}; "
            f"{asked.lower('ran_actors', 'ran_gpus')}"
        )


def _cpu_pools(resources: Resources) -> list[tuple[int, float, str]]:
    """Number of actors, share of each, and what of `_Asked` says the number, of the pools that reserve CPUs."""
    if resources.is_fused:
        return [(resources.decode_actors, resources.fused_cpus, "decode_actors")]
    pools = [(resources.decode_actors, resources.decode_cpus, "decode_actors")]
    return pools + ([(resources.ran_actors, resources.ran_cpus, "ran_actors")] if resources.ran_cpus else [])
