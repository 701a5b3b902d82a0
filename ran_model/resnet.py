"""ResNet-18 and ResNet-50 trunks: pictures (N, C, I, I) to features (N, D) of the averaged last map.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride in the 3×3
convolution of a bottleneck. Layers bear torchvision's names, so its checkpoints fit; torchvision itself takes 1.7 CPU
seconds to import (it brings torch's compiler along), which every actor of a run would spend before its first face.
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
STAGE_CHANNELS = (64, 128, 256, 512)


class ResNet(nn.Module):
    """`name` is a key of STAGES; `features` is D: 512 or 2048. Weights are random until they are loaded."""

    def __init__(self, name: str, channels: int = 3) -> None:
        super().__init__()
        block = Bottleneck if name == "resnet50" else BasicBlock
        self.features = STAGE_CHANNELS[-1] * block.expansion
        self.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        width = 64
        for number, (depth, stage) in enumerate(zip(STAGES[name], STAGE_CHANNELS, strict=True), 1):
            blocks = []
            for index in range(depth):
                blocks.append(block(width, stage, stride=2 if index == 0 and number > 1 else 1))
                width = stage * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pictures_NCII: Tensor) -> Tensor:
        """Features (N, D)."""
        maps = self.maxpool(self.bn1(self.conv1(pictures_NCII)).relu_())
        for number in range(1, len(STAGE_CHANNELS) + 1):
            maps = self.get_submodule(f"layer{number}")(maps)
        features_ND: Tensor = maps.mean(dim=(2, 3))
        return features_ND


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of `width` channels."""
        inner = self.bn1(self.conv1(maps)).relu_()
        outer: Tensor = self.bn2(self.conv2(inner))
        outer += maps if self.downsample is None else self.downsample(maps)
        return outer.relu_()


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of 4 · `width` channels."""
        inner = self.bn1(self.conv1(maps)).relu_()
        inner = self.bn2(self.conv2(inner)).relu_()
        outer: Tensor = self.bn3(self.conv3(inner))
        outer += maps if self.downsample is None else self.downsample(maps)
        return outer.relu_()


def _shortcut(channels: int, width: int, stride: int) -> nn.Sequential | None:
    """What brings a block's input to the shape of its output; None where it has it."""
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(nn.Conv2d(channels, width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(width))
