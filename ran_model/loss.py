"""What a region attention network is trained on: cross-entropy with label distributions, and the region-biased loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def region_biased_loss(self_attention_BR: Tensor, margin: float) -> Tensor:
    """Mean over faces of max(0, α − (μ_max − μ₀)): some crop must outweigh the whole face by the margin α.

    Region 0 is the whole face, and μ_max the largest weight of the others. Source: Wang et al., TIP 2020, region-biased
    loss.
    """
    whole_B, best_crop_B = self_attention_BR[:, 0], self_attention_BR[:, 1:].amax(dim=1)
    return F.relu(margin - (best_crop_B - whole_B)).mean()


def soft_cross_entropy(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Mean cross-entropy with label distributions (each row sums to 1)."""
    return F.cross_entropy(logits_BK.float(), targets_BK)
