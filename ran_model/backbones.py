"""The trunks that a region attention network can stand on: pictures to feature vectors.

N pictures, C channels, I side in pixels, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ran_model.config import ModelConfig
from ran_model.inception_resnet import FEATURES, InceptionResnetV1
from ran_model.resnet import ResNet


def build_backbone(name: str, channels: int) -> tuple[nn.Module, int]:
    """A trunk with random weights, (N, C, I, I) to (N, D), and D. `name` is one of `ran_model.config.BACKBONES`."""
    if name == "inception_resnet_v1":
        return InceptionResnetV1(channels), FEATURES
    if name == "vgg16":
        from torchvision.models import vgg16  # slow to import, and few want this trunk

        vgg = vgg16(weights=None)
        if channels != 3:
            vgg.features[0] = nn.Conv2d(channels, 64, kernel_size=3, padding=1)
        features = int(vgg.classifier[6].in_features)
        vgg.classifier[6] = nn.Identity()
        return vgg, features
    resnet = ResNet(name, channels)
    return resnet, resnet.features


def fit_channels(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """A colour checkpoint for a grey trunk: the first convolution summed over red, green and blue, which is what it
    computes on a grey picture. Other tensors, and checkpoints that fit already, stay as they are."""
    fitted = dict(state)
    for name, parameter in backbone.state_dict().items():
        given = fitted.get(name)
        if given is not None and given.ndim == 4 and given.shape[1] == 3 and parameter.shape[1] == 1:
            fitted[name] = given.sum(dim=1, keepdim=True)
    return fitted


def load_trunk(backbone: nn.Module, path: Path) -> None:
    """Starts a trunk from a safetensors file of another network's trunk; layers that it lacks are left out.

    Raises ValueError when the file can't be read, or has not every tensor of the trunk, in its shape.
    """
    backbone.load_state_dict(_fitting(backbone, path))


def check_trunk(path: Path, config: ModelConfig) -> None:
    """Raises ValueError where `load_trunk` would for a network of this configuration, without building it."""
    with torch.device("meta"):  # names and shapes, without memory
        backbone, _ = build_backbone(config.backbone, config.channels)
    _fitting(backbone, path)


def _fitting(backbone: nn.Module, path: Path) -> dict[str, Tensor]:
    """The file's tensors that the trunk has, by name and in its dtypes."""
    mend = "a start is a safetensors file, as `ran-pipeline convert CHECKPOINT --trunk-only -o FILE` writes it"
    try:
        given = safetensors.torch.load_file(path)
    except OSError as error:
        raise ValueError(f"trunk {path} can't be read ({error.strerror or error}): {mend}") from None
    except safetensors.SafetensorError as error:
        raise ValueError(f"trunk {path} is damaged or no safetensors file ({error}): {mend}") from None
    state = fit_channels(given, backbone)
    own = backbone.state_dict()
    missing = sorted(set(own) - set(state))
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} tensors of the trunk, {missing[0]} among them")
    wrong = [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} is {tuple(state[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}")
    return {name: state[name].to(own[name].dtype) for name in own}


def has_folded_batch_norm(backbone: nn.Module) -> bool:
    """Whether a trunk that was loaded has BatchNorms of mean 0 and variance 1 alone, as no training leaves them: a
    packager has put their statistics into weights and biases."""
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    return bool(layers) and all(
        bool((layer.running_mean == 0).all()) and bool(((layer.running_var - 1).abs() < 0.01).all())
        for layer in layers
        if layer.running_mean is not None and layer.running_var is not None
    )


@torch.no_grad()
def renew_batch_norm(backbone: nn.Module, pictures_NCII: Tensor) -> None:
    """Gives every BatchNorm the statistics of real pictures while the trunk keeps computing what it computes.

    A network with folded ones (see `has_folded_batch_norm`) would change beyond recognition in the first training step,
    which normalises by the batch.
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def remember(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
        seen[layer] = (mean, variance)

    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(remember) for layer in layers]
    was_training = backbone.training
    backbone.eval()(pictures_NCII)
    backbone.train(was_training)
    for hook in hooks:
        hook.remove()
    for layer, (mean, variance) in seen.items():
        assert isinstance(layer, nn.BatchNorm2d)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        slope = layer.weight / (layer.running_var + layer.eps).sqrt()
        layer.bias.add_(slope * (mean - layer.running_mean))
        layer.weight.copy_(slope * (variance + layer.eps).sqrt())
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)


@torch.no_grad()
def fold_batch_norm(module: nn.Module) -> None:
    """Puts every BatchNorm that follows a convolution into its weights: the same answers, without a pass over the maps.

    For trunks that only answer. Names pair them: conv1 and bn1, conv and bn, or neighbours in a sequence.
    """
    layers = dict(module.named_children())
    names = list(layers)
    for index, name in enumerate(names):
        follower = names[index + 1] if isinstance(module, nn.Sequential) and index + 1 < len(names) else None
        partner = name.replace("conv", "bn") if name.startswith("conv") else follower
        conv, norm = layers[name], layers.get(partner or "")
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm).to(memory_format=torch.channels_last))
            setattr(module, str(partner), nn.Identity())
        else:
            fold_batch_norm(conv)
