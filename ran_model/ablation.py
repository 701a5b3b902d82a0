"""A recipe with one part changed or switched off at a time, and the table that says what each part is worth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ran_model.recipe import Recipe
from ran_model.regions import STRATEGIES
from ran_model.significance import mcnemar, mean_difference
from ran_model.train_config import twin_config

BASE, TWIN, ROVING_TWIN = "recipe", "single-pass", "single-pass-regions"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """key: a file name. part, change: for people. recipe: with the change made. is_twin: a single pass, no RAN."""

    key: str
    part: str
    change: str
    recipe: Recipe
    is_twin: bool = False


def variants(recipe: Recipe) -> list[Variant]:
    """The recipe itself, its single-pass twin, and one variant per change that does change it."""
    model, ran = recipe.model, recipe.ran
    other_norm = "paper" if model.attention_norm == "authors" else "authors"
    changes: list[tuple[str, str, str, Recipe]] = [
        ("regions-whole", "regions", "whole face alone", replace(recipe, model=replace(model, regions=("whole",)))),
        *(
            (
                f"regions-{name}",
                "regions",
                f"{name} ({len(regions)})",
                replace(recipe, model=replace(model, regions=regions)),
            )
            for name, regions in STRATEGIES.items()
        ),
        ("loss-plain", "loss", "without region bias", replace(recipe, ran=replace(ran, region_bias=0.0))),
        (
            "attention-self",
            "attention",
            "self-attention alone, no relation-attention",
            replace(recipe, model=replace(model, relation_attention=False)),
        ),
        (
            "attention-none",
            "attention",
            "none: the mean over regions",
            replace(recipe, model=replace(model, relation_attention=False, self_attention=False)),
        ),
        (
            f"norm-{other_norm}",
            "normalisation",
            f"{other_norm}, not {model.attention_norm}",
            replace(recipe, model=replace(model, attention_norm=other_norm)),
        ),
    ]
    return [
        Variant(key=BASE, part="", change="as the recipe says", recipe=recipe),
        Variant(
            key=TWIN,
            part="",
            change="the single-pass twin",
            recipe=replace(recipe, ran=twin_config(ran)),
            is_twin=True,
        ),
        Variant(
            key=ROVING_TWIN,
            part="twin",
            change=f"the twin, trained on another region in {1 - ran.whole_share:.0%} of its steps",
            recipe=recipe,
            is_twin=True,
        ),
        *(
            Variant(key=key, part=part, change=change, recipe=changed)
            for key, part, change, changed in changes
            if changed != recipe
        ),
    ]


def compared(
    rights: Mapping[str, Sequence[Mapping[str, Tensor]]], groups: Mapping[str, Tensor | None] | None = None
) -> dict[str, Any]:
    """Plain JSON of what was right: by variant key, then by seed, then by list (bool per face), each alike for all.

    groups: by list, which faces belong together (int64 per face), where faces are not independent.
    Per variant and list: n, accuracy (mean over seeds), spread (standard deviation over seeds, None for one seed),
    by_seed, and vs_recipe, the mean difference to the recipe's own answers with its interval. Per list also
    ran_minus_single_pass, with McNemar's test for each seed.
    """
    result: dict[str, Any] = {"variants": {}, "ran_minus_single_pass": {}}
    group_of = dict(groups or {})
    for key, seeds in rights.items():
        lists: dict[str, dict[str, Any]] = {}
        for name in seeds[0]:
            by_seed = [float(each[name].float().mean()) for each in seeds]
            lists[name] = {
                "n": len(seeds[0][name]),
                "accuracy": statistics.fmean(by_seed),
                "spread": statistics.stdev(by_seed) if len(by_seed) > 1 else None,
                "by_seed": by_seed,
            }
            if key != BASE and BASE in rights:
                lists[name]["vs_recipe"] = _difference(seeds, rights[BASE], name, group_of.get(name))
        result["variants"][key] = lists
    if BASE in rights and TWIN in rights:
        ran, twin = rights[BASE], rights[TWIN]
        for name in ran[0]:
            result["ran_minus_single_pass"][name] = {
                "bootstrap": _difference(ran, twin, name, group_of.get(name)),
                "mcnemar": [mcnemar(a[name], b[name]).to_json() for a, b in zip(ran, twin, strict=True)],
            }
    return result


def _difference(
    ours: Sequence[Mapping[str, Tensor]],
    theirs: Sequence[Mapping[str, Tensor]],
    name: str,
    groups_B: Tensor | None,
) -> dict[str, Any]:
    return mean_difference([(a[name], b[name]) for a, b in zip(ours, theirs, strict=True)], groups_B).to_json()
