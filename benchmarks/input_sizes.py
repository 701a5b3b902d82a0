"""What the input size costs and brings: GMAC per face, faces/s of one CPU thread, validation accuracy.

Every size starts from the same single pass (a recipe's `start` or `trunk`) and is fine-tuned on the same faces by the
recipe's `single_pass` stage, by its teacher where it has one. A killed run goes on from its checkpoints. Not among the
benchmarks that run unnamed: it trains.

python -m benchmarks.input_sizes [RECIPE] [--work FOLDER] [--sizes 64,96,…] [--processes N] [--measure-only]
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.align_faces import aligned_faces
from jobs.processes import in_processes, processes_for
from jobs.stages import Stages
from jobs.training_faces import training_faces
from ran_model.config import ModelConfig
from ran_model.datasets import read_listing
from ran_model.network import RegionAttentionNetwork
from ran_model.recipe import Recipe, read_recipe
from ran_model.regions import region_boxes
from ran_model.train import SETTINGS_FILE, settings

RECIPE = Path(__file__).parent.parent / "jobs" / "recipes" / "short.yaml"
SIZES = (64, 96, 112, 160, 224)
ROUNDS, TIMED_FACES = 5, 8


def gmac_per_face(config: ModelConfig) -> float:
    """Multiply-accumulates of a face's convolutions and linear layers, all regions, in units of 1e9."""
    network, total = RegionAttentionNetwork(config).eval(), 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weights = layer.weight[0].numel()  # of one output value
        total += output.numel() * weights

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, config.channels, config.aligned_size, config.aligned_size), _boxes(config))
    return total / 1e9


def faces_per_cpu_second(configs: list[ModelConfig]) -> list[float]:
    """Of one thread in float32, as the product runs on a CPU. Sizes take turns, so that a busy machine slows all."""
    from ran_model.backbones import fold_batch_norm

    torch.set_num_threads(1)
    networks = [RegionAttentionNetwork(config).eval().requires_grad_(False) for config in configs]
    for network in networks:
        fold_batch_norm(network.trunk.backbone)
    seconds: list[list[float]] = [[] for _ in configs]
    with torch.inference_mode():
        for turn in range(ROUNDS + 1):
            for index, (config, network) in enumerate(zip(configs, networks, strict=True)):
                faces = torch.zeros(
                    TIMED_FACES, config.channels, config.aligned_size, config.aligned_size, dtype=torch.uint8
                )
                begun = time.process_time()
                network(faces, _boxes(config))
                if turn > 0:  # the first warms up
                    seconds[index].append(time.process_time() - begun)
    return [TIMED_FACES / statistics.median(each) for each in seconds]


def _boxes(config: ModelConfig) -> Tensor:
    return torch.from_numpy(region_boxes(config, 1))


def _fine_tune(device: str, recipe: Recipe, sizes: list[int], work: Path) -> None:
    """One of the training processes."""
    data = aligned_faces(read_listing(recipe.data, layout=recipe.layout, labels=recipe.labels), recipe.model, work)
    faces, validation = data.train(), data.validation()
    stages = Stages(recipe=recipe, faces=faces, validation=validation, work=work, device=device)
    teacher = stages.teacher()
    for size in sizes:
        replace(stages, recipe=_sized(recipe, size)).single_pass(teacher, _folder(size))


def _sized(recipe: Recipe, size: int) -> Recipe:
    return replace(recipe, model=replace(recipe.model, input_size=size))


def _folder(size: int) -> str:
    return f"input-{size}"


def _accuracy(work: Path, recipe: Recipe, size: int) -> float | None:
    """On validation, after the last epoch; None where that is not done, or was done by another recipe."""
    path, epochs = work / _folder(size) / "curve.csv", recipe.single_pass.epochs
    if not path.exists():
        return None
    was = json.loads(path.with_name(SETTINGS_FILE).read_text())
    model = _sized(recipe, size).model
    if was != json.loads(settings(recipe.single_pass, model, recipe.augmentation, was["origin"])):
        return None
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return float(rows[-1]["validation_accuracy"]) if len(rows) == epochs else None


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    first = rows[0]
    lines = [
        "| input, px | GMAC per face | CPU faces/s | speed | validation, % |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        speed = row["faces_per_cpu_second"] / first["faces_per_cpu_second"]
        accuracy = "–" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f}"
        lines.append(
            f"| {row['input_size']} | {row['gmac']:.2f} | {row['faces_per_cpu_second']:.1f} | {speed:.2f} | "
            f"{accuracy} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Fine-tunes what is not there yet, measures, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", nargs="?", type=Path, default=RECIPE)
    parser.add_argument("--work", type=Path, default=Path(".cache/input-sizes"))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--measure-only", action="store_true", help="don't train; tell what is there")
    given = parser.parse_args(arguments or [])
    recipe, sizes = read_recipe(given.recipe), [int(size) for size in given.sizes.split(",")]
    if not given.measure_only:
        training_faces(recipe, given.work)
        in_processes(given.processes or processes_for(recipe), given.work, _fine_tune, recipe, sizes, given.work)
    configs = [_sized(recipe, size).model for size in sizes]
    rows = []
    for config, speed in zip(configs, faces_per_cpu_second(configs), strict=True):
        rows.append(
            {
                "input_size": config.input_size,
                "gmac": gmac_per_face(config),
                "faces_per_cpu_second": speed,
                "accuracy": _accuracy(given.work, recipe, config.input_size),
            }
        )
    stage = recipe.single_pass
    print(f"{recipe.model.name}: {len(recipe.model.regions)} regions; validation of the single pass")
    print(f"fine-tuned for {stage.epochs} epochs of {stage.epoch_steps or 'all'} steps of {stage.batch_size} faces")
    print(table(rows))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
