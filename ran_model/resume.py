"""All that a killed training run needs to go on at the same step, as one safetensors file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TrainingState:
    """mean: the running mean of the weights. steps: done, over all epochs. losses, seconds: of the epoch under way."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    mean: dict[str, Tensor]
    steps: int = 0
    losses: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0
    #: What the weights depend on beside the settings, by name, such as the number of processes. A checkpoint of other
    #: circumstances is taken up all the same, and told.
    circumstances: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Replaces the file whole, so that a kill leaves the last one."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.mean.items()}
        for name, parameter in self.network.named_parameters():
            tensors |= {f"optimizer/{key}/{name}": tensor for key, tensor in self.optimizer.state[parameter].items()}
        if self.losses:
            tensors["losses"] = torch.stack(self.losses)
        copies = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
        unfinished = path.with_suffix(".unfinished")
        safetensors.torch.save_file(
            copies, unfinished, {"steps": str(self.steps), "seconds": str(self.seconds)} | self._told()
        )
        unfinished.replace(path)

    def _told(self) -> dict[str, str]:
        return {f"circumstances.{name}": value for name, value in self.circumstances.items()}

    def restore(self, path: Path) -> None:
        """Takes up what `save` left; nothing where there is no file. Warns where it was left in other circumstances."""
        if not path.exists():
            return
        with safetensors.safe_open(path, framework="pt") as file:
            told = file.metadata()
        tensors = safetensors.torch.load_file(path)
        self.steps, self.seconds = int(told["steps"]), float(told["seconds"])
        parameters = dict(self.network.named_parameters())
        device = next(iter(parameters.values())).device
        self.losses = list(tensors.pop("losses", torch.empty(0)).to(device))
        weights = {n.removeprefix("weights."): t for n, t in tensors.items() if n.startswith("weights.")}
        self.network.load_state_dict(weights)
        for name in self.mean:
            self.mean[name].copy_(tensors[f"mean.{name}"])
        for full_name, tensor in tensors.items():
            if full_name.startswith("optimizer/"):
                _, key, name = full_name.split("/")
                parameter = parameters[name]
                if tensor.shape == parameter.shape:  # a moment: steps are slow where its order of axes is another
                    tensor = torch.empty_like(parameter).copy_(tensor)
                self.optimizer.state[parameter][key] = tensor  # AdamW's count of steps stays on the CPU
        log.info("going on after step %d", self.steps)
        for name, value in self.circumstances.items():
            before = told.get(f"circumstances.{name}", value)
            if before != value:
                log.warning(
                    "%s: begun with %s %s, going on with %s: the weights will not be those of an uninterrupted run",
                    path.parent, name, before, value,
                )  # fmt: skip
