"""Cuts all regions of all faces in one batched operation, on whatever device the faces are on.

Normalising pixels and cutting them are both linear, and weights of a resampled pixel sum to 1: either may come first.

B faces, R regions, C channels, S aligned side, I input side.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV's grey


def as_grey(pixels_BCSS: Tensor) -> Tensor:
    """Float RGB to one channel (B, 1, S, S); what has one already stays as it is."""
    if pixels_BCSS.shape[1] == 1:
        return pixels_BCSS
    return torch.einsum("bchw,c->bhw", pixels_BCSS, pixels_BCSS.new_tensor(LUMA)).unsqueeze(1)


def crop_pixels(faces_BCSS: Tensor, boxes_BR4: Tensor, size: int, *, colour: str) -> Tensor:
    """Regions of uint8 faces in a model's `colour` as uint8 again, rounded: (B, R, C, size, size). See `crop_regions`.

    To travel: a byte per pixel, where normalised ones take four.
    """
    pixels = faces_BCSS.float()
    crops = crop_regions(as_grey(pixels) if colour == "grey" else pixels, boxes_BR4, size)
    return crops.round_().clamp_(0, 255).to(torch.uint8)


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
