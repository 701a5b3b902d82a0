"""Training-time changes to aligned faces, batched on tensors, before the regions are cut: a face's regions agree.

B faces, C channels, S aligned side. Faces are float in 0-1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ran_model.checks import check_number

MIRRORED = (1, 0, 2, 4, 3)  # of `ran_model.regions.LANDMARKS`: which one each becomes in a mirror


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How strongly faces are changed. Angles in degrees, shifts as fractions of the side, chances per face; scale,
    contrast and gamma as logarithms of factors. Raises ValueError for a setting that can't be meant.

    Mirroring swaps left and right: it is done to the whole aligned face, so "top_left" stays the left of what the
    network sees.
    """

    rotation_deg: float = 12.0
    scale: float = 0.12
    shift: float = 0.06
    shear: float = 0.08
    contrast: float = 0.4
    brightness: float = 0.15
    gamma: float = 0.4
    blur_chance: float = 0.15
    downscale_chance: float = 0.1
    occlusion_chance: float = 0.35
    occlusion_sides: tuple[float, float] = (0.15, 0.5)

    def __post_init__(self) -> None:
        check_number("rotation_deg", self.rotation_deg, 0, 180)
        for name in ("scale", "shear", "contrast", "gamma"):
            check_number(name, getattr(self, name), 0, 3)
        for name in ("shift", "brightness", "blur_chance", "downscale_chance", "occlusion_chance"):
            check_number(name, getattr(self, name), 0, 1)
        for side in self.occlusion_sides:
            check_number("occlusion_sides", side, 0, 1)
        if len(self.occlusion_sides) != 2 or self.occlusion_sides[0] > self.occlusion_sides[1]:
            raise ValueError(
                f"occlusion_sides is {list(self.occlusion_sides)}: it must be the shortest and the longest side"
            )

    def __call__(self, faces_BCSS: Tensor, generator: Generator) -> Tensor:
        """Changed copies, clamped to 0-1. The generator lives on the device of the faces."""
        return self.with_moves(faces_BCSS, generator)[0]

    def with_moves(self, faces_BCSS: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Changed copies, and how each was moved, for `moved_landmarks`: (B, 2, 3), from a changed face's points to the
        given one's, both from -1 to 1."""
        moves_B23 = self._moves(len(faces_BCSS), generator)
        grid = F.affine_grid(moves_B23, list(faces_BCSS.shape), align_corners=False)
        faces = F.grid_sample(faces_BCSS, grid, padding_mode="border", align_corners=False)
        faces = self._lit(faces, generator)
        faces = torch.where(_chance(faces, self.blur_chance, generator), _blurred(faces), faces)
        faces = self._downscaled(faces, generator)
        return self._occluded(faces, generator).clamp(0, 1), moves_B23

    def _moves(self, count: int, generator: Generator) -> Tensor:
        """Mirroring, rotation, scale, shear and shift in one matrix each, so that a face is sampled once."""
        angle = _spread(count, math.radians(self.rotation_deg), generator)
        scale = torch.exp(_spread(count, self.scale, generator))
        mirror = torch.where(_uniform(generator, count) < 0.5, -1.0, 1.0)
        shear = _spread(count, self.shear, generator)
        cosine, sine = angle.cos() * scale, angle.sin() * scale
        return torch.stack(
            [
                torch.stack(
                    [mirror * cosine, mirror * (shear - sine), _spread(count, 2 * self.shift, generator)], dim=1
                ),
                torch.stack([sine, cosine, _spread(count, 2 * self.shift, generator)], dim=1),
            ],
            dim=1,
        )

    def _downscaled(self, faces: Tensor, generator: Generator) -> Tensor:
        """Halved and enlarged again, as a small or strongly compressed face in a video is."""
        if self.downscale_chance == 0:
            return faces
        small = F.interpolate(faces, scale_factor=0.5, mode="bilinear", antialias=True)
        coarse = F.interpolate(small, size=faces.shape[-2:], mode="bilinear", align_corners=False)
        return torch.where(_chance(faces, self.downscale_chance, generator), coarse, faces)

    def _lit(self, faces: Tensor, generator: Generator) -> Tensor:
        gamma = torch.exp(_spread(len(faces), self.gamma, generator))[:, None, None, None]
        contrast = torch.exp(_spread(len(faces), self.contrast, generator))[:, None, None, None]
        shift = _spread(len(faces), self.brightness, generator)[:, None, None, None]
        mean = faces.mean(dim=(2, 3), keepdim=True)
        return ((faces - mean) * contrast + mean + shift).clamp(1e-3, 1) ** gamma

    def _occluded(self, faces: Tensor, generator: Generator) -> Tensor:
        """A rectangle of one shade, or of noise, over part of the face."""
        count, side = len(faces), faces.shape[-1]
        low, high = self.occlusion_sides
        extent = low + (high - low) * _uniform(generator, count, 2)
        begin = _uniform(generator, count, 2) * (1 - extent)
        position = (torch.arange(side, device=faces.device) + 0.5) / side
        within = (position >= begin[..., None]) & (
            position < (begin + extent)[..., None]
        )  # (B, 2, S): rows and columns
        covered = (within[:, 0, :, None] & within[:, 1, None, :])[:, None]
        shade = _uniform(generator, count, 1, 1, 1)
        noise = _uniform(generator, count, 1, 1, 1) * 0.3
        cover = shade + noise * torch.randn(faces[:, :1].shape, generator=generator, device=generator.device)
        return torch.where(covered & _chance(faces, self.occlusion_chance, generator), cover, faces)


def _blurred(faces: Tensor) -> Tensor:
    """By a box of a 32nd of the side, and at least three pixels: the same blur of the face at every aligned size."""
    reach = max(1, faces.shape[-1] // 64)
    return F.avg_pool2d(F.pad(faces, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)


def moved_landmarks(landmarks_B52: Tensor, moves_B23: Tensor) -> Tensor:
    """Where landmarks lie in faces that `Augmentation.with_moves` changed: fractions of the square, (B, 5, 2).

    Left stays what is left in the picture: of a mirrored face the right eye is the left one.
    """
    linear_B22, shift_B2 = moves_B23[:, :, :2], moves_B23[:, :, 2]
    points_B52 = torch.linalg.solve(linear_B22, (2 * landmarks_B52 - 1 - shift_B2[:, None]).mT).mT
    swapped_B52 = points_B52[:, list(MIRRORED)]
    is_mirrored_B = torch.linalg.det(linear_B22) < 0
    return (torch.where(is_mirrored_B[:, None, None], swapped_B52, points_B52) + 1) / 2


def _uniform(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _spread(count: int, width: float, generator: Generator) -> Tensor:
    """Uniform in ±width."""
    return (_uniform(generator, count) * 2 - 1) * width


def _chance(faces: Tensor, chance: float, generator: Generator) -> Tensor:
    return _uniform(generator, len(faces), 1, 1, 1) < chance
