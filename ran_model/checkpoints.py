"""Checkpoints of other people's code, read without running code and recognised by their tensors.

Recognised: the RAN authors' network, torchvision's ResNet-18 and -50, facenet-pytorch's InceptionResnetV1.
D features, K classes.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ran_model.backbones import build_backbone

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "trunk.")
HEAD_LAYERS = ("fc", "alpha", "beta", "feature", "classifier", "last_linear", "last_bn", "logits")
RAN, SINGLE_PASS, TRUNK = "ran", "single_pass", "trunk"
START_ONLY = "it can serve as a start for training: write its trunk with --trunk-only"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A recognised checkpoint, in float32.

    kind: RAN (the authors' network), SINGLE_PASS (a trunk and one linear layer), TRUNK. channels: 1 or 3.
    trunk: all tensors of the backbone, by our names, which are torchvision's and facenet-pytorch's. head: the tensors
    of the layers above it, by theirs.
    """

    path: Path
    sha256: str
    kind: str
    backbone: str
    channels: int
    trunk: dict[str, Tensor]
    head: dict[str, Tensor]

    @property
    def class_count(self) -> int | None:
        """K, where there is a classifier on these features."""
        return None if self.kind == TRUNK else self.head["fc.weight"].shape[0]

    @property
    def description(self) -> str:
        """What was recognised, in words."""
        what = {
            RAN: f"region attention network of the RAN authors, {self.backbone}, {self.class_count} classes",
            SINGLE_PASS: f"{self.backbone} classifier, {self.class_count} classes",
            TRUNK: f"{self.backbone} trunk",
        }[self.kind]
        return f"{what}, {'colour' if self.channels == 3 else 'one channel'}"


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a .safetensors or PyTorch file and recognises its network.

    Raises ValueError for a file that is damaged or needs code to be run, or that holds another network; the message
    names the first tensor that is missing, unexpected or of another shape.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    state = _stripped(_state_dict(_loaded(path), path), path)
    backbone, channels = _recognised(state, path)
    with torch.device("meta"):  # names and shapes, without memory
        layers, features = build_backbone(backbone, channels)
    own = layers.state_dict()
    trunk = {}
    for name, parameter in own.items():
        if name not in state and name.endswith(".num_batches_tracked"):  # PyTorch before 0.4.1 had no such counter
            trunk[name] = torch.zeros((), dtype=parameter.dtype)
            continue
        if name not in state:
            raise ValueError(f"{path} looks like {backbone}, but lacks {name}")
        _check_shape(path, name, state[name], tuple(parameter.shape))
        trunk[name] = state[name].to(parameter.dtype)
    head = {name: tensor.float() for name, tensor in state.items() if name not in own}
    for name in head:
        if name.partition(".")[0] not in HEAD_LAYERS:
            raise ValueError(f"{path} looks like {backbone}, but has the unexpected {name}")
    for name, tensor in (trunk | head).items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: {name} has values that are not finite; its training may have diverged")
    kind = _head_kind(head, features, path)
    return Checkpoint(path=path, sha256=sha256, kind=kind, backbone=backbone, channels=channels, trunk=trunk, head=head)


def save_trunk(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the trunk as a safetensors file that `ran_model.backbones.load_trunk` reads, in full precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in checkpoint.trunk.items()}
    origin = {"backbone": checkpoint.backbone, "source": checkpoint.path.name, "source_sha256": checkpoint.sha256}
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(safetensors.torch.save(tensors, metadata=origin))
    unfinished.replace(path)


def _loaded(path: Path) -> Any:
    """The file's content. A pickle can run code when it is opened, so only plain tensors and containers are let in."""
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles of other versions, which are refused below
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        needs = re.search(r"(?:GLOBAL|class|function) '?([\w.]+)'? (?:was not|is not|whose)", str(error))
        what = f"needs {needs[1]} to be opened" if needs else "is no PyTorch checkpoint, or holds more than tensors"
        raise ValueError(
            f"{path} {what}, and was not opened: a pickle can run any code; where you trust it, save its state_dict "
            "alone, which holds only tensors"
        ) from error
    except Exception as error:  # a damaged file fails in any way
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise ValueError(f"{path} is damaged or no PyTorch checkpoint ({type(error).__name__}: {reason})") from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Names and tensors, out of the dictionary that training scripts wrap around them."""
    while isinstance(content, Mapping):
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no state_dict, but a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path} holds no state_dict: {name!r} is a {type(value).__name__}, not a tensor")
    return dict(content)


def _stripped(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without the prefixes that wrappers (DataParallel, Lightning, a larger module) give to all layers of the trunk."""
    while True:
        body = [name for name in state if name.partition(".")[0] not in HEAD_LAYERS]
        prefix = next((prefix for prefix in PREFIXES if body and all(name.startswith(prefix) for name in body)), None)
        if prefix is None:
            return state
        stripped: dict[str, Tensor] = {}
        for name, tensor in state.items():
            short = name.removeprefix(prefix)
            if short in stripped:
                raise ValueError(f"{path} has {short} twice, with and without {prefix!r}: it is not clear which counts")
            stripped[short] = tensor
        state = stripped


def _recognised(state: Mapping[str, Tensor], path: Path) -> tuple[str, int]:
    """The backbone's name and its channels."""
    if "conv2d_1a.conv.weight" in state:
        backbone, first = "inception_resnet_v1", state["conv2d_1a.conv.weight"]
    elif "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        backbone = "resnet50" if "layer1.0.conv3.weight" in state else "resnet18"
        first = state["conv1.weight"]
    else:
        raise ValueError(
            f"{path} is not recognised; its first tensor is {next(iter(state))}. Known are the RAN authors' network, "
            "torchvision's ResNet-18 and ResNet-50, and facenet-pytorch's InceptionResnetV1"
        )
    if first.ndim != 4 or first.shape[1] not in (1, 3):
        raise ValueError(f"{path}: the first convolution is {tuple(first.shape)}; it must take 1 or 3 channels")
    return backbone, first.shape[1]


def _head_kind(head: Mapping[str, Tensor], features: int, path: Path) -> str:
    """What the layers above the trunk make of it: RAN, SINGLE_PASS or TRUNK."""
    layers = {name.partition(".")[0] for name in head}
    if layers & {"alpha", "beta"}:
        weights = {"alpha.0": (1, features), "beta.0": (1, 2 * features), "fc": (-1, 2 * features)}
        kind, what = RAN, "the RAN authors' network"
    elif layers == {"fc"}:
        weights = {"fc": (-1, features)}
        kind, what = SINGLE_PASS, "a classifier on one picture"
    else:
        return TRUNK
    expected = dict(_linear_shapes(weights, head))
    for name, shape in expected.items():
        if name not in head:
            raise ValueError(f"{path} looks like {what}, but lacks {name}")
        _check_shape(path, name, head[name], shape)
    for name in head:
        if name not in expected:
            raise ValueError(f"{path} looks like {what}, but has the unexpected {name}")
    return kind


def _linear_shapes(
    weights: Mapping[str, tuple[int, int]], head: Mapping[str, Tensor]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of linear layers; outputs of -1 are as many as the layer has."""
    for layer, (outputs, inputs) in weights.items():
        given = head.get(f"{layer}.weight")
        if outputs < 0:
            outputs = given.shape[0] if given is not None and given.ndim else 1
        yield f"{layer}.weight", (outputs, inputs)
        yield f"{layer}.bias", (outputs,)


def _check_shape(path: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{path}: {name} is {tuple(tensor.shape)}, not {shape}")
