"""How one run is carried out. None of it decides which rows exist; that is `pipeline.config.Extraction`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import UsageError
from pipeline.media.decoders import check_decoder

DEVICES = ("auto", "cpu", "cuda")
CROP_ON = ("device", "cpu")
ON_CHANGED = ("error", "replace")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One `ran-pipeline run`.

    inputs, output: paths or URLs. listed: further inputs, from lists; these are no patterns. root: sources are named
    relative to it.
    model: a model directory, or "default".
    storage_options: endpoint, profile, keys… for S3; reach the workers, are never saved or shown.
    on_changed: what becomes of a source whose content is not what its rows were made of: an error row beside them, or
    new rows in their place.
    limit: at most this many new segments. max_error_rate: see exit code 3.
    device, decode_actors, ran_actors, batch_size: speed only; None chooses by the cluster.
    crop_on: where the regions of aligned faces are cut: where the network runs, or by the decode actors, which rounds
    them.
    max_decode_actors, max_ran_actors, decode_cpus, ran_gpus: see `pipeline.resources.Resources`.
    wait_for_nodes_s: above 0, the cluster starts nodes on demand and may take so long; see `placement`.
    decoder: of videos, see `pipeline.media.decoders`; those that ship give the same frames.
    deadline_s: a decoder that needs longer for one segment is killed.
    decode_memory_gib: a decoder that needs more fails its segment.
    scratch, scratch_gib: where remote sources are cached on each node, and the cache's cap.
    commit_interval_s: rows become visible about this often.
    """

    inputs: tuple[str, ...]
    output: str
    listed: tuple[str, ...] = field(default=(), repr=False)
    root: str | None = None
    model: str = "default"
    detector_weights: str | None = None
    keep_crops: bool = False
    limit: int | None = None
    max_error_rate: float = 0.0
    on_changed: str = "error"
    device: str = "auto"
    crop_on: str = "device"
    decoder: str = "pyav"
    decode_actors: int | None = None
    ran_actors: int | None = None
    max_decode_actors: int | None = None
    max_ran_actors: int | None = None
    decode_cpus: float | None = None
    ran_gpus: float | None = None
    wait_for_nodes_s: float = 0.0
    batch_size: int | None = None
    deadline_s: float = 300.0
    decode_memory_gib: float = 4.0
    scratch: str | None = None
    scratch_gib: float = 20.0
    commit_interval_s: float = 60.0
    heartbeat_s: float = 10.0
    stale_after_s: float = 60.0
    address: str | None = None
    storage_options: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.inputs and not self.listed:
            raise UsageError("no input given: name files, folders, globs or s3:// URLs, or a list with --from-file")
        if self.device not in DEVICES:
            raise UsageError(f"device is {self.device!r}: it must be one of {', '.join(DEVICES)}")
        if self.crop_on not in CROP_ON:
            raise UsageError(f"crop-on is {self.crop_on!r}: it must be one of {', '.join(CROP_ON)}")
        check_decoder(self.decoder)
        if self.on_changed not in ON_CHANGED:
            raise UsageError(f"on-changed is {self.on_changed!r}: it must be one of {', '.join(ON_CHANGED)}")
        if not 0 <= self.max_error_rate <= 1:
            raise UsageError(f"max-error-rate is {self.max_error_rate}: it is a share of the sources, from 0 to 1")
        for name in ("limit", "decode_actors", "ran_actors", "max_decode_actors", "max_ran_actors", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name.replace('_', '-')} is {value}: it must be at least 1")
        for pool in ("decode_actors", "ran_actors"):
            fewest, most = getattr(self, pool), getattr(self, f"max_{pool}")
            if fewest and most and most < fewest:
                flag = pool.replace("_", "-")
                raise UsageError(f"max-{flag} is {most}: it must be at least {flag} ({fewest})")
        for name in ("decode_cpus", "ran_gpus"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"{name.replace('_', '-')} is {value}: it must be above 0")
        if self.ran_gpus is not None and self.ran_gpus > 1 and self.ran_gpus % 1:
            raise UsageError(
                f"ran-gpus is {self.ran_gpus}: above 1 it must be a whole number, since Ray divides no GPU of several"
            )
        for name in ("deadline_s", "decode_memory_gib", "scratch_gib", "commit_interval_s", "heartbeat_s"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name.replace('_', '-')} is {getattr(self, name)}: it must be above 0")
        if self.stale_after_s < 2 * self.heartbeat_s:
            raise UsageError(
                f"stale-after-s is {self.stale_after_s}: it must be at least twice heartbeat-s ({self.heartbeat_s})"
            )

    @property
    def placement(self) -> dict[str, Any]:
        """What `pipeline.resources.share` wants to know besides the cluster."""
        names = (
            "device",
            "decode_actors",
            "ran_actors",
            "max_decode_actors",
            "max_ran_actors",
            "decode_cpus",
            "ran_gpus",
        )
        return {name: getattr(self, name) for name in names} | {"may_grow": self.wait_for_nodes_s > 0}

    def to_json(self) -> dict[str, Any]:
        """What config.json of the run records: everything but the storage options; of lists, how long they were."""
        values = asdict(self)
        del values["storage_options"]
        return values | {"listed": len(self.listed)}
