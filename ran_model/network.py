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
from ran_model.crops import crop_regions

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV's grey


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
        crops_BRCII = self.crops(faces_BCSS, boxes_BR4)
        batch = crops_BRCII.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features_BRD: Tensor = self.backbone(batch).unflatten(0, crops_BRCII.shape[:2])
        return features_BRD

    def crops(self, faces_BCSS: Tensor, boxes_BR4: Tensor) -> Tensor:
        """What the backbone sees of faces, (B, R, C, I, I): in the model's colour, dtype and range. See `forward`."""
        return crop_regions(self._normalised(faces_BCSS), boxes_BR4, self.config.input_size)

    def _normalised(self, faces_BCSS: Tensor) -> Tensor:
        dtype = next(self.backbone.parameters()).dtype
        pixels = faces_BCSS.to(dtype) / 255 if faces_BCSS.dtype == torch.uint8 else faces_BCSS.to(dtype)
        if self.config.colour == "grey" and pixels.shape[1] == 3:
            pixels = torch.einsum("bchw,c->bhw", pixels, pixels.new_tensor(LUMA)).unsqueeze(1)
        return (pixels - self.config.mean) / self.config.std


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
        attended = self.attention(self.trunk(faces_BCSS, boxes_BR4))
        with torch.autocast(faces_BCSS.device.type, enabled=False):
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
