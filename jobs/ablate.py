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
from jobs.text import markdown_row
from pipeline.errors import UsageError
from ran_model.recipe import Recipe, read_recipe

if TYPE_CHECKING:  # torch: only when the command is called
    from torch import Tensor

    from jobs.stages import Stages
    from ran_model.ablation import Variant
    from ran_model.data import FaceSet, LabelledFaces
    from ran_model.network import RegionAttentionNetwork, SinglePassNetwork
    from ran_model.train_config import TrainConfig


ABOUT_SEEDS = (
    "In brackets: 95% intervals for these trained models on other faces. Over seeds: the mean difference ± t·sd/√n of "
    "the seeds' own differences, a 95% interval for last stages with other seeds, from this same start and teacher, on "
    "these faces."
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
    from jobs.deliver import check_folder_place
    from jobs.processes import in_processes, processes_for
    from jobs.training_faces import training_faces
    from ran_model.ablation import variants

    check_folder_place(f"--work {work}", work)
    try:
        plan = read_recipe(recipe)
        chosen = _chosen(variants(plan), only)
        faces = training_faces(plan, work)
        for variant in chosen:  # what a variant's regions lack is told before hours of training
            faces.for_model(variant.recipe.model)
        names = ["validation", *(name for name, labels in faces.listing.lists.items() if lists and labels)]
        in_processes(processes or processes_for(plan), work, _train_variants, plan, chosen, seeds, names, work)
        result = _result(plan, chosen, seeds, work, {name: faces.groups(name) for name in names})
    except ValueError as error:
        raise UsageError(str(error)) from None
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


def _train_variants(
    device: str, recipe: Recipe, chosen: list[Variant], seeds: int, names: list[str], work: Path
) -> None:
    """One of the training processes. Seed by seed, so that an unfinished run has whole tables. What is answered already
    needs no network."""
    import torch

    from jobs.align_faces import aligned_faces
    from jobs.processes import is_first
    from jobs.stages import Stages
    from ran_model.answers import Answers
    from ran_model.datasets import read_listing
    from ran_model.precision import uses_bf16
    from ran_model.train import settings

    listing = read_listing(recipe.data, layout=recipe.layout, labels=recipe.labels)
    data = aligned_faces(listing, recipe.model, work)
    stages = Stages(recipe=recipe, faces=data.train(), validation=data.validation(), work=work, device=device)
    teacher = stages.teacher()
    single = stages.single_pass(teacher)
    faces = {name: data.digest(name) for name in names}
    for variant, seed in ((variant, seed) for seed in range(seeds) for variant in chosen):
        model, config = variant.recipe.model, _with_seed(variant.recipe.ran, seed)
        training = settings(config, model, variant.recipe.augmentation, stages.origin_of_last_stage)
        answers = Answers(path=_answers_path(work, variant, seed), training=training, faces=faces)
        missing = answers.missing()
        if missing:
            own = data.for_model(model)  # regions may be each face's own
            network = _trained(stages, variant, seed, own.train(same=stages.faces), single, teacher)
            bf16 = uses_bf16(config.bf16, torch.device(device))
            rights = {name: _right(network, own, name, bf16) for name in missing}
            if is_first():
                answers.add(rights)


def _trained(
    stages: Stages,
    variant: Variant,
    seed: int,
    faces: FaceSet,
    single: SinglePassNetwork,
    teacher: SinglePassNetwork | None,
) -> RegionAttentionNetwork | SinglePassNetwork:
    """At once, where it is trained already."""
    from jobs.training_progress import training_progress
    from ran_model.network import ran_from_single_pass
    from ran_model.train import train

    network: RegionAttentionNetwork | SinglePassNetwork = (
        copy.deepcopy(single) if variant.is_twin else ran_from_single_pass(single, variant.recipe.model)
    )
    train(
        network.to(stages.device),
        faces,
        None,
        _with_seed(variant.recipe.ran, seed),
        _answers_path(stages.work, variant, seed).parent,
        variant.recipe.augmentation,
        teacher,
        progress=training_progress(f"{variant.key}, seed {seed}"),
        origin=stages.origin_of_last_stage,
    )
    return network


def _right(network: RegionAttentionNetwork | SinglePassNetwork, data: LabelledFaces, name: str, bf16: bool) -> Tensor:
    """Which faces of a test list, or of "validation", are answered right: bool (B)."""
    from ran_model.evaluate import over_expressions, predict_together

    faces = data.validation() if name == "validation" else data.test(name)
    answers_BK = predict_together(network, faces, bf16=bf16)
    if name != "validation":  # whose labels count over the model's own classes
        answers_BK = over_expressions(answers_BK, network.config)
    return answers_BK.argmax(dim=1) == faces.labels_B


def _with_seed(config: TrainConfig, seed: int) -> TrainConfig:
    """That of the variant's seed, counted from 0."""
    return replace(config, seed=config.seed + seed)


def _answers_path(work: Path, variant: Variant, seed: int) -> Path:
    return work / "variants" / f"{variant.key}-seed{seed}" / "right.json"


def _result(
    recipe: Recipe, chosen: list[Variant], seeds: int, work: Path, groups: dict[str, Tensor | None]
) -> dict[str, Any]:
    """Of the lists that `groups` names, whose answers are there."""
    from ran_model.ablation import compared
    from ran_model.answers import read_answers

    rights = {
        variant.key: [read_answers(_answers_path(work, variant, seed), groups) for seed in range(seeds)]
        for variant in chosen
    }
    budget = {"epochs": recipe.ran.epochs, "epoch_steps": recipe.ran.epoch_steps, "batch_size": recipe.ran.batch_size}
    return {"model": recipe.model.name, "seeds": seeds, "budget": budget, **compared(rights, groups)}


def describe(result: dict[str, Any], chosen: list[Variant]) -> str:
    """Two Markdown tables: the variants; RAN − single pass on every list. Differences have an interval over faces and,
    beside it, one over seeds."""
    names = list(next(iter(result["variants"].values())))
    header = ["part", "change", *(f"{name}, %" for name in names), "validation − recipe", "over seeds"]
    lines = [markdown_row(header), "|" + "---|" * len(header)]
    for variant in chosen:
        lists = result["variants"][variant.key]
        cells = [_accuracy(lists[name]) for name in names]
        difference = lists["validation"].get("vs_recipe")
        lines.append(
            markdown_row([variant.part, variant.change, *cells, _difference(difference), _over_seeds(difference)])
        )
    header = ["list", "faces", "RAN − single pass", "over seeds", "McNemar p by seed"]
    lines += ["", markdown_row(header), "|" + "---|" * len(header)]
    for name, each in result["ran_minus_single_pass"].items():
        p_values = ", ".join(f"{test['p_value']:.3f}" for test in each["mcnemar"])
        if each["bootstrap"].get("groups") is not None:
            p_values = "–"
        bootstrap = each["bootstrap"]
        lines.append(
            markdown_row([name, str(bootstrap["n"]), _difference(bootstrap), _over_seeds(bootstrap), p_values])
        )
    lines += ["", ABOUT_SEEDS]
    about = about_groups({name: each["bootstrap"] for name, each in result["ran_minus_single_pass"].items()})
    return "\n".join([*lines, *([""] if about else []), *about])


def _accuracy(scores: dict[str, Any]) -> str:
    spread = "" if scores["spread"] is None else f" ± {100 * scores['spread']:.1f}"
    return f"{100 * scores['accuracy']:.1f}{spread}"


def _difference(difference: dict[str, Any] | None) -> str:
    return "–" if difference is None else percent_difference(difference)


def _over_seeds(difference: dict[str, Any] | None) -> str:
    if difference is None or difference["seeds_half_width"] is None:
        return "–"
    return f"{100 * difference['difference']:+.1f} ± {100 * difference['seeds_half_width']:.1f}"
