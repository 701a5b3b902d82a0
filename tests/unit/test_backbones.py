"""Trunks: their features, starts from other networks, and BatchNorms that get statistics without changing answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from ran_model.backbones import (
    build_backbone,
    check_trunk,
    fit_channels,
    fold_batch_norm,
    has_folded_batch_norm,
    load_trunk,
    renew_batch_norm,
)
from ran_model.config import BACKBONES, ModelConfig
from ran_model.inception_resnet import InceptionResnetV1

FACENET = Path(__file__).parents[3] / "shared" / "data" / "facenet_trunk.safetensors"
SIZES = {"resnet18": 11_176_512, "resnet50": 23_508_032, "vgg16": 134_260_544, "inception_resnet_v1": 22_563_872}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_backbone_gives_its_features(name: str, channels: int) -> None:
    backbone, features = build_backbone(name, channels)
    with torch.inference_mode():
        answer = backbone.eval()(torch.zeros(2, channels, 96, 96))
    assert answer.shape == (2, features)
    if channels == 3:  # the published networks' own counts, without their last layer
        parameters = sum(parameter.numel() for parameter in backbone.parameters())
        assert parameters == pytest.approx(SIZES[name], rel=0.01)


def test_a_colour_start_computes_the_same_on_grey(tmp_path: Path) -> None:
    torch.manual_seed(0)
    colour, _ = build_backbone("resnet18", 3)
    path = tmp_path / "trunk.safetensors"
    safetensors.torch.save_file(colour.state_dict(), path)
    grey, _ = build_backbone("resnet18", 1)
    load_trunk(grey, path)
    pictures = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        expected = colour.eval()(pictures.expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey.eval()(pictures), expected, atol=1e-4, rtol=1e-4)
    assert fit_channels(colour.state_dict(), colour)["conv1.weight"].shape[1] == 3


def test_another_networks_trunk_is_refused(tmp_path: Path) -> None:
    small, _ = build_backbone("resnet18", 3)
    large, _ = build_backbone("resnet50", 3)
    path = tmp_path / "trunk.safetensors"
    safetensors.torch.save_file(small.state_dict(), path)
    with pytest.raises(ValueError, match="lacks"):
        load_trunk(large, path)
    state = small.state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    safetensors.torch.save_file(state, path)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight is \(64, 64, 1, 1\)"):
        load_trunk(small, path)


def test_a_start_is_checked_before_it_is_needed(tmp_path: Path) -> None:
    path, config = tmp_path / "trunk.safetensors", ModelConfig(backbone="resnet18")
    with pytest.raises(ValueError, match=r"trunk .*trunk\.safetensors can't be read .*--trunk-only"):
        check_trunk(path, config)
    path.write_text("no tensors")
    with pytest.raises(ValueError, match=r"trunk .*trunk\.safetensors is damaged or no safetensors file"):
        check_trunk(path, config)
    safetensors.torch.save_file(build_backbone("resnet18", 3)[0].state_dict(), path)
    check_trunk(path, config)
    with pytest.raises(ValueError, match="lacks"):
        check_trunk(path, ModelConfig(backbone="resnet50"))


def test_renewed_batch_norm_keeps_the_function_and_knows_its_batch() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3))
    with torch.no_grad():  # as a packager who folds BatchNorms into biases leaves them
        network[1].bias.uniform_(-2, 2)
        network[4].bias.uniform_(-2, 2)
    pictures = torch.rand(64, 1, 12, 12) * 3
    before = network.eval()(pictures)
    renew_batch_norm(network, pictures)
    torch.testing.assert_close(network.eval()(pictures), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.train()(pictures), before, atol=1e-2, rtol=1e-2)  # the batch's own statistics


def test_folded_batch_norms_are_seen_in_the_weights() -> None:
    backbone, _ = build_backbone("resnet18", 1)
    assert has_folded_batch_norm(backbone)  # random weights have no statistics either
    backbone.bn1.running_var.fill_(0.999)  # variance and epsilon together are 1
    assert has_folded_batch_norm(backbone)
    backbone.train()(torch.rand(4, 1, 32, 32))
    assert not has_folded_batch_norm(backbone)
    assert not has_folded_batch_norm(build_backbone("vgg16", 1)[0])


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "inception_resnet_v1"])
def test_folded_batch_norms_change_nothing(name: str) -> None:
    torch.manual_seed(0)
    backbone, _ = build_backbone(name, 1)
    pictures = torch.rand(4, 1, 96, 96)
    with torch.no_grad():
        backbone.train()(pictures)  # statistics that are not 0 and 1
        before = backbone.eval()(pictures)
        fold_batch_norm(backbone)
        after = backbone(pictures)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in backbone.modules())


@pytest.mark.skipif(not FACENET.exists(), reason="../shared/data has no face-recognition weights")
def test_facenet_weights_fit() -> None:
    torch.manual_seed(0)
    network = InceptionResnetV1(channels=1)
    load_trunk(network, FACENET)
    assert has_folded_batch_norm(network)
    features = network.eval()(torch.rand(2, 1, 160, 160) * 2 - 1)
    assert features.shape == (2, 1792)
    assert features.isfinite().all()
