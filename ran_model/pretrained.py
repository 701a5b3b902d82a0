"""Model directories: config.json, model.safetensors and README.md (the model card). Never a pickle.

Weights are stored in half precision, and computed with in float32 on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from ran_model.backbones import fold_batch_norm
from ran_model.config import ModelConfig
from ran_model.model_files import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, default_model_dir, model_id, read_model_bytes
from ran_model.network import RanOutput, RegionAttentionNetwork, SinglePassNetwork, single_pass_from_ran

__all__ = [
    "LoadedModel",
    "default_model_dir",
    "load_model",
    "load_model_bytes",
    "load_single_pass",
    "model_id",
    "read_model_bytes",
    "save_model",
    "save_single_pass",
    "single_pass_of_model",
]

Float = NDArray[np.float32]


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to answer. model_id: 12 hex, see `model_id`."""

    config: ModelConfig
    network: RegionAttentionNetwork
    model_id: str
    device: str

    @torch.inference_mode()
    def predict(self, faces_NHWC: NDArray[np.uint8], boxes_NR4: Float) -> tuple[Float, Float, Float]:
        """Aligned faces and boxes to probabilities (N, K), self-attention μ (N, R) and attention (N, R), float32.

        faces_NHWC: uint8 RGB, `aligned_size` square. One forward pass; the caller chooses how many faces share it.
        Columns are in the order of `config.classes` and `config.regions`.
        """
        faces = torch.from_numpy(np.ascontiguousarray(faces_NHWC)).to(self.device).permute(0, 3, 1, 2)
        if (boxes_NR4 == boxes_NR4[:1]).all():  # fixed regions: their resampling weights are made once for all faces
            boxes_NR4 = boxes_NR4[:1]
        return _arrays(self.network(faces, torch.from_numpy(np.ascontiguousarray(boxes_NR4)).to(self.device)))

    @torch.inference_mode()
    def predict_crops(self, crops_NRCII: NDArray[np.uint8]) -> tuple[Float, Float, Float]:
        """As `predict`, of regions that were cut before (`ran_model.crops.crop_pixels`)."""
        return _arrays(self.network.forward_crops(torch.from_numpy(np.ascontiguousarray(crops_NRCII)).to(self.device)))


def _arrays(output: RanOutput) -> tuple[Float, Float, Float]:
    answers = (output.logits_BK.softmax(dim=1), output.self_attention_BR, output.attention_BR)
    probabilities, self_attention, attention = (answer.float().cpu().numpy() for answer in answers)
    return probabilities, self_attention, attention


def load_model(directory: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> LoadedModel:
    """Loads a model directory, without a network. See `load_model_bytes`."""
    return load_model_bytes(*read_model_bytes(directory), device=device, dtype=dtype)


def load_model_bytes(
    config: bytes, weights: bytes, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> LoadedModel:
    """A model from the bytes of its two files, in evaluation mode on `device`.

    Its network only answers: BatchNorms are folded into the convolutions, a tenth faster on a CPU.
    dtype: of the trunk; None takes float32 on a CPU and float16 on a GPU. Raises ValueError for a config or weights
    that don't fit each other.
    """
    network = _network(config, weights)
    parsed = network.config
    if dtype is None:
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
    network.eval().requires_grad_(False)
    fold_batch_norm(network.trunk.backbone)
    network.to_dtype(dtype).to(device)
    return LoadedModel(config=parsed, network=network, model_id=model_id(parsed, weights), device=device)


def _network(config: bytes, weights: bytes) -> RegionAttentionNetwork:
    network = RegionAttentionNetwork(ModelConfig.from_json(config))
    try:
        state = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{WEIGHTS_FILE} is damaged or no safetensors file: {error}") from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{WEIGHTS_FILE} does not fit {CONFIG_FILE}: {error}") from error
    return network


def single_pass_of_model(directory: str | Path, config: ModelConfig) -> SinglePassNetwork:
    """A start for training: a stored model's trunk and classifier as a single pass of another configuration.

    Raises ValueError where backbone, colour, classes or the normalisation of pixels differ.
    """
    network = _network(*read_model_bytes(directory))
    for name in ("backbone", "colour", "classes", "mean", "std"):
        theirs, ours = getattr(network.config, name), getattr(config, name)
        if theirs != ours:
            raise ValueError(f"{directory} has {name} {theirs}, and model.{name} is {ours}: a start must have the same")
    return single_pass_from_ran(network, config)


def save_model(directory: str | Path, config: ModelConfig, network: RegionAttentionNetwork, card: str) -> str:
    """Writes a model directory and returns its model_id. Existing files are replaced."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = safetensors.torch.save({name: _stored(tensor) for name, tensor in network.state_dict().items()})
    for name, content in ((CONFIG_FILE, config.to_json()), (WEIGHTS_FILE, weights), (CARD_FILE, card.encode())):
        unfinished = directory / (name + ".unfinished")
        unfinished.write_bytes(content)
        unfinished.replace(directory / name)
    return model_id(config, weights)


def save_single_pass(path: Path, network: SinglePassNetwork) -> None:
    """Writes the twin's weights in half precision; its config is that of the RAN."""
    state = {name: _stored(tensor) for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(state, path)


def load_single_pass(path: Path, config: ModelConfig) -> SinglePassNetwork:
    """The twin that `save_single_pass` wrote, in evaluation mode. Raises ValueError when it is not of this config."""
    network = SinglePassNetwork(config)
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no single-pass network of this model: {reason[:300]}") from None
    return network.eval().requires_grad_(False)


def _stored(tensor: Tensor) -> Tensor:
    stored = tensor.detach().cpu().contiguous()
    return stored.half() if stored.is_floating_point() else stored
