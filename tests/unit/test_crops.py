"""Batched region crops against cutting and resizing one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ran_model.config import ModelConfig
from ran_model.crops import LUMA, crop_pixels, crop_regions
from ran_model.regions import region_boxes


@pytest.mark.parametrize("size", [32, 64, 96, 150])
def test_crops_along_pixel_edges_equal_torchs_antialiased_resize(size: int) -> None:
    torch.manual_seed(0)
    faces = torch.rand(3, 3, 96, 96)
    pixels = torch.tensor([[0, 0, 96, 96], [0, 0, 72, 72], [24, 0, 96, 72], [12, 24, 84, 96], [10, 5, 90, 91]])
    crops = crop_regions(faces, (pixels / 96)[None], size)
    assert crops.shape == (3, 5, 3, size, size)
    for index, (x0, y0, x1, y1) in enumerate(pixels.tolist()):
        cut = faces[:, :, y0:y1, x0:x1]
        expected = F.interpolate(cut, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        torch.testing.assert_close(crops[:, index], expected, atol=1e-4, rtol=1e-4)


def test_every_face_may_have_boxes_of_its_own() -> None:
    torch.manual_seed(0)
    faces, boxes = torch.rand(4, 1, 48, 48), torch.rand(4, 2, 4) * 0.4
    boxes[..., 2:] += 0.5
    together = crop_regions(faces, boxes, 32)
    for index in range(4):
        alone = crop_regions(faces[index : index + 1], boxes[index : index + 1], 32)
        torch.testing.assert_close(together[index], alone[0])


def test_a_slope_keeps_its_place_between_pixel_edges() -> None:
    faces = ((torch.arange(96) + 0.5) / 96).expand(1, 1, 96, 96)
    boxes = torch.from_numpy(region_boxes(ModelConfig(), 1))
    crops = crop_regions(faces, boxes, 64)
    for index, (x0, _, x1, _) in enumerate(boxes[0].tolist()):
        expected = x0 + (torch.arange(64) + 0.5) / 64 * (x1 - x0)
        torch.testing.assert_close(crops[0, index, 0, 20, 2:-2], expected[2:-2], atol=2e-3, rtol=0)


def test_crops_are_computed_in_the_faces_precision() -> None:
    crops = crop_regions(torch.rand(2, 1, 96, 96).bfloat16(), torch.from_numpy(region_boxes(ModelConfig(), 1)), 64)
    assert crops.dtype == torch.bfloat16
    assert torch.isfinite(crops).all()


@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_crops_that_travel_are_rounded_to_bytes_in_the_models_colour(colour: str) -> None:
    torch.manual_seed(0)
    faces = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    boxes = torch.from_numpy(region_boxes(ModelConfig(), 1))
    crops = crop_pixels(faces, boxes, 32, colour=colour)
    assert crops.dtype == torch.uint8
    coloured = faces.float()
    if colour == "grey":
        red, green, blue = (weight * coloured[:, [channel]] for channel, weight in enumerate(LUMA))
        coloured = red + green + blue
    exact = crop_regions(coloured, boxes, 32)
    assert crops.shape == exact.shape
    assert (crops.float() - exact).abs().max() <= 0.5 + 1e-3
