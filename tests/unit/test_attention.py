"""Region attention against loops written from the paper's equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ran_model.attention import RegionAttention


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def by_hand(features_RD: np.ndarray, layer: RegionAttention) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    regions = range(len(features_RD))

    def weigh(vector: np.ndarray, linear: torch.nn.Linear) -> float:
        return sigmoid(float(vector @ linear.weight.detach().numpy()[0] + linear.bias.item()))

    def normalise(weights: list[float]) -> list[float]:
        if layer.norm == "paper":
            return weights
        total = sum(np.exp(w) for w in weights)
        return [np.exp(w) / total for w in weights]

    mu = normalise([weigh(features_RD[i], layer.self_attention) for i in regions])
    mean = sum(mu[i] * features_RD[i] for i in regions) / sum(mu)
    if layer.relation_attention is None:
        return mean, np.array(mu), np.array(mu) / sum(mu)
    joined = [np.concatenate([features_RD[i], mean]) for i in regions]
    nu = normalise([weigh(joined[i], layer.relation_attention) for i in regions])
    total = sum(mu[i] * nu[i] for i in regions)
    face = sum(mu[i] * nu[i] * joined[i] for i in regions) / total
    return face, np.array(mu), np.array([mu[i] * nu[i] / total for i in regions])


@pytest.mark.parametrize("relation", [True, False])
@pytest.mark.parametrize("norm", ["paper", "authors"])
def test_attention_follows_the_equations(norm: str, relation: bool) -> None:
    torch.manual_seed(3)
    layer = RegionAttention(12, norm=norm, relation=relation)
    features = torch.randn(5, 6, 12) * 2
    attended = layer(features)
    for face in range(5):
        expected = by_hand(features[face].numpy().astype(np.float64), layer)
        for ours, theirs in zip(attended, expected, strict=True):
            np.testing.assert_allclose(ours[face].detach().numpy(), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attended.attention_BR.sum(dim=1), torch.ones(5))


def test_the_authors_form_bounds_the_weights() -> None:
    """RAN.md: a softmax of sigmoids over six regions lies in [.069, .352]."""
    layer = RegionAttention(1, norm="authors")
    torch.nn.init.constant_(layer.self_attention.weight, 1.0)
    torch.nn.init.zeros_(layer.self_attention.bias)
    features = torch.full((2, 6, 1), -50.0)
    features[0, 0] = 50
    features[1, 1:] = 50
    mu = layer(features).self_attention_BR
    assert mu[0, 0].item() == pytest.approx(0.352, abs=1e-3)
    assert mu[1, 0].item() == pytest.approx(0.069, abs=1e-3)
