"""The cost of a face, counted layer by layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.input_sizes import gmac_per_face, table
from ran_model.config import ModelConfig

ONE_REGION = ModelConfig(regions=("whole",), colour="rgb", aligned_size=96)


def test_a_resnet18_pass_costs_what_is_known() -> None:
    assert gmac_per_face(ONE_REGION) == pytest.approx(1.814, abs=0.002)  # torchvision states 1.81 GMAC at 224²
    six = replace(ONE_REGION, regions=ModelConfig().regions)
    assert gmac_per_face(six) == pytest.approx(6 * gmac_per_face(ONE_REGION), rel=1e-4)
    assert gmac_per_face(replace(ONE_REGION, input_size=128)) == pytest.approx(1.814 * (128 / 224) ** 2, rel=0.001)


def test_speeds_are_told_against_the_first_size() -> None:
    rows = [
        {"input_size": 64, "gmac": 0.9, "faces_per_cpu_second": 40.0, "accuracy": 0.867},
        {"input_size": 224, "gmac": 10.9, "faces_per_cpu_second": 4.0, "accuracy": None},
    ]
    assert table(rows).splitlines()[2:] == [
        "| 64 | 0.90 | 40.0 | 1.00 | 86.7 |",
        "| 224 | 10.90 | 4.0 | 0.10 | – |",
    ]
