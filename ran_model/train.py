"""Training: one rise and fall of the rate, a running mean of the weights, a checkpoint after every epoch.

One loop serves both stages: the single-pass start (one random region per face and step) and the RAN (all regions,
region-biased loss). Where torch.distributed is initialised, its processes share each batch and average their gradients;
on a CPU one single-threaded process per core beats threads, which wait for each other hundreds of times per step.
"""

from __future__ import annotations

import csv
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.distributed
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ran_model.augment import Augmentation
from ran_model.config import ModelConfig
from ran_model.data import FaceSet
from ran_model.evaluate import predict_probabilities
from ran_model.loss import region_biased_loss, soft_cross_entropy
from ran_model.network import RanOutput, RegionAttentionNetwork, SinglePassNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training stage.

    optimizer: "sgd" (Nesterov momentum, as the paper's) or "adamw", which learns much faster from random weights.
    epoch_steps: end an epoch after so many batches; None takes all faces. Checkpoints and the curve come once an epoch.
    learning_rate: the peak; the rate rises to it over `warmup` of all steps and falls to zero as a cosine.
    attention_rate: factor on the rate of the attention layers, which start from nothing when the trunk is trained
    already.
    mean_decay: of the running mean of the weights, which is what is evaluated and kept.
    margin: α of the region-biased loss, and region_bias its weight beside cross-entropy; 0 leaves it out.
    class_balance: how far rare classes are drawn more often: 0 not at all, 1 until all come alike. Training only.
    teacher_share: how much of each target is a teacher's answer to the same changed picture, the rest being the
    annotators' votes; without a teacher it is not used.
    whole_share: how often a single-pass step sees the whole face rather than another region.
    bf16: compute in bfloat16 (autocast); pays on processors with AVX512-BF16 or AMX, and on GPUs.
    """

    optimizer: str = "sgd"
    epochs: int = 20
    epoch_steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 0.1
    attention_rate: float = 1.0
    warmup: float = 0.15
    momentum: float = 0.9
    weight_decay: float = 5e-4
    mean_decay: float = 0.998
    margin: float = 0.02
    region_bias: float = 1.0
    class_balance: float = 0.0
    teacher_share: float = 0.7
    whole_share: float = 0.5
    bf16: bool = True
    seed: int = 0


def train(
    network: RegionAttentionNetwork | SinglePassNetwork,
    faces: FaceSet,
    validation: FaceSet,
    config: TrainConfig,
    folder: Path,
    augmentation: Augmentation | None = None,
    teacher: SinglePassNetwork | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> None:
    """Trains in place, on the network's device; it ends as the running mean of its weights. Goes on from a checkpoint.

    teacher: a network of the same classes, whose answers join the targets (Hinton et al., "Distilling the Knowledge in
    a Neural Network", 2015; on the student's own view, as Beyer et al., CVPR 2022, found best).
    folder: gets checkpoint.safetensors (after every epoch), curve.csv and train.json. Shuffling and augmentation are
    seeded per epoch, so a continued run sees what an uninterrupted one would have.
    progress: called after each step with the steps done, all steps, and the loss.
    Raises ValueError where the folder has a checkpoint of other settings.
    """
    _claim(folder, config)
    augmentation = augmentation or Augmentation()
    device = next(network.parameters()).device
    trained: nn.Module = network
    if _processes() > 1:
        trained = DistributedDataParallel(network)
    optimizer = _optimizer(network, config)
    mean = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    steps_per_epoch = min(len(faces) // config.batch_size, config.epoch_steps or len(faces))
    first_epoch = _restore(folder / "checkpoint.safetensors", network, optimizer, mean)
    for epoch in range(first_epoch, config.epochs):
        begun = time.monotonic()
        network.train()
        losses = []
        batches = itertools.islice(_batches(faces, config, epoch, augmentation), steps_per_epoch)
        for index, batch in enumerate(batches):
            step = epoch * steps_per_epoch + index
            rate = learning_rate(step, config.epochs * steps_per_epoch, config)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate_factor"]
            optimizer.zero_grad()
            pictures, targets = batch.faces_BCSS.to(device), batch.targets_BK.to(device)
            boxes = _training_boxes(network, batch, config, step)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.bf16):
                if teacher is not None:
                    targets = _taught(targets, teacher, pictures, boxes, config.teacher_share)
                output = trained(pictures, boxes)
            loss = _loss(output, targets, config)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            _update_mean(mean, network, min(config.mean_decay, (step + 1) / (step + 10)))
            losses.append(loss.detach())
            if progress is not None and _rank() == 0:
                progress(step + 1, config.epochs * steps_per_epoch, float(loss.detach()))
        if _rank() > 0:
            continue
        _save(folder / "checkpoint.safetensors", network, optimizer, mean, epoch + 1)
        seconds = time.monotonic() - begun
        row = {
            "epoch": epoch + 1,
            "loss": round(float(torch.stack(losses).mean()), 4),
            "validation_accuracy": round(_accuracy_of_mean(network, mean, validation, config), 4),
            "seconds": round(seconds, 1),
            "faces_per_second": round(steps_per_epoch * config.batch_size / seconds, 1),
        }
        _append(folder / "curve.csv", row)
        log.info("%s", row)
    network.load_state_dict(mean)
    network.eval()


def _claim(folder: Path, config: TrainConfig) -> None:
    """Notes the configuration in the folder. Raises ValueError if a checkpoint there is of another one."""
    text, path = json.dumps(asdict(config), indent=2) + "\n", folder / "train.json"
    if path.exists() and path.read_text() != text and (folder / "checkpoint.safetensors").exists():
        raise ValueError(
            f"{folder} has a checkpoint of other settings ({path.name}): choose another --work, or delete it"
        )
    if _rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _accuracy_of_mean(
    network: RegionAttentionNetwork | SinglePassNetwork, mean: dict[str, Tensor], faces: FaceSet, config: TrainConfig
) -> float:
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(mean)
    answers_B = predict_probabilities(network, faces, bf16=config.bf16).argmax(dim=1)
    accuracy = float((answers_B == faces.labels_B).float().mean())
    network.load_state_dict(kept)
    return accuracy


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate at a step: a linear rise, then half a cosine down to zero."""
    rise = max(1.0, config.warmup * steps)
    if step < rise:
        return config.learning_rate * (step + 1) / (rise + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))


def _loss(output: RanOutput, targets_BK: Tensor, config: TrainConfig) -> Tensor:
    loss = soft_cross_entropy(output.logits_BK, targets_BK)
    if output.self_attention_BR.shape[1] > 1 and config.region_bias > 0:
        loss = loss + config.region_bias * region_biased_loss(output.self_attention_BR, config.margin)
    return loss


@torch.no_grad()
def _taught(
    targets_BK: Tensor, teacher: SinglePassNetwork, faces_BCSS: Tensor, boxes_BR4: Tensor, share: float
) -> Tensor:
    """Targets with the teacher's answers mixed in. It looks where a single pass looks; at the whole face for a RAN."""
    teacher.eval()
    return torch.lerp(targets_BK, teacher(faces_BCSS, boxes_BR4[:, :1]).logits_BK.softmax(dim=1), share)


def _batches(faces: FaceSet, config: TrainConfig, epoch: int, augmentation: Augmentation) -> Iterator[FaceSet]:
    generator = Generator().manual_seed(config.seed * 1000 + epoch)
    order = _order(faces.labels_B, config.class_balance, generator)
    share = config.batch_size // _processes()
    generator.manual_seed((config.seed * 1000 + epoch) * 64 + _rank())
    for start in range(0, len(order) - config.batch_size + 1, config.batch_size):
        begin = start + _rank() * share
        batch = faces.take(order[begin : begin + share])
        changed = augmentation(batch.faces_BCSS.float() / 255, generator)
        yield replace(batch, faces_BCSS=changed)


def _order(labels_B: Tensor, class_balance: float, generator: Generator) -> Tensor:
    """Every face once, shuffled; with class balance, as many draws with replacement."""
    if class_balance == 0:
        return torch.randperm(len(labels_B), generator=generator)
    weights_B = torch.bincount(labels_B).double()[labels_B] ** -class_balance
    return torch.multinomial(weights_B, len(labels_B), replacement=True, generator=generator)


def _training_boxes(network: nn.Module, batch: FaceSet, config: TrainConfig, step: int) -> Tensor:
    """All regions for a RAN; for a single pass one per face, the whole or another, so that the trunk knows both."""
    model: ModelConfig = network.config  # type: ignore[assignment]
    boxes_BR4, count = batch.boxes(model), len(batch)
    if isinstance(network, RegionAttentionNetwork):
        return boxes_BR4
    if boxes_BR4.shape[1] == 1:
        return boxes_BR4
    generator = Generator().manual_seed((config.seed * 1_000_000 + step) * 64 + _rank())
    region_B = torch.randint(1, boxes_BR4.shape[1], (count,), generator=generator)
    region_B[torch.rand(count, generator=generator) < config.whole_share] = 0
    return boxes_BR4.expand(count, -1, -1)[torch.arange(count), region_B][:, None]


def _optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    attention = [p for name, p in network.named_parameters() if name.startswith("attention.")]
    others = [p for name, p in network.named_parameters() if not name.startswith("attention.")]
    groups: list[dict[str, Any]] = [{"params": others, "rate_factor": 1.0}]
    if attention:
        groups.append({"params": attention, "rate_factor": config.attention_rate})
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


@torch.no_grad()
def _update_mean(mean: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    state = network.state_dict()
    floats = [name for name in mean if mean[name].is_floating_point()]
    torch._foreach_lerp_([mean[n] for n in floats], [state[n] for n in floats], 1 - decay)


def _save(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, mean: dict[str, Tensor], epoch: int
) -> None:
    """Everything needed to go on, as safetensors; replaced whole, so that a kill leaves the last one."""
    tensors = {f"weights.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"mean.{name}": tensor for name, tensor in mean.items()}
    for name, parameter in network.named_parameters():
        tensors |= {f"optimizer/{key}/{name}": tensor for key, tensor in optimizer.state[parameter].items()}
    unfinished = path.with_suffix(".unfinished")
    copies = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file(copies, unfinished, {"epoch": str(epoch)})
    unfinished.replace(path)


def _restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, mean: dict[str, Tensor]) -> int:
    """Loads a checkpoint into its three holders and returns the epochs done; 0 where there is none."""
    if not path.exists():
        return 0
    with safetensors.safe_open(path, framework="pt") as file:
        epoch = int(file.metadata()["epoch"])
    tensors = safetensors.torch.load_file(path)
    network.load_state_dict({n.removeprefix("weights."): t for n, t in tensors.items() if n.startswith("weights.")})
    for name in mean:
        mean[name].copy_(tensors[f"mean.{name}"])
    parameters = dict(network.named_parameters())
    for full_name, tensor in tensors.items():
        if full_name.startswith("optimizer/"):
            _, key, name = full_name.split("/")
            on_its_device = (
                tensor.to(parameters[name].device) if tensor.ndim else tensor
            )  # AdamW counts steps on the CPU
            optimizer.state[parameters[name]][key] = on_its_device
    log.info("going on after epoch %d", epoch)
    return epoch


def _append(path: Path, row: dict[str, float]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
