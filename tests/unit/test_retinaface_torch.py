"""The ResNet-50 detector's border: a torch network behind the same interface, and errors that say what is missing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline import retinaface
from pipeline.detect import RESNET50, RetinaFaceDetector, load_detector
from pipeline.errors import UsageError
from pipeline.retinaface_torch import MEAN_RGB, STD_RGB, _read, torch_forward


class Heads(nn.Module):
    """Random heads on strided convolutions: the layout of every RetinaFace's outputs, without its backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3, 2 * 16, 3, stride, 1) for stride in retinaface.STRIDES)

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        maps = [level(images_NCHW).permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (2, 16)) for level in self.levels]
        joined = torch.cat([one.flatten(1, 2) for one in maps], dim=1)
        return joined[..., :4], joined[..., 4:6], joined[..., 6:]


def test_any_torch_retinaface_serves_behind_the_interface() -> None:
    torch.manual_seed(0)
    heads = Heads()
    detector = RetinaFaceDetector(name="t", weights_sha256="", forward=torch_forward(heads, "cpu"), min_score=0.7)
    images = list(np.random.default_rng(0).integers(0, 256, size=(3, 300, 270, 3), dtype=np.uint8))
    found = detector.detect(images)
    offsets, scores, landmarks = detector.forward(np.stack(images))
    assert offsets.shape[1] == len(retinaface.anchors(300, 270))
    normalised = (images[1] / 255 - MEAN_RGB) / STD_RGB
    expected = heads(torch.from_numpy(normalised).float().permute(2, 0, 1)[None])
    np.testing.assert_allclose(scores[1], expected[1].softmax(-1)[0, :, 1].numpy(), atol=1e-4)
    np.testing.assert_allclose(landmarks[1], expected[2][0].numpy(), atol=1e-3)
    for image, together in zip(images, found, strict=True):
        alone = detector.detect([image])[0]
        np.testing.assert_allclose(together.boxes_N4, alone.boxes_N4, atol=1e-2)
        assert len(alone) > 0


def test_the_published_download_is_a_zip_around_the_checkpoint(tmp_path: Path) -> None:
    state = {"weight": torch.arange(6.0)}
    torch.save(state, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.write(tmp_path / "w.pth", "w.pth")
    for name in ("w.pth", "w.zip"):
        content, read = _read(tmp_path / name)
        torch.testing.assert_close(read, state)
        assert content == (tmp_path / name).read_bytes()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def test_a_checkpoint_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match=r"evil\.pth"):
        _read(tmp_path / "evil.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(UsageError, match=r"junk\.pth"):
        _read(tmp_path / "junk.pth")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="--detector-weights"):
        load_detector(RESNET50)
    try:
        import retinaface  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match="retinaface-pytorch"):
            load_detector(RESNET50, weights="w.pth")
    else:
        with pytest.raises(UsageError, match=r"w\.pth"):
            load_detector(RESNET50, weights="w.pth")
