"""Checkpoints of other people's code become models of ours: read without running code, recognised, converted.

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

from ran_model.backbones import build_backbone, fit_channels
from ran_model.config import ModelConfig
from ran_model.labels import EXPRESSIONS
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork, ran_from_single_pass
from ran_model.regions import STRATEGIES

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "trunk.")
HEAD_LAYERS = ("fc", "alpha", "beta", "feature", "classifier", "last_linear", "last_bn", "logits")
RAN, SINGLE_PASS, TRUNK = "ran", "single_pass", "trunk"
CONVERTED_REGIONS = ("fixed", "affectnet")
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


def model_from_checkpoint(
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    classes: tuple[str, ...] | None = None,
    attention_norm: str | None = None,
    colour: str | None = None,
    input_size: int = 224,
    mean: float | None = None,
    std: float | None = None,
    regions: str = "fixed",
) -> tuple[ModelConfig, RegionAttentionNetwork]:
    """The configuration and network, in evaluation mode, that answer as the checkpoint does.

    A single-pass classifier becomes the mean of its answers over the regions. classes: in the order of the logits;
    needed unless there are eight (then FERPlus' order) on the fixed regions. attention_norm: None is "authors" for a
    RAN, "paper" else. colour: None follows the first convolution; "grey" of a colour network computes what that
    computes on grey pictures. mean, std: None is 0 and 1 for a RAN, as its authors had; a single pass must say.
    regions: of CONVERTED_REGIONS; their order is free, since all share one attention. Raises ValueError for what does
    not fit together.
    """
    path = checkpoint.path
    if checkpoint.kind == TRUNK:
        raise ValueError(f"{path} is a {checkpoint.description}, without a classifier of expressions; {START_ONLY}")
    if checkpoint.kind == SINGLE_PASS and (mean is None or std is None):
        raise ValueError(
            f"{path} does not say how its pictures were normalised: give --mean and --std of pixels in 0-1 "
            "(0 and 1 if they were left in 0-1)"
        )
    if colour == "rgb" and checkpoint.channels == 1:
        raise ValueError(f"{path} takes one channel: its colour can only be grey")
    if regions not in CONVERTED_REGIONS:
        raise ValueError(f"regions is {regions!r}: it must be one of {', '.join(CONVERTED_REGIONS)}")
    config = ModelConfig(
        name=name or f"ran-{checkpoint.backbone}",
        backbone=checkpoint.backbone,
        colour=colour or ("rgb" if checkpoint.channels == 3 else "grey"),
        input_size=input_size,
        regions=STRATEGIES[regions],
        classes=_classes(checkpoint, classes, regions),
        mean=0.0 if mean is None else mean,
        std=1.0 if std is None else std,
        attention_norm=attention_norm or ("authors" if checkpoint.kind == RAN else "paper"),
    )
    network = _network(checkpoint, config).eval()
    for tensor_name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.half().isfinite().all():
            raise ValueError(
                f"{path}: {tensor_name} has values above {torch.finfo(torch.float16).max:.0f}, and models are stored "
                f"in half precision; {START_ONLY}"
            )
    return config, network


def save_trunk(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the trunk as a safetensors file that `ran_model.backbones.load_trunk` reads, in full precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in checkpoint.trunk.items()}
    origin = {"backbone": checkpoint.backbone, "source": checkpoint.path.name, "source_sha256": checkpoint.sha256}
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(safetensors.torch.save(tensors, metadata=origin))
    unfinished.replace(path)


def write_card(checkpoint: Checkpoint, config: ModelConfig) -> str:
    """The model card of a converted model, Markdown."""
    attention = (
        f"Its attention is the checkpoint's own, in the {config.attention_norm} form."
        if checkpoint.kind == RAN
        else "The checkpoint had no attention: every region weighs the same, and the answer is that of their mean."
    )
    return f"""# {config.name}

Converted by `ran-pipeline convert` from a checkpoint of other code: a {checkpoint.description}.

| | |
|---|---|
| file | `{checkpoint.path.name}` |
| sha256 | `{checkpoint.sha256}` |
| classes, in the order of its logits | {", ".join(config.classes)} |
| regions | {", ".join(config.regions)} |
| input | {config.input_size} px, {config.colour}, (pixels in 0-1 − {config.mean:g}) / {config.std:g} |

{attention} All regions share one attention, so their order does not matter to the weights, which are stored in half
precision.

The order of the classes, the colour and the normalisation are not in the checkpoint. They are what the conversion was
told or assumed: a wrong order gives wrong names without any error.

## Figures

Unknown here. Figures that were published with the checkpoint hold for its authors' alignment of faces, not for this
one. Measure before use, on labelled faces like yours:

    ran-pipeline evaluate --help

## What it estimates

The expression that an annotator would report seeing in a picture. Not what a person feels. The notes on use in the
card of the model that ships with ran-pipeline hold for this one too.

## Licence

The weights belong to whoever made them. Whether their licence, and that of the pictures they were learnt from, allows
your use is for you to check.
"""


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


def _classes(checkpoint: Checkpoint, classes: tuple[str, ...] | None, regions: str) -> tuple[str, ...]:
    """The classes in the order of the logits, given or, where that is safe, assumed."""
    count = checkpoint.class_count
    assert count is not None
    if count > len(EXPRESSIONS):
        raise ValueError(
            f"{checkpoint.path} tells {count} classes apart, and there are {len(EXPRESSIONS)} expressions; {START_ONLY}"
        )
    if classes is not None:
        if len(classes) != count:
            raise ValueError(f"{checkpoint.path} has {count} classes, but {len(classes)} are named")
        return classes
    if count == len(EXPRESSIONS) and regions == "fixed":
        return EXPRESSIONS
    raise ValueError(
        f"{checkpoint.path} has {count} classes, and their order is not in it: name them with --classes, in the order "
        f"of the logits. FERPlus has {','.join(EXPRESSIONS)}; "
        "AffectNet neutral,happiness,sadness,surprise,fear,disgust,anger,contempt; "
        "RAF-DB surprise,fear,disgust,happiness,sadness,anger,neutral"
    )


def _network(checkpoint: Checkpoint, config: ModelConfig) -> RegionAttentionNetwork:
    if checkpoint.kind == SINGLE_PASS:
        single = SinglePassNetwork(config)
        _fill(single, checkpoint, {"classifier": "fc"})
        return ran_from_single_pass(single)
    network = RegionAttentionNetwork(config)
    # Both sides join a region's features first and the mean second, so relation-attention and classifier fit as is.
    layers = {"attention.self_attention": "alpha.0", "attention.relation_attention": "beta.0", "classifier": "fc"}
    _fill(network, checkpoint, layers)
    return network


def _fill(
    network: RegionAttentionNetwork | SinglePassNetwork, checkpoint: Checkpoint, layers: Mapping[str, str]
) -> None:
    """Loads trunk and head. layers: our names of linear layers to the checkpoint's."""
    trunk = fit_channels(checkpoint.trunk, network.trunk.backbone)
    state = {f"trunk.backbone.{name}": tensor for name, tensor in trunk.items()}
    for ours, theirs in layers.items():
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = checkpoint.head[f"{theirs}.{part}"]
    network.load_state_dict(state)
