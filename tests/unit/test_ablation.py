"""Each variant changes one part, and the table's figures are those of the answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs.ablate import describe
from ran_model.ablation import compared, variants
from ran_model.answers import right_from_text, right_to_text
from ran_model.config import ModelConfig
from ran_model.recipe import Recipe
from ran_model.train_config import TrainConfig

RECIPE = Recipe(data=Path("d"), model=ModelConfig(), single_pass=TrainConfig(), ran=TrainConfig())


def test_every_variant_changes_one_part_of_the_recipe() -> None:
    made = variants(RECIPE)
    assert [each.key for each in made[:2]] == ["recipe", "single-pass"]
    assert {each.part for each in made[2:]} == {"twin", "regions", "loss", "attention", "normalisation"}
    assert len({each.key for each in made}) == len(made)
    assert "regions-fixed" not in {each.key for each in made}  # as the recipe has it
    for each in made[3:]:
        restored = (
            replace(each.recipe, model=RECIPE.model) if each.part != "loss" else replace(each.recipe, ran=RECIPE.ran)
        )
        assert each.recipe != RECIPE
        assert restored == RECIPE


def test_the_twin_looks_where_it_will_be_asked_and_the_other_one_as_a_single_pass_does() -> None:
    _, twin, roving, *_ = variants(RECIPE)
    assert [twin.is_twin, roving.is_twin] == [True, True]
    assert twin.recipe == replace(RECIPE, ran=replace(RECIPE.ran, whole_share=1.0))
    assert roving.recipe == RECIPE


def test_a_recipe_by_the_authors_gets_the_papers_normalisation_as_its_variant() -> None:
    recipe = replace(RECIPE, model=replace(RECIPE.model, attention_norm="authors"))
    (norm,) = [each for each in variants(recipe) if each.part == "normalisation"]
    assert norm.key == "norm-paper"
    assert norm.recipe.model.attention_norm == "paper"


def test_figures_are_means_over_seeds_against_the_recipe() -> None:
    rights = {
        "recipe": [{"validation": right_from_text("1100")}, {"validation": right_from_text("1110")}],
        "single-pass": [{"validation": right_from_text("1000")}, {"validation": right_from_text("0110")}],
        "loss-plain": [{"validation": right_from_text("1111")}, {"validation": right_from_text("1111")}],
    }
    result = compared(rights)
    recipe = result["variants"]["recipe"]["validation"]
    assert recipe["accuracy"] == pytest.approx(0.625)
    assert recipe["spread"] == pytest.approx(0.25 / 2**0.5)
    assert "vs_recipe" not in recipe
    assert result["variants"]["loss-plain"]["validation"]["vs_recipe"]["difference"] == pytest.approx(0.375)
    minus = result["ran_minus_single_pass"]["validation"]
    assert minus["bootstrap"]["by_seed"] == [0.25, 0.25]
    assert [test["only_a"] for test in minus["mcnemar"]] == [1, 1]
    chosen = [each for each in variants(RECIPE) if each.key in rights]
    table = describe({"variants": result["variants"], "ran_minus_single_pass": result["ran_minus_single_pass"]}, chosen)
    assert "| loss | without region bias | 100.0 ± 0.0 | +37.5 (" in table
    assert "| +37.5 ± 158.8 |" in table  # seeds give 50 and 25: t is 12.7 with two of them
    assert "| validation | 4 | +25.0" in table
    assert "| +25.0 ± 0.0 |" in table
    assert "for these trained models on other faces" in table


def test_faces_of_one_video_are_resampled_together_and_have_no_p() -> None:
    rights = {
        key: [{"validation": right_from_text(text)}]
        for key, text in {
            "recipe": "1111" * 9 + "0000" * 21,
            "single-pass": "0000" * 30,
            "loss-plain": "1" * 120,
        }.items()
    }
    films = torch.arange(120) // 4
    result = compared(rights, {"validation": films})
    for bootstrap in (
        result["ran_minus_single_pass"]["validation"]["bootstrap"],
        result["variants"]["loss-plain"]["validation"]["vs_recipe"],
    ):
        assert bootstrap["groups"] == 30
        half = 1.96 * (0.3 * 0.7 / 30) ** 0.5
        assert (bootstrap["high"] - bootstrap["low"]) / 2 == pytest.approx(half, rel=0.15)
    table = describe(result, [each for each in variants(RECIPE) if each.key in rights])
    assert "| validation | 120 | +30.0" in table
    assert table.splitlines()[-5].endswith("| – | – |")  # one seed, no p
    assert table.splitlines()[-1].startswith("validation: In brackets: 95% intervals over resampled sources")
    single_faces = describe(compared(rights), [each for each in variants(RECIPE) if each.key in rights])
    assert "resampled sources" not in single_faces
    assert single_faces.splitlines()[-3].endswith("| 0.000 |")


def test_one_seed_has_no_spread() -> None:
    result = compared({"recipe": [{"validation": right_from_text("10")}]})
    assert result["variants"]["recipe"]["validation"]["spread"] is None
    assert result["ran_minus_single_pass"] == {}


def test_answers_are_kept_as_text() -> None:
    right = torch.tensor([True, False, True])
    assert right_to_text(right) == "101"
    assert torch.equal(right_from_text("101"), right)
