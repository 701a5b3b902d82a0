"""How good a model is: accuracy, mean recall, per class, confusion, on the authors' lists."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ran_model.data import FaceSet
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork
from ran_model.regions import region_boxes


@dataclass(frozen=True, kw_only=True)
class Scores:
    """accuracy: share of right answers. mean_recall: mean over the classes that occur. recall: per class, or None.

    confusion: rows are labels, columns answers, counts.
    """

    faces: int
    accuracy: float
    mean_recall: float
    recall: list[float | None]
    confusion: list[list[int]]


@torch.inference_mode()
def predict_labels(
    network: RegionAttentionNetwork | SinglePassNetwork, faces: FaceSet, *, batch_size: int = 128, bf16: bool = False
) -> Tensor:
    """The arg max class of every face, int64 (B,). A single-pass network sees the whole face only."""
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    boxes = torch.from_numpy(region_boxes(network.config, 1))
    if isinstance(network, SinglePassNetwork):
        boxes = boxes[:, :1]
    answers = []
    for batch in torch.split(faces.faces_BCSS, batch_size):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            answers.append(network(batch.to(device), boxes).logits_BK.argmax(dim=1).cpu())
    network.train(was_training)
    return torch.cat(answers)


COVERS = {  # rows and columns of the aligned face, as fractions
    "nothing": (0.0, 0.0, 0.0, 0.0),
    "upper half": (0.0, 0.5, 0.0, 1.0),
    "lower half": (0.5, 1.0, 0.0, 1.0),
    "left half": (0.0, 1.0, 0.0, 0.5),
    "right half": (0.0, 1.0, 0.5, 1.0),
}


@torch.inference_mode()
def attention_when_covered(network: RegionAttentionNetwork, faces: FaceSet) -> dict[str, list[float]]:
    """Mean attention of each region while part of every face is covered with mid-grey, by what is covered."""
    boxes, means = torch.from_numpy(region_boxes(network.config, 1)), {}
    side, device = faces.faces_BCSS.shape[-1], next(network.parameters()).device
    for name, (top, bottom, left, right) in COVERS.items():
        covered = faces.faces_BCSS.clone()
        covered[:, :, round(top * side) : round(bottom * side), round(left * side) : round(right * side)] = 128
        outputs = [network(batch.to(device), boxes).attention_BR for batch in torch.split(covered, 128)]
        means[name] = torch.cat(outputs).mean(dim=0).tolist()
    return means


def score(labels_B: Tensor, answers_B: Tensor, classes: int) -> Scores:
    """Compares answers with labels."""
    confusion_KK = torch.bincount(labels_B * classes + answers_B, minlength=classes**2).reshape(classes, classes)
    count_K = confusion_KK.sum(dim=1)
    right_K = confusion_KK.diagonal()
    recall = [float(right) / float(count) if count else None for right, count in zip(right_K, count_K, strict=True)]
    known = [value for value in recall if value is not None]
    return Scores(
        faces=len(labels_B),
        accuracy=float(right_K.sum()) / max(1, len(labels_B)),
        mean_recall=sum(known) / max(1, len(known)),
        recall=recall,
        confusion=confusion_KK.tolist(),
    )
