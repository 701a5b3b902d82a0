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


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What there is: logical CPUs, GPUs and memory over all nodes."""

    cpus: float
    gpus: float
    nodes: int = 1
    memory_gib: float | None = None


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Actors per stage and what each reserves. One thread per actor unless a GPU does the work.

    is_fused: every actor does all stages in turn; decode_actors and ran_actors are then the same ones.
    """

    decode_actors: int
    decode_cpus: float
    ran_actors: int
    ran_cpus: float
    ran_gpus: float = 0.0
    write_cpus: float = WRITE_CPUS
    is_fused: bool = False

    @property
    def write_actors(self) -> int:
        """Writers; actors rather than tasks, whose processes would start in the middle of the work."""
        return max(1, self.decode_actors // DECODERS_PER_WRITER)

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
        return replace(self, decode_actors=min(self.decode_actors, units), ran_actors=min(self.ran_actors, units))

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


def share(
    cluster: Cluster, *, device: str = "auto", decode_actors: int | None = None, ran_actors: int | None = None
) -> Resources:
    """Divides a cluster. Raises CapacityError, with the numbers and the flag to change, if the shares don't fit.

    Without GPUs every core gets one actor for all stages; asking for a number of actors gives the stages pools of
    their own.
    """
    if device == "cuda" and cluster.gpus < 1:
        raise CapacityError(
            "--device cuda needs a GPU and the cluster has none; use --device auto or cpu, or another cluster"
        )
    cores = max(1.0, cluster.cpus - BOOKKEEPING_CPUS)
    if device != "cpu" and cluster.gpus >= 1:
        ran = ran_actors or int(cluster.gpus)
        spare = int(cores - WRITE_CPUS - 0.5 * ran)
        resources = Resources(
            decode_actors=decode_actors or max(1, spare), decode_cpus=1.0, ran_actors=ran, ran_cpus=0.5, ran_gpus=1.0
        )
    else:
        each = max(1, int(cores))
        resources = Resources(
            decode_actors=decode_actors or each,
            decode_cpus=LOCAL_DECODE_CPUS,
            ran_actors=ran_actors or each,
            ran_cpus=LOCAL_RAN_CPUS,
            is_fused=decode_actors is None and ran_actors is None,
        )
    if resources.cpus > cluster.cpus + 1e-6:
        raise CapacityError(
            f"the job needs {resources.cpus:.1f} CPUs ({resources.decode_actors} decode actors × "
            f"{resources.decode_cpus:g} + {resources.ran_actors} RAN actors × {resources.ran_cpus:g} + "
            f"{resources.write_actors * resources.write_cpus:g} for writing + {BOOKKEEPING_CPUS:g} for Ray Data's own "
            f"tasks), but the cluster has {cluster.cpus:g}; lower --decode-actors or --ran-actors, or add nodes"
        )
    if resources.gpus > cluster.gpus:
        raise CapacityError(
            f"{resources.ran_actors} RAN actors need {resources.gpus:g} GPUs, but the cluster has {cluster.gpus:g}; "
            "lower --ran-actors"
        )
    return resources
