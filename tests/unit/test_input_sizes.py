"""The cost of a face, counted layer by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.input_sizes import gmac_per_face, main, table
from ran_model.config import ModelConfig
from tests.crops import kept_crops

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


def test_sizes_share_a_teacher_and_other_recipes_figures_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.input_sizes.in_processes", lambda _, __, act, *rest: act("cpu", *rest))
    faces = {f"{split}-0-{frame}": ("neutral", split) for split in ("train", "validation") for frame in range(4)}
    data, labels = kept_crops(tmp_path / "study", faces)
    recipe, stage = tmp_path / "recipe.yaml", "{epochs: 1, batch_size: 4, bf16: false}"

    def write(single_pass: str) -> None:
        recipe.write_text(
            f"data: {data}\nlabels: {labels}\nmodel: {{input_size: 32, aligned_size: 48, regions: [whole]}}\n"
            f"teacher: {{model: {{input_size: 32, aligned_size: 48}}, train: {stage}}}\n"
            f"single_pass: {single_pass}\nran: {stage}\n"
        )

    def accuracies(*options: str) -> list[str]:
        main([str(recipe), "--work", str(tmp_path / "work"), "--sizes", "32,40", *options])
        return [line.split("|")[-2].strip() for line in capsys.readouterr().out.splitlines()[-2:]]

    write(stage)
    trained = accuracies()
    assert all(0 <= float(each) <= 100 for each in trained)
    assert accuracies("--measure-only") == trained
    write(stage.replace("}", ", seed: 1}"))
    assert accuracies("--measure-only") == ["–", "–"]
