"""`train`: a recipe to a model directory: align, teacher, single pass, RAN, evaluation and model card."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import click

from jobs.options import json_option
from pipeline.errors import UsageError
from ran_model.recipe import Recipe, read_recipe, write_recipe

LINE_INTERVAL_S = 15.0


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
@click.option("--processes", type=int, help="One per GPU, or per core to use (default: all of them).")
@json_option
def train_command(recipe: Path, output: Path, work: Path, processes: int | None, as_json: bool) -> None:
    """Train a region attention network by RECIPE.yaml and write it, with its figures and model card, to MODEL_DIR.

    Run the same command again after a kill: it goes on from the last checkpoint. jobs/recipes/default.yaml is the
    recipe of the model that ships, and shows every part.
    """
    from jobs.align_faces import aligned_faces
    from jobs.evaluate import describe
    from ran_model.datasets import read_listing

    try:
        plan = read_recipe(recipe)
        listing = read_listing(plan.data, layout=plan.layout, labels=plan.labels)
        for note in listing.notes:
            click.echo(f"note: {note}", err=True)
        if not listing.of("train") or not listing.of("validation"):
            raise UsageError(f"{plan.data} has no pictures to train on, or none to validate with")
        aligned_faces(listing, plan.model, work, threads=os.cpu_count() or 1)
        _train_all(plan, output, work, processes or _devices())
    except ValueError as error:
        raise UsageError(str(error)) from None
    result = json.loads((output / "evaluation.json").read_text())
    click.echo(json.dumps(result, indent=2) if as_json else describe(result))


def _devices() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _train_all(recipe: Recipe, output: Path, work: Path, processes: int) -> None:
    """One process per device. On a CPU one single-threaded process per core beats threads, which wait a lot."""
    meeting = (work / f"meeting-{uuid.uuid4().hex}").resolve()
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        ranks = [pool.submit(_train_rank, rank, processes, meeting, recipe, output, work) for rank in range(processes)]
        for done in as_completed(ranks):
            done.result()
    meeting.unlink(missing_ok=True)


def _train_rank(rank: int, processes: int, meeting: Path, recipe: Recipe, output: Path, work: Path) -> None:
    """One of the training processes; the first also evaluates and writes."""
    import torch
    import torch.distributed

    from jobs.align_faces import aligned_faces
    from ran_model.backbones import load_trunk
    from ran_model.datasets import read_listing
    from ran_model.network import SinglePassNetwork, ran_from_single_pass
    from ran_model.train import train

    cuda = torch.cuda.is_available()
    device = f"cuda:{rank}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "nccl" if cuda else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes
    )
    torch.manual_seed(recipe.single_pass.seed)
    listing = read_listing(recipe.data, layout=recipe.layout, labels=recipe.labels)
    data = aligned_faces(listing, recipe.model, work)
    faces, validation = data.train(), data.validation()
    teacher = None
    if recipe.teacher is not None:
        teacher = _teacher(recipe, faces, device)
        settings = recipe.teacher.train
        train(
            teacher, faces, validation, settings, work / "teacher", recipe.augmentation, progress=_progress("teacher")
        )
        teacher.requires_grad_(False)
    single = SinglePassNetwork(recipe.model)
    if recipe.trunk is not None:
        load_trunk(single.trunk.backbone, recipe.trunk)
    single = single.to(device)
    stage: dict[str, Any] = {"augmentation": recipe.augmentation, "teacher": teacher}
    train(
        single, faces, validation, recipe.single_pass, work / "single_pass", progress=_progress("single pass"), **stage
    )
    network = ran_from_single_pass(single).to(device)
    train(network, faces, validation, recipe.ran, work / "ran", progress=_progress("RAN"), **stage)
    torch.distributed.destroy_process_group()
    if rank == 0:
        if not cuda:
            torch.set_num_threads(processes)
        _write(recipe, network, single, data, output, work)


def _teacher(recipe: Recipe, faces: Any, device: str) -> Any:
    import torch

    from ran_model.backbones import load_trunk, renew_batch_norm
    from ran_model.network import SinglePassNetwork

    assert recipe.teacher is not None
    teacher = SinglePassNetwork(recipe.teacher.model)
    if recipe.teacher.trunk is not None:
        load_trunk(teacher.trunk.backbone, recipe.teacher.trunk)
    if recipe.teacher.folded_batch_norm:
        some = faces.faces_BCSS[torch.arange(0, len(faces), max(1, len(faces) // 256))]
        renew_batch_norm(teacher.trunk.backbone, teacher.trunk.normalised(some))
    return teacher.to(device)


def _write(recipe: Recipe, network: Any, single: Any, data: Any, output: Path, work: Path) -> None:
    from jobs.evaluation import evaluation
    from jobs.model_card import write_card
    from ran_model.pretrained import load_model, save_model, save_single_pass

    save_single_pass(work / "single_pass.safetensors", single)
    model_id = save_model(output, recipe.model, network, "# Being evaluated\n")
    stored = load_model(output)  # what ships, half-precision weights included, is what is reported
    result = evaluation(stored.network, data, model_id=model_id, twin=single.cpu())
    (output / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    write_recipe(recipe, output / "recipe.yaml")
    save_model(output, recipe.model, network, write_card(result, recipe, data.listing))


def _progress(stage: str) -> Callable[[int, int, float], None]:
    """A bar on a terminal, a plain line every so often in a log."""
    began, shown = time.monotonic(), [float("-inf")]

    def show(step: int, steps: int, loss: float) -> None:
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - shown[0] < (0.5 if terminal else LINE_INTERVAL_S) and step < steps:
            return
        shown[0] = now
        filled = 30 * step // steps
        bar = f"[{'#' * filled}{'.' * (30 - filled)}] " if terminal else ""
        end = "\n" if step == steps or not terminal else "\r"
        left = (now - began) / step * (steps - step) if step else 0.0
        sys.stderr.write(f"{stage}: {bar}step {step} of {steps}, loss {loss:.3f}, about {left:.0f} s left{end}")
        sys.stderr.flush()

    return show
