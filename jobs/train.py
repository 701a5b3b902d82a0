"""`train`: a recipe to a model directory: align, teacher, single pass, RAN and its twin, evaluation and model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.options import json_option
from pipeline.errors import UsageError
from ran_model.recipe import Recipe, read_recipe, write_recipe

if TYPE_CHECKING:  # torch: only when the command is called
    from ran_model.data import LabelledFaces
    from ran_model.network import RegionAttentionNetwork, SinglePassNetwork
    from ran_model.pretrained import LoadedModel


@click.command("train")
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.yaml")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="MODEL_DIR")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=".cache/training",
    show_default=True,
    help="Aligned faces, checkpoints and curves; the same command goes on from there.",
)
@click.option("--processes", type=int, help="One per GPU, or per core (default: all, if each gets 8 faces of a batch).")
@json_option
def train_command(recipe: Path, output: Path, work: Path, processes: int | None, as_json: bool) -> None:
    """Train a region attention network by RECIPE.yaml and write it, with its figures and model card, to MODEL_DIR.

    Run the same command again after a kill: it goes on from the last checkpoint, at most five minutes old.
    jobs/recipes/ has examples: own_faces.yaml explains the keys that training on with your own faces wants;
    default.yaml is the recipe of the model that ships.
    """
    from jobs.deliver import check_folder_place
    from jobs.evaluate import describe, not_found
    from jobs.evaluation import EVALUATION_FILE
    from jobs.processes import in_processes, processes_for
    from jobs.training_faces import training_faces

    check_folder_place(f"-o {output}", output)
    check_folder_place(f"--work {work}", work)
    try:
        plan = read_recipe(recipe)
        faces = training_faces(plan, work)
        click.echo(f"note: {not_found(faces.found_fraction)}", err=True)
        in_processes(processes or processes_for(plan), work, _train, plan, output, work)
    except ValueError as error:
        raise UsageError(str(error)) from None
    result = json.loads((output / EVALUATION_FILE).read_text())
    click.echo(json.dumps(result, indent=2) if as_json else describe(result))


def _train(device: str, recipe: Recipe, output: Path, work: Path) -> None:
    """One of the training processes; the first also evaluates and writes."""
    import torch
    import torch.distributed

    from jobs.align_faces import aligned_faces
    from jobs.processes import is_first
    from jobs.stages import Stages
    from ran_model.datasets import read_listing

    listing = read_listing(recipe.data, layout=recipe.layout, labels=recipe.labels)
    data = aligned_faces(listing, recipe.model, work)
    stages = Stages(recipe=recipe, faces=data.train(), validation=data.validation(), work=work, device=device)
    teacher = stages.teacher()
    single = stages.single_pass(teacher)
    network, twin = stages.ran(single, teacher), stages.twin(single, teacher)
    if is_first():
        if device == "cpu":
            torch.set_num_threads(torch.distributed.get_world_size())
        try:
            _write(recipe, network, twin, data, output)
        except OSError as error:
            raise ValueError(f"-o {output} can't be written: {error.strerror or error}") from None


def _start(recipe: Recipe, device: str) -> LoadedModel | None:
    """The model that training began from, if that sees faces as they were aligned for this one."""
    import torch

    from ran_model.pretrained import load_model

    if recipe.start is None:
        return None
    start = load_model(recipe.start, device=device, dtype=torch.float32)
    sees_the_same = all(
        getattr(start.config, name) == getattr(recipe.model, name) for name in ("aligned_size", "template", "colour")
    )
    return start if sees_the_same else None


def _write(
    recipe: Recipe, network: RegionAttentionNetwork, twin: SinglePassNetwork, data: LabelledFaces, output: Path
) -> None:
    import torch

    from jobs.evaluation import EVALUATION_FILE, evaluation
    from jobs.model_card import write_card
    from ran_model.model_files import TWIN_FILE
    from ran_model.pretrained import load_model, load_single_pass, save_model, save_single_pass

    device = str(next(network.parameters()).device)
    model_id = save_model(output, recipe.model, network, "# Being evaluated\n")
    save_single_pass(output / TWIN_FILE, twin)
    # What ships, half-precision weights included, is what is reported.
    stored = load_model(output, device=device, dtype=torch.float32)
    stored_twin = load_single_pass(output / TWIN_FILE, recipe.model).to(device)
    result = evaluation(stored.network, data, model_id=model_id, twin=stored_twin, start=_start(recipe, device))
    (output / EVALUATION_FILE).write_text(json.dumps(result, indent=1) + "\n")
    write_recipe(recipe, output / "recipe.yaml")
    save_model(output, recipe.model, network, write_card(result, recipe, data.listing))
