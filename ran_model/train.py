"""Training: one rise and fall of the rate, a running mean of the weights, a checkpoint at least every four minutes.

One loop serves both stages: the single-pass start (one random region per face and step) and the RAN (all regions,
region-biased loss). Where torch.distributed is initialised, its processes share each batch and average their gradients;
on a CPU one single-threaded process per core beats threads, which wait for each other hundreds of times per step.
"""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ran_model.augment import Augmentation
from ran_model.batches import Batches
from ran_model.config import ModelConfig
from ran_model.data import FaceSet
from ran_model.evaluate import predict_probabilities
from ran_model.loss import region_biased_loss, soft_cross_entropy
from ran_model.network import RanOutput, RegionAttentionNetwork, SinglePassNetwork
from ran_model.precision import uses_bf16
from ran_model.resume import TrainingState
from ran_model.train_config import TrainConfig, learning_rate

SETTINGS_FILE = "train.json"
CHECKPOINT_S = 240.0  # with the step under way and the writing itself, a checkpoint is at most five minutes old

log = logging.getLogger(__name__)


def train(
    network: RegionAttentionNetwork | SinglePassNetwork,
    faces: FaceSet,
    validation: FaceSet | None,
    config: TrainConfig,
    folder: Path,
    augmentation: Augmentation | None = None,
    teacher: SinglePassNetwork | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    origin: str = "",
) -> None:
    """Trains in place, on the network's device; it ends as the running mean of its weights. Goes on from a checkpoint.

    validation: what the curve's accuracy is of, once an epoch; None leaves it out.
    teacher: a network of the same classes, whose answers join the targets (Hinton et al., "Distilling the Knowledge in
    a Neural Network", 2015; on the student's own view, as Beyer et al., CVPR 2022, found best).
    folder: gets checkpoint.safetensors (after every epoch, and within it every `checkpoint_s` seconds), curve.csv and
    train.json. A run that goes on from any step ends with the weights of an uninterrupted one: exactly on CPUs; on a
    GPU up to rounding, which many steps may enlarge (cuDNN chooses algorithms by speed; some add in no fixed order).
    progress: called after each step with the steps done, all steps, and the loss.
    origin: tells these faces, this start and this teacher from others, which the settings don't.
    Where it goes on with other processes or another precision, it warns: these weights will be others.
    Raises ValueError where the folder has a checkpoint of other settings or origin, or faces don't fill a batch.
    """
    if config.epochs == 0:
        return
    augmentation = augmentation or Augmentation()
    _claim(folder, settings(config, network.config, augmentation, origin))
    device = next(network.parameters()).device
    batches = Batches(
        faces,
        network.config,
        config,
        augmentation,
        single_pass=isinstance(network, SinglePassNetwork),
        device=device,
        rank=_rank(),
        processes=_processes(),
    )
    bf16 = uses_bf16(config.bf16, device)
    trained: nn.Module = network
    if _processes() > 1:
        trained = DistributedDataParallel(network)
    optimizer = _optimizer(network, config)
    mean = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    circumstances = {"processes": str(_processes()), "precision": "bfloat16" if bf16 else "float32"}
    if _rank() > 0:
        circumstances = {}  # one of them warns
    state = TrainingState(network=network, optimizer=optimizer, mean=mean, circumstances=circumstances)
    checkpoint = folder / "checkpoint.safetensors"
    state.restore(checkpoint)
    if state.steps == 0 and _rank() == 0:
        (folder / "curve.csv").unlink(missing_ok=True)  # of a checkpoint that somebody deleted
    steps_per_epoch, steps = batches.steps_per_epoch, config.epochs * batches.steps_per_epoch
    if state.steps and state.steps % steps_per_epoch == 0 and _rank() == 0:
        _end_epoch(state, state.steps // steps_per_epoch, folder, validation, config)  # if the kill came before it
    network.train()
    saved = time.monotonic()
    for step in range(state.steps, steps):
        begun = time.monotonic()
        if step % steps_per_epoch == 0:
            state.losses, state.seconds = [], 0.0
        rate = learning_rate(step, steps, config)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        batch = batches.at(step)
        torch.manual_seed(config.seed * 1_000_000 + step)  # for dropout, where a trunk has it
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            targets_BK = batch.targets_BK
            if teacher is not None:
                targets_BK = _taught(targets_BK, teacher, batch.faces_BCSS, batch.boxes_BR4, config.teacher_share)
            output = trained(batch.faces_BCSS, batch.boxes_BR4)
        loss = _loss(output, targets_BK, config)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _update_mean(mean, network, min(config.mean_decay, (step + 1) / (step + 10)))
        state.steps = step + 1
        state.losses.append(loss.detach())
        if _rank() > 0:
            continue
        if progress is not None:
            progress(step + 1, steps, float(loss.detach()))
        now = time.monotonic()
        state.seconds += now - begun
        is_last = state.steps % steps_per_epoch == 0
        if is_last or now - saved >= checkpoint_s:
            state.save(checkpoint)
            saved = now
        if is_last:
            _end_epoch(state, state.steps // steps_per_epoch, folder, validation, config)
    if _processes() > 1:  # BatchNorms' statistics are of each process's own share; the first's are what is kept
        for tensor in mean.values():
            torch.distributed.broadcast(tensor, 0)
    network.load_state_dict(mean)
    network.eval()


def _end_epoch(state: TrainingState, epoch: int, folder: Path, validation: FaceSet | None, config: TrainConfig) -> None:
    """Adds the epoch to the curve, if it is not there yet."""
    path = folder / "curve.csv"
    if path.exists() and len(path.read_text().splitlines()) > epoch:
        return
    accuracy = None if validation is None else round(_accuracy_of_mean(state, validation, config), 4)
    row = {
        "epoch": epoch,
        "loss": round(float(torch.stack(state.losses).mean()), 4),
        "validation_accuracy": accuracy,
        "seconds": round(state.seconds, 1),
        "faces_per_second": round(len(state.losses) * config.batch_size / state.seconds, 1),
    }
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if epoch == 1:
            writer.writeheader()
        writer.writerow(row)
    log.info("%s", row)


def settings(config: TrainConfig, model: ModelConfig, augmentation: Augmentation, origin: str) -> str:
    """All that decides what `train` makes of a network, as JSON: what it keeps beside a checkpoint."""
    values = asdict(config) | {"augmentation": asdict(augmentation), "model": asdict(model), "origin": origin}
    for label in ("name", "version"):
        del values["model"][label]
    return json.dumps(values, indent=2) + "\n"


def _claim(folder: Path, text: str) -> None:
    """Notes the settings in the folder. Raises ValueError if a checkpoint there is of others."""
    path = folder / SETTINGS_FILE
    if path.exists() and path.read_text() == text:
        return
    if path.exists() and (folder / "checkpoint.safetensors").exists():
        raise ValueError(
            f"{folder} has a checkpoint of other settings, data, start or teacher ({path.name}): choose another "
            "--work, or delete it"
        )
    if _rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _accuracy_of_mean(state: TrainingState, faces: FaceSet, config: TrainConfig) -> float:
    network = state.network
    assert isinstance(network, RegionAttentionNetwork | SinglePassNetwork)
    bf16 = uses_bf16(config.bf16, next(network.parameters()).device)
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(state.mean)
    answers_B = predict_probabilities(network, faces, bf16=bf16).argmax(dim=1)
    network.load_state_dict(kept)
    return float((answers_B == faces.labels_B).float().mean())


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
