"""`ablate`: a recipe with one part changed at a time, all from one single-pass start, as one table."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.intervals import about_groups, percent_difference
from jobs.options import json_option
from pipeline.errors import UsageError
from ran_model.recipe import Recipe, read_recipe

if TYPE_CHECKING:  # torch: only when the command is called
    from torch import Tensor

    from jobs.stages import Stages
    from ran_model.ablation import Variant
    from ran_model.data import LabelledFaces
    from ran_model.network import RegionAttentionNetwork, SinglePassNetwork


ABOUT_SEEDS = (
    "In brackets: 95% intervals for these trained models on other faces. Over seeds: the mean difference ± t·sd/√n of "
    "the seeds' own differences, a 95% interval for trainings with other seeds on these faces."
)


@click.command("ablate")
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.yaml")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=".cache/ablation",
    show_default=True,
    help="Aligned faces and a checkpoint per variant and seed; the same command goes on from there.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings of each variant.")
@click.option("--only", metavar="A,B,…", help="These variants alone; `recipe` and `single-pass` are always there.")
@click.option("--lists", is_flag=True, help="Score the test lists too: once, at the end, never for model selection.")
@click.option("--processes", type=int, help="One per GPU, or per core (default: all, if each gets 8 faces of a batch).")
@json_option
def ablate_command(
    recipe: Path, work: Path, seeds: int, only: str | None, lists: bool, processes: int | None, as_json: bool
) -> None:
    """Train RECIPE.yaml's last stage with one part changed at a time, and print validation accuracies as a table.

    Parts: regions, loss, attention, normalisation. Every variant starts from the same single pass and sees the same
    faces in the same order; seeds change order and augmentation.
    """
    from jobs.align_faces import aligned_faces
    from jobs.processes import in_processes, processes_for
    from jobs.stages import check_starts
    from ran_model.ablation import variants
    from ran_model.datasets import read_listing

    try:
        plan = read_recipe(recipe)
        check_starts(plan)
        listing = read_listing(plan.data, layout=plan.layout, labels=plan.labels)
        if not listing.of("train") or not listing.of("validation"):
            raise UsageError(f"{plan.data} has no pictures to train on, or none to validate with")
        chosen = _chosen(variants(plan), only)
        faces = aligned_faces(listing, plan.model, work)
        for variant in chosen:  # what a variant's regions lack is told before hours of training
            aligned_faces(listing, variant.recipe.model, work)
        in_processes(processes or processes_for(plan), work, _train_variants, plan, chosen, seeds, lists, work)
    except ValueError as error:
        raise UsageError(str(error)) from None
    groups = {name: faces.groups(name) for name in ("validation", *(faces.lists if lists else ()))}
    result = _result(plan, chosen, seeds, work, groups)
    click.echo(json.dumps(result, indent=2) if as_json else describe(result, chosen))


def _chosen(all_variants: list[Variant], only: str | None) -> list[Variant]:
    if only is None:
        return all_variants
    keys = [key.strip() for key in only.split(",")]
    known = [variant.key for variant in all_variants]
    for key in keys:
        if key not in known:
            raise ValueError(f"--only {key}: the variants are {', '.join(known)}")
    return [variant for variant in all_variants if variant.key in (*keys, *known[:2])]


def _train_variants(device: str, recipe: Recipe, chosen: list[Variant], seeds: int, lists: bool, work: Path) -> None:
    """One of the training processes. Seed by seed, so that an unfinished run has whole tables."""
    import torch

    from jobs.align_faces import aligned_faces
    from jobs.processes import is_first
    from jobs.stages import Stages
    from ran_model.datasets import read_listing

    torch.manual_seed(recipe.single_pass.seed)
    listing = read_listing(recipe.data, layout=recipe.layout, labels=recipe.labels)
    data = aligned_faces(listing, recipe.model, work)
    stages = Stages(recipe=recipe, faces=data.train(), validation=data.validation(), work=work, device=device)
    teacher = stages.teacher()
    single = stages.single_pass(teacher)
    for seed in range(seeds):
        for variant in chosen:
            own = aligned_faces(listing, variant.recipe.model, work)  # regions may be each face's own
            network = _trained(stages, variant, seed, own, single, teacher)  # at once, where it is trained already
            path = _answers_path(work, variant, seed)
            is_answered = path.exists() and (not lists or set(own.lists) <= set(json.loads(path.read_text())))
            if is_answered:
                continue
            answers = _answers(network, own, lists, recipe.ran.bf16)
            if is_first():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(answers))


def _trained(
    stages: Stages,
    variant: Variant,
    seed: int,
    data: LabelledFaces,
    single: SinglePassNetwork,
    teacher: SinglePassNetwork | None,
) -> RegionAttentionNetwork | SinglePassNetwork:
    from jobs.training_progress import training_progress
    from ran_model.network import ran_from_single_pass
    from ran_model.train import train

    network: RegionAttentionNetwork | SinglePassNetwork = (
        copy.deepcopy(single) if variant.is_twin else ran_from_single_pass(single, variant.recipe.model)
    )
    train(
        network.to(stages.device),
        data.train(),
        None,
        replace(variant.recipe.ran, seed=variant.recipe.ran.seed + seed),
        _answers_path(stages.work, variant, seed).parent,
        variant.recipe.augmentation,
        teacher,
        progress=training_progress(f"{variant.key}, seed {seed}"),
        origin=stages.origin_of_last_stage,
    )
    return network


def _answers(
    network: RegionAttentionNetwork | SinglePassNetwork, data: LabelledFaces, lists: bool, bf16: bool
) -> dict[str, str]:
    """By list, which faces are answered right."""
    from ran_model.ablation import right_to_text
    from ran_model.evaluate import over_expressions, predict_together

    validation = data.validation()
    answers_B = predict_together(network, validation, bf16=bf16).argmax(dim=1)
    rights = {"validation": right_to_text(answers_B == validation.labels_B)}
    for name in data.lists if lists else ():
        faces = data.test(name)
        probabilities_BK = over_expressions(predict_together(network, faces, bf16=bf16), network.config)
        rights[name] = right_to_text(probabilities_BK.argmax(dim=1) == faces.labels_B)
    return rights


def _answers_path(work: Path, variant: Variant, seed: int) -> Path:
    return work / "variants" / f"{variant.key}-seed{seed}" / "right.json"


def _result(
    recipe: Recipe, chosen: list[Variant], seeds: int, work: Path, groups: dict[str, Tensor | None]
) -> dict[str, Any]:
    from ran_model.ablation import compared, right_from_text

    rights: dict[str, list[dict[str, Tensor]]] = {}
    for variant in chosen:
        texts = [json.loads(_answers_path(work, variant, seed).read_text()) for seed in range(seeds)]
        rights[variant.key] = [{name: right_from_text(text) for name, text in each.items()} for each in texts]
    budget = {"epochs": recipe.ran.epochs, "epoch_steps": recipe.ran.epoch_steps, "batch_size": recipe.ran.batch_size}
    return {"model": recipe.model.name, "seeds": seeds, "budget": budget, **compared(rights, groups)}


def describe(result: dict[str, Any], chosen: list[Variant]) -> str:
    """Two Markdown tables: the variants; RAN − single pass on every list. Differences have an interval over faces and,
    beside it, one over seeds."""
    names = list(next(iter(result["variants"].values())))
    header = ["part", "change", *(f"{name}, %" for name in names), "validation − recipe", "over seeds"]
    lines = [_row(header), "|" + "---|" * len(header)]
    for variant in chosen:
        lists = result["variants"][variant.key]
        cells = [_accuracy(lists[name]) for name in names]
        difference = lists["validation"].get("vs_recipe")
        lines.append(_row([variant.part, variant.change, *cells, _difference(difference), _over_seeds(difference)]))
    header = ["list", "faces", "RAN − single pass", "over seeds", "McNemar p by seed"]
    lines += ["", _row(header), "|" + "---|" * len(header)]
    for name, each in result["ran_minus_single_pass"].items():
        p_values = ", ".join(f"{test['p_value']:.3f}" for test in each["mcnemar"])
        if each["bootstrap"].get("groups") is not None:
            p_values = "–"
        bootstrap = each["bootstrap"]
        lines.append(_row([name, str(bootstrap["n"]), _difference(bootstrap), _over_seeds(bootstrap), p_values]))
    lines += ["", ABOUT_SEEDS]
    about = about_groups({name: each["bootstrap"] for name, each in result["ran_minus_single_pass"].items()})
    return "\n".join([*lines, *([""] if about else []), *about])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _accuracy(scores: dict[str, Any]) -> str:
    spread = "" if scores["spread"] is None else f" ± {100 * scores['spread']:.1f}"
    return f"{100 * scores['accuracy']:.1f}{spread}"


def _difference(difference: dict[str, Any] | None) -> str:
    return "–" if difference is None else percent_difference(difference)


def _over_seeds(difference: dict[str, Any] | None) -> str:
    if difference is None or difference["seeds_half_width"] is None:
        return "–"
    return f"{100 * difference['difference']:+.1f} ± {100 * difference['seeds_half_width']:.1f}"
