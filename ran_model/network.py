"""The region attention network, and the single-pass classifier that it is compared with.

B faces, R regions, C channels, S aligned side, I input side, D features, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ran_model.attention import RegionAttention
from ran_model.backbones import build_backbone
from ran_model.config import ModelConfig
from ran_model.crops import as_grey, crop_regions


class RanOutput(NamedTuple):
    """logits_BK; self_attention_BR: μ; attention_BR: μ·ν normalised to sum 1. All float32."""

    logits_BK: Tensor
    self_attention_BR: Tensor
    attention_BR: Tensor


class Trunk(nn.Module):
    """Aligned faces to region features: normalised, cut, and through the backbone with all regions in one batch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        backbone, self.features = build_backbone(config.backbone, config.channels)
        self.backbone = backbone.to(memory_format=torch.channels_last)

    def forward(self, faces_BCSS: Tensor, boxes_BR4: Tensor) -> Tensor:
        """Aligned faces (uint8, or float in 0-1; RGB or one grey channel) and boxes to features (B, R, D)."""
        return self.features_of(self.crops(faces_BCSS, boxes_BR4))

    def features_of(self, crops_BRCII: Tensor) -> Tensor:
        """Features (B, R, D) of what `crops` returns."""
        batch = crops_BRCII.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features_BRD: Tensor = self.backbone(batch).unflatten(0, crops_BRCII.shape[:2])
        return features_BRD

    def crops(self, faces_BCSS: Tensor, boxes_BR4: Tensor) -> Tensor:
        """What the backbone sees of faces, (B, R, C, I, I): in the model's colour, dtype and range. See `forward`."""
        pixels = self._scaled(faces_BCSS)
        coloured = as_grey(pixels) if self.config.colour == "grey" else pixels
        return crop_regions(self.normalised(coloured), boxes_BR4, self.config.input_size)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels in the model's colour, uint8 or float in 0-1, in the model's range and the trunk's dtype."""
        return (self._scaled(pixels) - self.config.mean) / self.config.std

    def _scaled(self, pixels: Tensor) -> Tensor:
        dtype = next(self.backbone.parameters()).dtype
        return pixels.to(dtype) / 255 if pixels.dtype == torch.uint8 else pixels.to(dtype)


class RegionAttentionNetwork(nn.Module):
    """Six (or R) trunk passes per face, weighed by region attention. Wang et al., TIP 2020."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config)
        features = self.trunk.features
        self.attention = RegionAttention(
            features,
            norm=config.attention_norm,
            relation=config.relation_attention,
            self_attention=config.self_attention,
        )
        self.classifier = nn.Linear(features * (2 if config.relation_attention else 1), len(config.classes))

    def forward(self, faces_BCSS: Tensor, boxes_BR4: Tensor) -> RanOutput:
        """See `Trunk.forward` for what goes in."""
        return self._answer(self.trunk(faces_BCSS, boxes_BR4))

    def forward_crops(self, crops_BRCII: Tensor) -> RanOutput:
        """The answer to what `ran_model.crops.crop_pixels` has cut already."""
        return self._answer(self.trunk.features_of(self.trunk.normalised(crops_BRCII)))

    def _answer(self, features_BRD: Tensor) -> RanOutput:
        attended = self.attention(features_BRD)
        with torch.autocast(features_BRD.device.type, enabled=False):
            logits_BK = self.classifier(attended.features_BP)
        return RanOutput(logits_BK, attended.self_attention_BR, attended.attention_BR)

    def to_dtype(self, dtype: torch.dtype) -> RegionAttentionNetwork:
        """The trunk in half precision; attention and classifier stay in float32, where they cost nothing."""
        self.trunk.to(dtype=dtype)
        return self


class SinglePassNetwork(nn.Module):
    """The same trunk and a linear layer on one region: RAN's start, and what says whether six passes pay."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config)
        self.classifier = nn.Linear(self.trunk.features, len(config.classes))

    def forward(self, faces_BCSS: Tensor, boxes_B14: Tensor) -> RanOutput:
        """One box per face. The attention is 1 for that region."""
        features_BD = self.trunk(faces_BCSS, boxes_B14).squeeze(1)
        with torch.autocast(faces_BCSS.device.type, enabled=False):
            logits_BK = self.classifier(features_BD.float())
        ones_B1 = torch.ones_like(logits_BK[:, :1])
        return RanOutput(logits_BK, ones_B1, ones_B1)


def ran_from_single_pass(single: SinglePassNetwork, config: ModelConfig | None = None) -> RegionAttentionNetwork:
    """A RAN that starts as the mean of the single-pass answers over its regions: equal attention, the same trunk.

    config: where its regions or attention differ from the single pass's; backbone, colour and classes must not.
    """
    network = RegionAttentionNetwork(config or single.config)
    network.trunk.load_state_dict(single.trunk.state_dict())
    with torch.no_grad():
        halves = 2 if network.config.relation_attention else 1
        network.classifier.weight.copy_(single.classifier.weight.repeat(1, halves) / halves)
        network.classifier.bias.copy_(single.classifier.bias)
        for layer in (network.attention.self_attention, network.attention.relation_attention):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
    return network


def single_pass_from_ran(network: RegionAttentionNetwork, config: ModelConfig | None = None) -> SinglePassNetwork:
    """What a RAN answers when it looks at one region only: with a single Fᵢ, F_m is Fᵢ too, and the classifier's two
    halves add up. The way back of `ran_from_single_pass`."""
    single = SinglePassNetwork(config or network.config)
    single.trunk.load_state_dict(network.trunk.state_dict())
    with torch.no_grad():
        halves_KHD = network.classifier.weight.view(len(network.config.classes), -1, network.trunk.features)
        single.classifier.weight.copy_(halves_KHD.sum(dim=1))
        single.classifier.bias.copy_(network.classifier.bias)
    return single
