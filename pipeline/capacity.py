"""Will it fit? Disk and memory that a plan needs, against what there is, before anything starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Extraction
from pipeline.errors import CapacityError
from pipeline.media.scratch import Scratch, disk_space
from pipeline.resources import Cluster, Resources
from pipeline.run_config import RunConfig
from pipeline.storage.store import Store
from ran_model.config import ModelConfig

FACES_PER_FRAME = 1.5  # a guess; crowds need more
FACE_ROW_BYTES, SEGMENT_ROW_BYTES = 350, 600  # compressed, of real media
CROP_BYTES_PER_PIXEL = 2.0  # PNG of a photographed face
STAGING_FACTOR = 2  # staged files live beside the published ones until a commit
DECODE_ACTOR_GIB, RAN_ACTOR_GIB = 0.8, 1.0  # resident, both processes of a decode actor
CUTTER_GIB = 0.3  # torch, in a decode actor that cuts regions


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes that a plan wants on the output's disk and in each node's scratch, and GiB of memory for all actors."""

    frames: int
    output_bytes: int
    scratch_bytes: int
    memory_gib: float


def estimate(
    todo: pa.Table,
    extraction: Extraction,
    model: ModelConfig,
    config: RunConfig,
    cluster: Cluster,
    share: Resources,
    decoded: pa.Table | None = None,
) -> Need:
    """An upper estimate: every video window full, FACES_PER_FRAME faces in each frame, decode actors spread evenly.

    decoded: the rows of `todo` whose sources are opened; None: all.
    On a cluster that starts nodes on demand, nobody knows yet how many actors share a node's scratch: one is sure.
    """
    actors_of_node = 1 if config.wait_for_nodes_s else math.ceil(share.decode_actors / max(1, cluster.nodes))
    archives = todo.filter(pc.equal(todo["kind"], "archive"))
    members = pc.sum(pc.fill_null(pc.list_value_length(archives["members"]), 0)).as_py() or 0
    videos = todo.filter(pc.equal(todo["kind"], "video")).num_rows
    pictures = todo.filter(pc.equal(todo["kind"], "picture")).num_rows
    frames = videos * extraction.segment_frames + members + pictures
    cutter_gib = CUTTER_GIB if config.crop_on == "cpu" and not share.is_fused else 0.0
    per_face = FACE_ROW_BYTES + (CROP_BYTES_PER_PIXEL * model.aligned_size**2 if config.keep_crops else 0)
    rows = frames * FACES_PER_FRAME * per_face + todo.num_rows * SEGMENT_ROW_BYTES
    return Need(
        frames=frames,
        output_bytes=int(rows * STAGING_FACTOR),
        scratch_bytes=_scratch_bytes(todo if decoded is None else decoded, actors_of_node),
        memory_gib=share.decode_actors * (DECODE_ACTOR_GIB + cutter_gib) + share.ran_actors * RAN_ACTOR_GIB,
    )


def _scratch_bytes(decoded: pa.Table, actors: int) -> int:
    """What a node's scratch holds at once, when each of its actors is at another source and those are the largest:
    sources that are remote, and one copied video of an archive per actor."""
    size = pc.fill_null(pc.struct_field(pc.list_element(decoded["members"], 0), "size"), 0)
    is_local = pc.starts_with(decoded["location"], "file://")  # a name that isn't Unicode
    is_remote = pc.and_not(pc.match_substring(decoded["location"], "://"), is_local)
    fetched = pc.if_else(is_remote, decoded["size_bytes"], 0)
    needs = pa.table({"source": decoded["source_id"], "bytes": fetched})
    largest = needs.group_by("source").aggregate([("bytes", "max")])["bytes_max"].sort(order="descending")
    copied = pc.if_else(pc.equal(decoded["kind"], "video"), size, 0).sort(order="descending")
    return sum(pc.sum(values.slice(0, actors)).as_py() or 0 for values in (largest, copied))


def free_bytes(path: str | Path) -> int:
    """Free space where `path` is, or will be."""
    return disk_space(Path(path))[1]


def check(need: Need, store: Store, config: RunConfig, cluster: Cluster) -> None:
    """Raises CapacityError with both numbers and the flag to change.

    What other nodes have free on their disks is not known here, nor what nodes that come later bring.
    """
    may_grow = config.wait_for_nodes_s > 0
    if store.is_local and need.output_bytes > (free := free_bytes(store.url_of(""))):
        raise CapacityError(
            f"the rows need about {_gib(need.output_bytes)} on the disk of {store.url}, which has {_gib(free)} free; "
            "choose another -o, free space, or drop --keep-crops"
        )
    if need.scratch_bytes > (cap := int(config.scratch_gib * 2**30)):
        raise CapacityError(
            f"the largest inputs need {_gib(need.scratch_bytes)} of scratch at once, over --scratch-gib "
            f"{config.scratch_gib:g} ({_gib(cap)}); raise it or lower --decode-actors"
        )
    is_alone = cluster.nodes <= 1 and not may_grow
    scratch = Scratch(config.scratch, capacity_bytes=cap)
    if is_alone and need.scratch_bytes > (room := scratch.room_bytes()):
        raise CapacityError(
            f"the largest inputs need {_gib(need.scratch_bytes)} of scratch in {scratch.directory}, which has "
            f"{_gib(room)} for it; point --scratch to a larger disk or lower --decode-actors"
        )
    memory_gib = None if may_grow else cluster.memory_gib
    if memory_gib is not None and need.memory_gib > memory_gib:
        raise CapacityError(
            f"the actors need about {need.memory_gib:.1f} GiB of memory and the cluster has {memory_gib:.1f}; "
            "lower --decode-actors or --ran-actors"
        )


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
