"""The whole network against its parts put together one face and one region at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torchvision

from ran_model.config import ModelConfig
from ran_model.network import (
    RegionAttentionNetwork,
    SinglePassNetwork,
    ran_from_single_pass,
    single_pass_from_ran,
)
from ran_model.regions import region_boxes

SMALL = ModelConfig(input_size=32, aligned_size=48)


@pytest.fixture(scope="module")
def network() -> RegionAttentionNetwork:
    torch.manual_seed(0)
    return RegionAttentionNetwork(SMALL).eval().requires_grad_(False)


def faces(count: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, channels, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_the_batch_equals_one_region_at_a_time(network: RegionAttentionNetwork) -> None:
    pictures, boxes = faces(3), torch.from_numpy(region_boxes(SMALL, 3))
    output = network(pictures, boxes)
    grey = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * pictures / 255).sum(dim=1, keepdim=True)
    grey = (grey - SMALL.mean) / SMALL.std
    plain = torchvision.models.resnet18()
    plain.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(network.trunk.backbone.state_dict())
    plain.eval()
    features = torch.empty(3, 4, 512)
    for region, (x0, y0, x1, y1) in enumerate([(0, 0, 48, 48), (0, 0, 36, 36), (12, 0, 48, 36), (6, 12, 42, 48)]):
        for face in range(3):
            cut = grey[face : face + 1, :, y0:y1, x0:x1]
            crop = F.interpolate(cut, size=(32, 32), mode="bilinear", antialias=True)
            features[face, region] = plain(crop)[0]
    torch.testing.assert_close(network.trunk(pictures, boxes)[:, :4], features, atol=2e-3, rtol=1e-3)
    attended = network.attention(network.trunk(pictures, boxes))
    torch.testing.assert_close(output.logits_BK, network.classifier(attended.features_BP))
    assert output.logits_BK.shape == (3, 8)
    assert output.attention_BR.shape == output.self_attention_BR.shape == (3, 6)


def test_a_face_gets_its_own_answer_whatever_shares_its_batch(network: RegionAttentionNetwork) -> None:
    pictures, boxes = faces(5), torch.from_numpy(region_boxes(SMALL, 1))
    together = network(pictures, boxes)
    for index in range(5):
        alone = network(pictures[index : index + 1], boxes)
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[index], theirs[0], atol=1e-5, rtol=1e-4)


def test_grey_and_float_faces_are_the_same_faces(network: RegionAttentionNetwork) -> None:
    grey, boxes = faces(2, channels=1), torch.from_numpy(region_boxes(SMALL, 1))
    expected = network(grey, boxes).logits_BK
    torch.testing.assert_close(network(grey.expand(-1, 3, -1, -1), boxes).logits_BK, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network(grey.float() / 255, boxes).logits_BK, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_changes_answers_little() -> None:
    torch.manual_seed(0)
    network = RegionAttentionNetwork(SMALL).eval().requires_grad_(False)
    pictures, boxes = faces(4), torch.from_numpy(region_boxes(SMALL, 1))
    exact = network(pictures, boxes)
    rounded = network.to_dtype(torch.bfloat16)(pictures, boxes)
    assert rounded.logits_BK.dtype == torch.float32
    torch.testing.assert_close(rounded.logits_BK.softmax(1), exact.logits_BK.softmax(1), atol=0.03, rtol=0)


@pytest.mark.parametrize("kind", [RegionAttentionNetwork, SinglePassNetwork])
def test_classifiers_compute_in_float32_whatever_the_trunk_does(
    kind: type[RegionAttentionNetwork | SinglePassNetwork],
) -> None:
    torch.manual_seed(0)
    network = kind(SMALL).eval().requires_grad_(False)
    network.classifier.weight.fill_(1 / 3)  # no number of bfloat16
    computed = []
    network.classifier.register_forward_hook(lambda layer, inputs, output: computed.append((inputs[0], output)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(faces(2), torch.from_numpy(region_boxes(SMALL, 1))[:, :1])
    features, logits = computed[0]
    torch.testing.assert_close(logits, F.linear(features.float(), network.classifier.weight, network.classifier.bias))


def test_colour_models_and_other_region_counts_work() -> None:
    config = ModelConfig(
        input_size=32, aligned_size=48, colour="rgb", regions=("whole", "nose"), relation_attention=False
    )
    output = RegionAttentionNetwork(config).eval()(faces(2), torch.from_numpy(region_boxes(config, 2)))
    assert output.attention_BR.shape == (2, 2)
    torch.testing.assert_close(
        output.attention_BR, output.self_attention_BR / output.self_attention_BR.sum(dim=1, keepdim=True)
    )


def test_without_attention_the_features_are_the_mean_over_the_regions() -> None:
    torch.manual_seed(0)
    config = replace(SMALL, self_attention=False, relation_attention=False)
    network = RegionAttentionNetwork(config).eval().requires_grad_(False)
    pictures, boxes = faces(2), torch.from_numpy(region_boxes(config, 1))
    output = network(pictures, boxes)
    expected = network.classifier(network.trunk(pictures, boxes).mean(dim=1))
    torch.testing.assert_close(output.logits_BK, expected)
    torch.testing.assert_close(output.attention_BR, torch.full((2, 6), 1 / 6))


def test_a_ran_starts_as_the_mean_over_its_regions() -> None:
    torch.manual_seed(0)
    single = SinglePassNetwork(SMALL).eval().requires_grad_(False)
    network = ran_from_single_pass(single).eval().requires_grad_(False)
    pictures, boxes = faces(2), torch.from_numpy(region_boxes(SMALL, 1))
    each = torch.stack([single(pictures, boxes[:, region : region + 1]).logits_BK for region in range(6)])
    output = network(pictures, boxes)
    torch.testing.assert_close(output.logits_BK, each.mean(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.attention_BR, torch.full((2, 6), 1 / 6))


@pytest.mark.parametrize("relation", [True, False])
def test_a_ran_that_looks_at_one_region_is_a_single_pass(relation: bool) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, regions=("whole",), relation_attention=relation)
    network = RegionAttentionNetwork(config).eval().requires_grad_(False)
    single = single_pass_from_ran(network, SMALL).eval().requires_grad_(False)
    pictures, boxes = faces(3), torch.from_numpy(region_boxes(config, 1))
    torch.testing.assert_close(
        single(pictures, boxes).logits_BK, network(pictures, boxes).logits_BK, atol=1e-4, rtol=1e-4
    )
    assert ran_from_single_pass(single, config).config == config
