"""The way of the data, on one screen.

    plan ──> decode, detect, align ──> RAN ──> stage files ──> manifest
             (CPU actors)             (GPU actors)             (the driver commits, `pipeline.driver`)

Without GPUs all three stages run in turn in one actor per core: pools of their own would only hand pixels around among
the same cores (on two of them that cost a tenth of the speed).

One row is one segment at every stage: each stage returns exactly the rows that it was given, failed ones too. So a
replayed task, a lost actor or another grouping can change neither which rows exist nor what they say.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from pipeline.cut import RegionCutter, pixels_grow
from pipeline.extract import BLOCK_PIXEL_BYTES, DecodeActor
from pipeline.infer import InferConfig, RanActor
from pipeline.rescore import RescoreActor
from pipeline.resources import Resources
from pipeline.stage import StageConfig, StageWriter
from pipeline.worker import WorkerConfig

# Ray calls keyword arguments of the remote layer deprecated but has no other way to say this (it is pinned below 2.64).
warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
# Ray's defaults restart and retry for ever: a segment that kills its actor would loop all night. A node that died is
# known as dead after 15 s, in which tasks that it had are retried, in vain, every two seconds.
BOUNDED: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 12}

#: An actor's class and what it is made with.
Stage = tuple[type, tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """The stages' configurations. `model` is a reference to ModelBytes in the object store.

    rescores: the units are stored segments (`pipeline.stored`) for another model; nothing is detected.
    cuts_first: regions are cut where faces are aligned, not where the network runs.
    """

    worker: WorkerConfig
    infer: InferConfig
    stage: StageConfig
    resources: Resources
    model: Any
    deadline_s: float
    rescores: bool = False
    cuts_first: bool = False


def build(units: list[pa.Table], config: GraphConfig) -> Dataset:
    """The chain over dispatch units. Each travels as one block, so an actor opens a file once for several rows.

    Units come from the driver's memory, and Ray Data asks no worker about them (`from_arrow` does): nothing here waits
    for a free CPU, and no worker starts for it. Read back from a file, locations, which may be signed URLs, would be in
    the output.
    """
    share = config.resources.at_most(len(units))
    plan = ray.data.from_blocks(units)
    align = _aligning(config)
    infer: Stage = (RanActor, (config.model, config.infer))
    write: Stage = (StageWriter, (config.stage,))
    if share.is_fused:
        return _actors(plan, (FusedActor, (align, infer, write)), share.decode_pool, cpus=share.fused_cpus)
    aligned = _actors(plan, align, share.decode_pool, cpus=share.decode_cpus)
    scored = _actors(aligned, infer, share.ran_pool, cpus=share.ran_cpus, gpus=share.ran_gpus)
    return _actors(scored, write, share.write_pool, cpus=share.write_cpus)


def _aligning(config: GraphConfig) -> Stage:
    """The first stage: faces aligned, and their regions cut where the network shall not do it."""
    cutter = RegionCutter, (config.worker.model_config, config.infer.keep_pixels)
    block_bytes = int(BLOCK_PIXEL_BYTES / (pixels_grow(config.worker.model_config) if config.cuts_first else 1))
    align: Stage = (DecodeActor, (config.worker, config.deadline_s, block_bytes))
    if config.rescores:
        align = (RescoreActor, (config.worker, config.deadline_s, config.stage.store, block_bytes))
    return (FusedActor, (align, cutter)) if config.cuts_first else align


class FusedActor:
    """Stages in turn in one actor: all three on a cluster without GPUs."""

    def __init__(self, *stages: Stage) -> None:
        self._stages = [actor(*arguments) for actor, arguments in stages]

    def __call__(self, block: pa.Table) -> pa.Table:
        for stage in self._stages:
            block = stage(block)
        return block


def _actors(rows: Dataset, stage: Stage, pool: tuple[int, int], *, cpus: float, gpus: float = 0.0) -> Dataset:
    """One stage: a pool of at least and at most so many actors, each with its share of CPUs and GPUs."""
    actor, arguments = stage
    fewest, most = pool
    # On GPUs `map_batches` insists on a batch size, up to which Ray would bundle units and wait for them. What it calls
    # itself, as `map_groups` does, takes whole blocks there too.
    map_blocks = rows.map_batches_internal if gpus else rows.map_batches
    return map_blocks(
        actor,
        fn_constructor_args=arguments,
        compute=ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=cpus,
        num_gpus=gpus or None,
        batch_format="pyarrow",
        **BOUNDED,
    )
