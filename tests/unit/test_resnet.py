"""The residual trunks against torchvision's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torchvision

from ran_model.backbones import fold_batch_norm
from ran_model.resnet import STAGES, ResNet


@pytest.mark.parametrize("name", STAGES)
def test_answers_and_gradients_equal_torchvision(name: str) -> None:
    torch.manual_seed(3)
    ours, theirs = ResNet(name), getattr(torchvision.models, name)(weights=None)
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())  # the names and shapes are the same, none missing and none left over
    pictures = torch.randn(4, 3, 64, 64)
    for network in (ours, theirs):
        network.train()(pictures).square().sum().backward()
    for (layer, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, other.grad, rtol=1e-3, atol=1e-3 * float(other.grad.abs().max()), msg=layer
        )
    for network in (ours, theirs):  # with the batch's statistics, which the pass above has left in both
        network.eval()
    torch.testing.assert_close(ours(pictures), theirs(pictures))
    fold_batch_norm(ours)
    torch.testing.assert_close(ours(pictures), theirs(pictures), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", STAGES)
def test_one_channel(name: str) -> None:
    network = ResNet(name, channels=1).eval()
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, network.features)


def test_initial_weights_spread_as_torchvisions_do() -> None:
    torch.manual_seed(3)
    ours, theirs = ResNet("resnet18").state_dict(), torchvision.models.resnet18(weights=None).state_dict()
    for name in ("conv1.weight", "layer2.0.conv1.weight", "layer4.1.conv2.weight"):
        assert float(ours[name].std()) == pytest.approx(float(theirs[name].std()), rel=0.05)


def test_a_worker_does_not_import_torchvision() -> None:
    code = (
        "import sys; from pipeline.infer import *; from ran_model.pretrained import *; "
        "from ran_model.model_files import default_model_dir, read_model_bytes; "
        "load_model_bytes(*read_model_bytes(default_model_dir()), device='cpu'); "
        "print('torchvision' in sys.modules, 'torch._dynamo' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]
