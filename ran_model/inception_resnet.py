"""Inception-ResNet-v1, the network that FaceNet's released face-recognition weights are for.

Source: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", AAAI 2017,
in the form of davidsandberg/facenet. Parameters carry the names that facenet-pytorch gave them, so that its checkpoints
load. Shapes: N pictures, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURES = 1792


class _Conv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)
        self.relu = nn.ReLU()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        activated: Tensor = self.relu(self.bn(self.conv(x_NCHW)))
        return activated


class _Residual(nn.Module):
    """Branches side by side, joined, brought back to the input's channels and added to it."""

    def __init__(self, channels: int, joined: int, scale: float, branches: list[nn.Module], relu: bool = True) -> None:
        super().__init__()
        self.scale = scale
        for index, branch in enumerate(branches):
            setattr(self, f"branch{index}", branch)
        self._names = [f"branch{index}" for index in range(len(branches))]
        self.conv2d = nn.Conv2d(joined, channels, kernel_size=1)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        joined = _joined([getattr(self, name)(x_NCHW) for name in self._names])
        out: Tensor = self.relu(self.conv2d(joined) * self.scale + x_NCHW)
        return out


class _Reduction(nn.Module):
    """Branches side by side that halve the picture; the last is a maximum pool."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        branches = [*branches, nn.MaxPool2d(3, stride=2)]
        for index, branch in enumerate(branches):
            setattr(self, f"branch{index}", branch)
        self._names = [f"branch{index}" for index in range(len(branches))]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return _joined([getattr(self, name)(x_NCHW) for name in self._names])


def _joined(parts_NCHW: list[Tensor]) -> Tensor:
    return torch.cat(parts_NCHW, dim=1)


def _block35() -> _Residual:
    return _Residual(
        256,
        96,
        0.17,
        [
            _Conv(256, 32, 1),
            nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3, padding=1)),
            nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3, padding=1), _Conv(32, 32, 3, padding=1)),
        ],
    )


def _block17() -> _Residual:
    tower = nn.Sequential(
        _Conv(896, 128, 1), _Conv(128, 128, (1, 7), padding=(0, 3)), _Conv(128, 128, (7, 1), padding=(3, 0))
    )
    return _Residual(896, 256, 0.10, [_Conv(896, 128, 1), tower])


def _block8(scale: float = 0.20, relu: bool = True) -> _Residual:
    tower = nn.Sequential(
        _Conv(1792, 192, 1), _Conv(192, 192, (1, 3), padding=(0, 1)), _Conv(192, 192, (3, 1), padding=(1, 0))
    )
    return _Residual(1792, 384, scale, [_Conv(1792, 192, 1), tower], relu)


class InceptionResnetV1(nn.Module):
    """Pictures (N, channels, H, W) of at least 75 pixels a side to pooled features (N, 1792).

    FaceNet's weights want RGB as (x − 127.5)/128.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv2d_1a = _Conv(channels, 32, 3, stride=2)
        self.conv2d_2a = _Conv(32, 32, 3)
        self.conv2d_2b = _Conv(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = _Conv(64, 80, 1)
        self.conv2d_4a = _Conv(80, 192, 3)
        self.conv2d_4b = _Conv(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*[_block35() for _ in range(5)])
        self.mixed_6a = _Reduction(
            [
                _Conv(256, 384, 3, stride=2),
                nn.Sequential(_Conv(256, 192, 1), _Conv(192, 192, 3, padding=1), _Conv(192, 256, 3, stride=2)),
            ]
        )
        self.repeat_2 = nn.Sequential(*[_block17() for _ in range(10)])
        self.mixed_7a = _Reduction(
            [
                nn.Sequential(_Conv(896, 256, 1), _Conv(256, 384, 3, stride=2)),
                nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3, stride=2)),
                nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3, padding=1), _Conv(256, 256, 3, stride=2)),
            ]
        )
        self.repeat_3 = nn.Sequential(*[_block8() for _ in range(5)])
        self.block8 = _block8(scale=1.0, relu=False)
        self.avgpool_1a = nn.AdaptiveAvgPool2d(1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """See the class."""
        for layer in self.children():
            x_NCHW = layer(x_NCHW)
        return x_NCHW.flatten(1)
