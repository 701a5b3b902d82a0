"""Cuts all regions of all faces in one batched operation, on whatever device the faces are on.

B faces, R regions, C channels, S aligned side, I input side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def crop_regions(faces_BCSS: Tensor, boxes_BR4: Tensor, size: int) -> Tensor:
    """Regions of float faces, resampled to `size` pixels: (B, R, C, size, size), in the faces' dtype.

    boxes_BR4: fractions x0, y0, x1, y1; B may be 1 where all faces share their boxes. The resampling is separable and
    anti-aliased (a triangle filter as wide as an output pixel, at least one input pixel): two matrix products. On boxes
    along pixel edges it equals cutting and torch's `interpolate(mode="bilinear", antialias=True)`.
    """
    side = faces_BCSS.shape[-1]
    boxes_BR4 = boxes_BR4.to(device=faces_BCSS.device, dtype=torch.float32)
    columns_BRIS = _filter(boxes_BR4[..., 0], boxes_BR4[..., 2], side, size).to(faces_BCSS.dtype)
    rows_BRIS = _filter(boxes_BR4[..., 1], boxes_BR4[..., 3], side, size).to(faces_BCSS.dtype)
    narrowed_BRCSI = faces_BCSS.unsqueeze(1) @ columns_BRIS.unsqueeze(2).mT
    return rows_BRIS.unsqueeze(2) @ narrowed_BRCSI


def _filter(begin_BR: Tensor, end_BR: Tensor, side: int, size: int) -> Tensor:
    """Weights of each input pixel in each output pixel along one axis: (B, R, size, side), rows summing to 1."""
    begin, end = begin_BR[..., None, None] * side, end_BR[..., None, None] * side
    scale = (end - begin) / size
    out = torch.arange(size, device=begin.device, dtype=torch.float32)[:, None] + 0.5
    pixel = torch.arange(side, device=begin.device, dtype=torch.float32) + 0.5
    weights = (1 - (pixel - (begin + out * scale)).abs() / scale.clamp(min=1.0)).clamp(min=0)
    # No pixel from beyond the box takes part, as if the region had been cut out first.
    inside = (pixel > begin - 0.5 + 1e-3) & (pixel < end + 0.5 - 1e-3)
    weights = weights * inside
    return weights / weights.sum(dim=-1, keepdim=True)
