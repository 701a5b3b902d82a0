"""The settings of one training stage, and how its learning rate goes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ran_model.checks import check_choice, check_number, check_switch, check_whole

OPTIMIZERS = ("sgd", "adamw")
LARGEST_SEED = 4_000_000  # up to it no two batches are changed alike


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training stage. Raises ValueError for a setting that can't be meant.

    optimizer: "sgd" (Nesterov momentum, as the paper's) or "adamw", which learns much faster from random weights.
    epochs: 0 leaves the stage out. epoch_steps: end an epoch after so many batches; None takes all faces. Validation
    and the curve come once an epoch.
    learning_rate: the peak; the rate rises to it over `warmup` of all steps and falls to zero as a cosine.
    attention_rate: factor on the rate of the attention layers, which start from nothing when the trunk is trained
    already.
    mean_decay: of the running mean of the weights, which is what is evaluated and kept.
    margin: α of the region-biased loss, and region_bias its weight beside cross-entropy; 0 leaves it out.
    class_balance: how far rare classes are drawn more often: 0 not at all, 1 until all come alike. Training only.
    teacher_share: how much of each target is a teacher's answer to the same changed picture, the rest being the
    annotators' votes; without a teacher it is not used.
    whole_share: how often a single-pass step sees the whole face rather than another region.
    bf16: compute in bfloat16 (autocast); None: where the device has instructions for it, as newer GPUs have, and
    processors with AVX512-BF16 or AMX.
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
    bf16: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_whole("epochs", self.epochs, 0)
        if self.epoch_steps is not None:
            check_whole("epoch_steps", self.epoch_steps, 1)
        check_whole("batch_size", self.batch_size, 2)  # BatchNorm can't train on one face
        check_whole("seed", self.seed, 0, LARGEST_SEED)
        if self.bf16 is not None:
            check_switch("bf16", self.bf16)
        check_number("learning_rate", self.learning_rate, 0, is_open=True)
        check_number("momentum", self.momentum, 0, 1, is_open=True)
        for name in ("attention_rate", "weight_decay", "region_bias"):
            check_number(name, getattr(self, name), 0)
        for name in ("warmup", "mean_decay", "margin", "class_balance", "teacher_share", "whole_share"):
            check_number(name, getattr(self, name), 0, 1)


def twin_config(config: TrainConfig) -> TrainConfig:
    """How a RAN's single-pass twin is trained: as the RAN, and looking at what it is asked about, the whole face alone.

    So both get the same targets: a RAN's teacher looks at the whole face too.
    """
    return replace(config, whole_share=1.0)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate at a step: a linear rise, then half a cosine down to zero."""
    rise = max(1.0, config.warmup * steps)
    if step < rise:
        return config.learning_rate * (step + 1) / (rise + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))
