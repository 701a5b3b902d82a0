"""Augmentation: seeded, bounded, and each change does what its name says."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from ran_model.augment import Augmentation, moved_landmarks

STILL = {
    "rotation_deg": 0.0,
    "scale": 0.0,
    "shift": 0.0,
    "shear": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "gamma": 0.0,
    "blur_chance": 0.0,
    "downscale_chance": 0.0,
    "occlusion_chance": 0.0,
}


def faces(count: int = 64) -> torch.Tensor:
    return torch.rand(count, 1, 48, 48, generator=Generator().manual_seed(5)) * 0.9 + 0.05


def test_the_same_seed_gives_the_same_faces_within_bounds() -> None:
    first, again = (Augmentation()(faces(), Generator().manual_seed(7)) for _ in range(2))
    torch.testing.assert_close(first, again)
    assert (Augmentation()(faces(), Generator().manual_seed(8)) != first).any()
    assert first.min() >= 0
    assert first.max() <= 1


def test_without_strength_faces_are_only_mirrored_about_half_the_time() -> None:
    changed = Augmentation(**STILL)(faces(), Generator().manual_seed(0))
    kept = (changed - faces()).abs().amax(dim=(1, 2, 3)) < 1e-3
    mirrored = (changed - faces().flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert (kept ^ mirrored).all()
    assert 16 < int(mirrored.sum()) < 48


def test_a_downscaled_face_keeps_its_means_and_loses_its_detail() -> None:
    changed = Augmentation(**STILL | {"downscale_chance": 1.0})(faces(), Generator().manual_seed(0))
    torch.testing.assert_close(changed.mean(dim=(1, 2, 3)), faces().mean(dim=(1, 2, 3)), atol=0.01, rtol=0)
    assert changed.diff(dim=3).abs().mean() < 0.5 * faces().diff(dim=3).abs().mean()


def test_an_occlusion_covers_one_rectangle_of_the_stated_extent() -> None:
    augmentation = Augmentation(**STILL | {"occlusion_chance": 1.0})
    changed = augmentation(faces(), Generator().manual_seed(0))
    plain = Augmentation(**STILL)(faces(), Generator().manual_seed(0))
    covered = (changed - plain).abs()[:, 0] > 1e-6
    rows, columns = covered.any(dim=2).sum(dim=1), covered.any(dim=1).sum(dim=1)
    low, high = augmentation.occlusion_sides
    for extent in (rows, columns):
        assert extent.min() >= low * 48 - 2
        assert extent.max() <= high * 48 + 2
    assert (covered.sum(dim=(1, 2)) > 0.9 * rows * columns).all()


def test_landmarks_move_with_their_face_and_change_sides_in_a_mirror() -> None:
    """A face of five discs, each of its own shade, on black."""
    landmarks = torch.tensor([[0.30, 0.38], [0.62, 0.33], [0.52, 0.55], [0.40, 0.74], [0.66, 0.70]])
    shades = torch.tensor([0.3, 0.5, 0.7, 0.85, 1.0])
    side = 96
    place = (torch.arange(side) + 0.5) / side
    face = torch.zeros(1, side, side)
    for (x, y), shade in zip(landmarks.tolist(), shades.tolist(), strict=True):
        face[0, (place[:, None] - y) ** 2 + (place - x) ** 2 < 0.05**2] = shade
    moving = {"rotation_deg": 12.0, "scale": 0.12, "shift": 0.06, "shear": 0.08}
    changed, moves = Augmentation(**STILL | moving).with_moves(
        face.expand(32, 1, side, side), Generator().manual_seed(1)
    )
    moved = moved_landmarks(landmarks.expand(32, 5, 2), moves)
    seen = set()
    for picture, points in zip(changed[:, 0], moved, strict=True):
        columns, rows = (points * side).long().unbind(dim=1)
        order = torch.cdist(picture[rows, columns][:, None], shades[:, None]).argmin(dim=1).tolist()
        torch.testing.assert_close(picture[rows, columns], shades[order], atol=0.03, rtol=0)
        seen.add(tuple(order))
        assert points[0, 0] < points[1, 0]
    assert seen == {(0, 1, 2, 3, 4), (1, 0, 2, 4, 3)}


def test_a_blur_is_as_strong_at_any_aligned_size() -> None:
    blur = Augmentation(**STILL | {"blur_chance": 1.0})
    left = []
    for size in (96, 160, 224):
        wave = torch.sin(torch.arange(size) * 2 * torch.pi * 8 / size).expand(1, 1, size, -1) * 0.4 + 0.5
        middle = slice(size // 8, -size // 8)
        left.append(float(blur(wave, Generator().manual_seed(0))[..., middle].std() / wave[..., middle].std()))
    assert left == pytest.approx([0.91] * 3, abs=0.02)
