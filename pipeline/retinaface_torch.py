"""The ResNet-50 RetinaFace of the package retinaface-pytorch (an extra) behind `pipeline.detect`'s forward pass.

Slower and better at small faces than the default: WIDER FACE hard 64.2 against 47.3, as their authors report. Its
network is the package's, its weights are a local file, and everything else (sizes, anchors, decoding, suppression) is
shared with the default.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.detect import Forward
from pipeline.errors import UsageError

Float = NDArray[np.float32]

# ImageNet's, RGB, as the package's own predictor normalises.
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)
EXTRA = "pip install retinaface-pytorch==0.0.6"


def load_resnet50(weights: str | Path | None, *, threads: int, providers: str) -> tuple[Forward, str, bool]:
    """The forward pass, the sha256 of the weights file, and whether a GPU does the work.

    weights: the package's published checkpoint, a local file (.pth, or the .zip around it). providers: "cpu", "cuda" or
    "auto".
    Raises UsageError where the package or the weights are missing, or the weights don't fit.
    """
    if weights is None:
        raise UsageError(
            "detector retinaface-resnet50 needs its weights: download the checkpoint named in the README of"
            " retinaface-pytorch and pass its path as --detector-weights"
        )
    network = _network()
    content, state = _read(Path(weights))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(
            f"detector weights {weights} are not those of retinaface-pytorch's ResNet-50: {error}"
        ) from error
    torch.set_num_threads(threads)
    device = "cuda" if providers != "cpu" and torch.cuda.is_available() else "cpu"
    if providers == "cuda" and device != "cuda":
        raise UsageError("detector provider is 'cuda', but torch sees no GPU: use cpu")
    return torch_forward(network, device), hashlib.sha256(content).hexdigest(), device == "cuda"


def torch_forward(network: nn.Module, device: str) -> Forward:
    """Wraps a torch network whose outputs are box offsets, class logits (background, face) and landmark offsets."""
    network = network.eval().requires_grad_(False).to(device)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN_RGB, STD_RGB))

    @torch.inference_mode()
    def forward(images_NHWC: NDArray[np.uint8]) -> tuple[Float, Float, Float]:
        images_NCHW = torch.from_numpy(images_NHWC).to(device).permute(0, 3, 1, 2).float() / 255
        offsets_NA4, logits_NA2, landmarks_NA10 = network((images_NCHW - mean) / std)
        scores_NA = logits_NA2.softmax(dim=-1)[..., 1]
        offsets, scores, landmarks = (t.float().cpu().numpy() for t in (offsets_NA4, scores_NA, landmarks_NA10))
        return offsets, scores, landmarks

    return forward


def _network() -> nn.Module:
    try:
        from retinaface.network import RetinaFace
    except ImportError as error:
        raise UsageError(f"detector retinaface-resnet50 needs an extra that is not installed: {EXTRA}") from error
    network: nn.Module = RetinaFace(
        name="Resnet50",
        pretrained=False,
        return_layers={"layer2": 1, "layer3": 2, "layer4": 3},
        in_channels=256,
        out_channels=256,
    )
    return network


def _read(path: Path) -> tuple[bytes, dict[str, Tensor]]:
    """The file's bytes and its tensors; only tensors are ever unpickled."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"detector weights {path} can't be read: {error.strerror}") from error
    stored = content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if len(archive.namelist()) == 1:  # the published download; a plain torch file is a zip of many members
                stored = archive.read(archive.namelist()[0])
    try:
        state = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in the unpickler in many ways
        raise UsageError(f"detector weights {path} are no torch checkpoint: {error}") from error
    return content, state
