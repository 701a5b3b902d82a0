"""Covers a part of clean faces, and measures what that does to accuracy and to where attention goes.

B faces, R regions, C channels, S aligned side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ran_model.align import FER_TEMPLATE
from ran_model.data import FaceSet
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork

Box = tuple[float, float, float, float]

MARGIN = 0.13  # of the side around landmarks: eyes with their brows, an open mouth; the nose's tip stays free


def _band(points: Sequence[tuple[float, float]]) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs) - MARGIN, min(ys) - MARGIN, max(xs) + MARGIN, max(ys) + MARGIN


_HALVES: dict[str, Box] = {
    "left half": (0.0, 0.0, 0.5, 1.0),
    "right half": (0.5, 0.0, 1.0, 1.0),
    "upper half": (0.0, 0.0, 1.0, 0.5),
    "lower half": (0.0, 0.5, 1.0, 1.0),
}


def cover_boxes(template: Sequence[tuple[float, float]]) -> dict[str, Box]:
    """What is painted, by its name, on faces that are aligned to this template (five landmarks as fractions of the
    square, each left one first): x0, y0, x1, y1 as fractions. Left is left in the picture."""
    bands = {"nothing": (0.0, 0.0, 0.0, 0.0), "eyes": _band(template[:2]), "mouth": _band(template[3:])}
    return bands | _HALVES


COVERS = tuple(cover_boxes(FER_TEMPLATE))


@dataclass(frozen=True, kw_only=True)
class CoverResult:
    """What one cover does to n faces. accuracy: share of right answers. attention_R: mean over faces, per region."""

    cover: str
    n: int
    accuracy: float
    attention_R: tuple[float, ...]
    regions: tuple[str, ...]


def cover(
    faces_BCSS: Tensor, name: str, template: Sequence[tuple[float, float]] = FER_TEMPLATE, shade: int = 128
) -> Tensor:
    """A copy of faces (uint8) that are aligned to the template, with one of COVERS painted in this shade. Raises
    ValueError for another name."""
    if name not in COVERS:
        raise ValueError(f"cover is {name!r}: it must be one of {', '.join(COVERS)}")
    height, width = faces_BCSS.shape[-2:]
    x0, y0, x1, y1 = (min(max(side, 0.0), 1.0) for side in cover_boxes(template)[name])
    covered = faces_BCSS.clone()
    covered[..., round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = shade
    return covered


@torch.inference_mode()
def probe(
    network: RegionAttentionNetwork | SinglePassNetwork,
    faces: FaceSet,
    *,
    batch_size: int,
    covers: Sequence[str] = COVERS,
) -> list[CoverResult]:
    """One result per cover, in this order. A single-pass network sees the whole face, and its attention is (1,).

    Raises ValueError for no faces, and an unknown cover.
    """
    if not len(faces):
        raise ValueError("there are no faces to cover")
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    regions = network.config.regions
    boxes_BR4 = faces.boxes(network.config)
    if isinstance(network, SinglePassNetwork):
        regions, boxes_BR4 = regions[:1], boxes_BR4[:1, :1]
    results = []
    for name in covers:
        right, attention_R = 0, torch.zeros(len(regions), dtype=torch.float64)
        for start in range(0, len(faces), batch_size):
            rows = slice(start, start + batch_size)
            covered_BCSS = cover(faces.faces_BCSS[rows], name, network.config.template)
            output = network(covered_BCSS.to(device), boxes_BR4[rows] if len(boxes_BR4) > 1 else boxes_BR4)
            right += int((output.logits_BK.argmax(dim=1).cpu() == faces.labels_B[rows].cpu()).sum())
            attention_R += output.attention_BR.double().sum(dim=0).cpu()
        mean_R = tuple((attention_R / len(faces)).tolist())
        results.append(
            CoverResult(cover=name, n=len(faces), accuracy=right / len(faces), attention_R=mean_R, regions=regions)
        )
    network.train(was_training)
    return results
