"""How good a network is on the validation part and on each of a data set's test lists."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed
from torch import Tensor

from ran_model.config import ModelConfig
from ran_model.data import FaceSet, LabelledFaces
from ran_model.labels import EXPRESSIONS
from ran_model.metrics import PartScores, Scores, score
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork

Network = RegionAttentionNetwork | SinglePassNetwork


@torch.inference_mode()
def predict_probabilities(network: Network, faces: FaceSet, *, batch_size: int = 128, bf16: bool = False) -> Tensor:
    """Probabilities (B, K) of every face, float32, on the CPU. A single-pass network sees the whole face only."""
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    boxes = faces.boxes(network.config)
    if isinstance(network, SinglePassNetwork):
        boxes = boxes[:1, :1]
    answers = []
    for start in range(0, len(faces), batch_size):
        rows = slice(start, start + batch_size)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = network(faces.faces_BCSS[rows].to(device), boxes[rows] if len(boxes) > 1 else boxes).logits_BK
        answers.append(logits.float().softmax(dim=1).cpu())
    network.train(was_training)
    return torch.cat(answers) if answers else torch.empty(0, len(network.config.classes))


def predict_together(network: Network, faces: FaceSet, *, bf16: bool = False) -> Tensor:
    """`predict_probabilities` by all processes of torch.distributed, which hold the same network: each answers a part,
    and all get the whole."""
    if not torch.distributed.is_initialized():
        return predict_probabilities(network, faces, bf16=bf16)
    own = torch.arange(torch.distributed.get_rank(), len(faces), torch.distributed.get_world_size())
    device = next(network.parameters()).device
    answers_BK = torch.zeros(len(faces), len(network.config.classes), device=device)
    answers_BK[own] = predict_probabilities(network, faces.take(own), bf16=bf16).to(device)
    torch.distributed.all_reduce(answers_BK)
    return answers_BK.cpu()


def over_expressions(probabilities_BK: Tensor, config: ModelConfig) -> Tensor:
    """Columns in the order of EXPRESSIONS, zero for a class that the model lacks: its faces count as wrong."""
    columns = torch.zeros(len(probabilities_BK), len(EXPRESSIONS))
    columns[:, [EXPRESSIONS.index(name) for name in config.classes]] = probabilities_BK
    return columns


def score_lists(network: Network, data: LabelledFaces) -> dict[str, Scores]:
    """The scores of the validation part, where there is one, and of every test list that has faces. Raises ValueError
    for a network whose training has diverged."""
    scores = {}
    validation = data.validation()
    if len(validation):
        scores["validation"] = score(validation.labels_B, _probabilities(network, validation), network.config.classes)
    for name in data.lists:
        faces = data.test(name)
        if len(faces):
            probabilities = over_expressions(_probabilities(network, faces), network.config)
            own_B = ~data.is_copied(name)
            scores[name] = replace(
                score(faces.labels_B, probabilities, EXPRESSIONS),
                without_copies=None if own_B.all() else _part(faces.labels_B[own_B], probabilities[own_B]),
            )
    return scores


def _probabilities(network: Network, faces: FaceSet) -> Tensor:
    probabilities_BK = predict_probabilities(network, faces)
    if not probabilities_BK.isfinite().all():
        raise ValueError(
            f"{network.config.name} answers with values that are not finite: its training has diverged; a lower "
            "learning_rate may mend it"
        )
    return probabilities_BK


def _part(labels_B: Tensor, probabilities_BK: Tensor) -> PartScores | None:
    if not len(labels_B):
        return None
    right_B = probabilities_BK.argmax(dim=1) == labels_B
    return PartScores(n=len(labels_B), accuracy=int(right_B.sum()) / len(labels_B))
