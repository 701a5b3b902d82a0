"""The losses against sums by hand."""

from __future__ import annotations

import pytest
import torch

from ran_model.loss import region_biased_loss, soft_cross_entropy


def test_the_region_biased_loss_by_hand() -> None:
    mu = torch.tensor([[0.5, 0.4, 0.45], [0.2, 0.9, 0.1], [0.6, 0.61, 0.3]])
    # gaps of the best crop over the whole: -.05, .7, .01; hinge at .02
    assert region_biased_loss(mu, 0.02).item() == pytest.approx((0.07 + 0 + 0.01) / 3, abs=1e-6)


def test_the_whole_face_never_counts_as_the_best_crop() -> None:
    """A known re-implementation takes the maximum over the whole face too: its loss could never exceed the margin."""
    mu = torch.tensor([[0.9, 0.1, 0.2]])
    assert region_biased_loss(mu, 0.02).item() == pytest.approx(0.02 + 0.7, abs=1e-6)


def test_the_loss_pushes_the_best_crop_up_and_the_whole_down() -> None:
    mu = torch.tensor([[0.5, 0.3, 0.4]], requires_grad=True)
    region_biased_loss(mu, 0.02).backward()
    assert mu.grad is not None
    assert mu.grad.tolist() == [[1.0, 0.0, -1.0]]


def test_soft_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    targets = torch.tensor([[0.7, 0.3, 0.0]])
    log_p = logits - logits.exp().sum().log()
    assert soft_cross_entropy(logits, targets).item() == pytest.approx(-(0.7 * log_p[0, 0] + 0.3 * log_p[0, 1]).item())
