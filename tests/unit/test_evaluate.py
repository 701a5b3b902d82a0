"""Scores against counting by hand."""

from __future__ import annotations

import pytest
import torch

from jobs.model_card import write_card
from ran_model.config import ModelConfig
from ran_model.data import FaceSet
from ran_model.evaluate import attention_when_covered, score
from ran_model.network import RegionAttentionNetwork
from ran_model.train import TrainConfig


def test_scores_by_hand() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 3])
    answers = torch.tensor([0, 0, 1, 1, 0, 2])
    scores = score(labels, answers, 4)
    assert scores.faces == 6
    assert scores.accuracy == pytest.approx(3 / 6)
    assert scores.recall == [pytest.approx(2 / 3), 0.5, None, 0.0]
    assert scores.mean_recall == pytest.approx((2 / 3 + 0.5 + 0) / 3)
    assert scores.confusion == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_attention_is_reported_for_each_cover_and_region() -> None:
    torch.manual_seed(0)
    config = ModelConfig(input_size=32, aligned_size=48)
    faces = torch.randint(0, 256, (4, 1, 48, 48), dtype=torch.uint8)
    grey = torch.full_like(faces, 128)
    network = RegionAttentionNetwork(config).eval()

    def measured(pictures: torch.Tensor) -> dict[str, list[float]]:
        labels = torch.zeros(4, dtype=torch.int64)
        return attention_when_covered(
            network, FaceSet(faces_BCSS=pictures, targets_BK=torch.eye(8)[labels], labels_B=labels)
        )

    answers, of_grey = measured(faces), measured(grey)
    assert list(answers) == ["nothing", "upper half", "lower half", "left half", "right half"]
    for weights in answers.values():
        assert sum(weights) == pytest.approx(1, abs=1e-5)
        assert len(weights) == 6
    assert answers["upper half"] != answers["lower half"]
    for weights in of_grey.values():  # a cover of the picture's own grey hides nothing
        assert weights == pytest.approx(of_grey["nothing"], abs=1e-6)


def test_the_card_states_the_figures_and_the_weak_classes() -> None:
    classes = ("neutral", "fear", "contempt")
    scores = score(torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 0, 0, 0]), 3)
    names = ("validation", "full", "occlusion", "pose>30", "pose>45")
    card = write_card(
        {"ran": dict.fromkeys(names, scores), "single_pass": dict.fromkeys(names, scores)},
        model_id="abcdef012345",
        config=ModelConfig(classes=classes),
        stages=(TrainConfig(), TrainConfig()),
        found_fraction=0.99,
        attention={"nothing": [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]},
    )
    assert "| full | 8 | 37.5 (43.3) | 37.5 (43.3) |" in card
    assert "| RAN | 66.7 | 20.0 | – |" in card
    assert "more than half of: fear (20.0 %)." in card
    assert "`abcdef012345`" in card
    assert max(len(line) for line in card.splitlines() if not line.startswith("|")) <= 118
