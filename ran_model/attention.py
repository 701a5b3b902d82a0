"""Self-attention and relation-attention over a face's regions (Wang et al., TIP 2020, section III).

B faces, R regions, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Attended(NamedTuple):
    """features_BP: the face's features (P is 2·D with relation-attention, else D). self_attention_BR: μ.
    attention_BR: the final weight of each region, μ·ν or μ, normalised to sum 1."""

    features_BP: Tensor
    self_attention_BR: Tensor
    attention_BR: Tensor


class RegionAttention(nn.Module):
    """μᵢ = σ(q₀ᵀFᵢ); F_m = Σ μᵢFᵢ / Σ μᵢ; νᵢ = σ(q₁ᵀ[Fᵢ : F_m]); P = Σ μᵢνᵢ[Fᵢ : F_m] / Σ μᵢνᵢ.

    norm "authors" takes a softmax over regions of each sigmoid, as the released code does. Without self-attention μ is
    1 everywhere. Computed in float32: the sums are short, and their differences are what an analyst reads.
    """

    def __init__(
        self, features: int, *, norm: str = "paper", relation: bool = True, self_attention: bool = True
    ) -> None:
        super().__init__()
        self.norm = norm
        self.self_attention = nn.Linear(features, 1) if self_attention else None
        self.relation_attention = nn.Linear(2 * features, 1) if relation else None

    def forward(self, features_BRD: Tensor) -> Attended:
        """Region features to the face's features and the regions' weights."""
        with torch.autocast(features_BRD.device.type, enabled=False):
            features_BRD = features_BRD.float()
            mu_BR = torch.ones_like(features_BRD[..., 0])
            if self.self_attention is not None:
                mu_BR = self._normalised(self.self_attention(features_BRD))
            mean_BD = _weighted_mean(features_BRD, mu_BR)
            if self.relation_attention is None:
                return Attended(mean_BD, mu_BR, mu_BR / mu_BR.sum(dim=1, keepdim=True))
            joined_BRP = torch.cat([features_BRD, mean_BD[:, None].expand_as(features_BRD)], dim=-1)
            weight_BR = mu_BR * self._normalised(self.relation_attention(joined_BRP))
            return Attended(
                _weighted_mean(joined_BRP, weight_BR), mu_BR, weight_BR / weight_BR.sum(dim=1, keepdim=True)
            )

    def _normalised(self, scores_BR1: Tensor) -> Tensor:
        weights_BR = scores_BR1.squeeze(-1).sigmoid()
        return weights_BR.softmax(dim=1) if self.norm == "authors" else weights_BR


def _weighted_mean(features_BRD: Tensor, weights_BR: Tensor) -> Tensor:
    total_BD = torch.einsum("br,brd->bd", weights_BR, features_BRD)
    return total_BD / weights_BR.sum(dim=1, keepdim=True)
