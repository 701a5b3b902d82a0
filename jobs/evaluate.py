"""`evaluate`: a model's accuracy, calibration and behaviour under occlusion on a labelled data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from jobs.intervals import about_groups, percent_difference
from jobs.options import json_option
from jobs.text import points, table
from pipeline.errors import UsageError
from pipeline.terminal import counted
from ran_model.datasets import LAYOUTS, read_listing


@click.command("evaluate")
@click.option("--model", default="default", show_default=True, metavar="DIR", help="Model directory.")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), metavar="PATH", help="Data set; see the README."
)
@click.option("--layout", type=click.Choice(["auto", *LAYOUTS]), default="auto", show_default=True)
@click.option("--labels", type=click.Path(path_type=Path), help="CSV of labels for kept crops.")
@click.option(
    "--all",
    "all_pictures",
    is_flag=True,
    help="Score every labelled picture, not the test lists and validation part alone: for data that the model was "
    "neither trained nor chosen on.",
)
@click.option(
    "--single-pass",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A single-pass network to compare with (default: the twin that `train` wrote beside the model).",
)
@click.option(
    "--work", type=click.Path(path_type=Path), default=".cache/faces", show_default=True, help="Aligned faces."
)
@click.option("--figure", type=click.Path(path_type=Path), help="Draw the occlusion probe to this PNG.")
@json_option
def evaluate_command(
    model: str,
    data: Path,
    layout: str,
    labels: Path | None,
    all_pictures: bool,
    single_pass: Path | None,
    work: Path,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Score a model on the test lists of a labelled data set, which must not have been used to choose it, and on its
    validation part."""
    import torch

    from jobs.align_faces import aligned_faces
    from jobs.deliver import check_file_place, check_folder_place
    from jobs.evaluation import evaluation, recorded_single_pass
    from ran_model.model_files import TWIN_FILE
    from ran_model.pretrained import default_model_dir, load_model, load_single_pass

    device = "cuda" if torch.cuda.is_available() else "cpu"
    directory = default_model_dir() if model == "default" else Path(model)
    if single_pass is None and (directory / TWIN_FILE).exists():
        single_pass = directory / TWIN_FILE
    check_folder_place(f"--work {work}", work)
    if figure is not None:
        check_file_place(f"--figure {figure}", figure)
        if single_pass is None:
            raise UsageError(
                "--figure compares with a single-pass twin, and the model has none: give --single-pass FILE"
            )
    try:
        listing = read_listing(data, layout=layout, labels=labels)
        if all_pictures:
            listing = listing.all_tested()
        loaded = load_model(directory, device=device, dtype=torch.float32)
        if not any(listing.lists.values()) and not listing.of("validation", loaded.config.classes):
            for note in listing.told:
                click.echo(f"note: {note}", err=True)
            hint = ", and a column `split` in --labels says which faces are for `test`" if labels else ""
            raise UsageError(
                f"{data} has no test lists, and no validation part with expressions that the model knows: there is "
                f"nothing to score; `--all` takes every labelled picture{hint}"
            )
        twin = None if single_pass is None else load_single_pass(single_pass, loaded.config).to(device)
        faces = aligned_faces(listing, loaded.config, work)
        result = evaluation(loaded.network, faces, model_id=loaded.model_id, twin=twin)
        if twin is None:
            result |= recorded_single_pass(directory, result)
    except ValueError as error:
        raise UsageError(str(error)) from None
    click.echo(json.dumps(result, indent=2) if as_json else describe(result))
    if figure is not None:
        from jobs.probe_figure import draw_evaluation

        try:
            draw_evaluation(result, loaded.config, figure)
        except ValueError as error:
            raise UsageError(f"--figure {figure}: {error}") from None
        except OSError as error:
            raise UsageError(f"--figure {figure} can't be written: {error.strerror or error}") from None


def describe(result: dict[str, Any]) -> str:
    """The evaluation for people."""
    lines = [f"{result['model']} ({result['model_id']}) on {result['data']['name']}"]
    data = result["data"]
    lines += [f"note: {note}" for note in (*data["notes"], not_found(data["found_fraction"]), *_not_scored(data))]
    twin, start = (result.get(name, {}).get("lists", {}) for name in ("single_pass", "start"))
    has_copies = any(scores["without_copies"] for scores in result["lists"].values())
    header = (
        *("list", "faces", "accuracy", "macro recall", "ECE"),
        *(("without copies",) if has_copies else ()),
        *(("single pass", "difference") if twin else ()),
        *(("the start", "gained") if start else ()),
    )
    rows = []
    for name, scores in result["lists"].items():
        row = [
            name,
            scores["n"],
            points(scores["accuracy"]),
            points(scores["macro_recall"]),
            f"{scores['ece']:.3f}",
        ]
        if has_copies:
            part = scores["without_copies"]
            row.append("" if part is None else f"{points(part['accuracy'])} of {part['n']}")
        if twin:
            row += [points(twin[name]["accuracy"]), _difference(result["comparison"].get(name))]
        if start:
            row += [points(start[name]["accuracy"]), _difference(result["start"]["comparison"].get(name))]
        rows.append(row)
    lines += ["", table(header, rows)]
    lines += about_groups({name: each["bootstrap"] for name, each in result.get("comparison", {}).items()})
    lines += _about_start(result)
    if result.get("single_pass", {}).get("recorded"):
        lines.append(
            "The single pass isn't beside the model: its figures are those that were kept when it was trained."
        )
    main = "full" if "full" in result["lists"] else next(iter(result["lists"]))
    classes = [
        (name, each["n"], points(each["recall"]), points(each["precision"]))
        for name, each in result["lists"][main]["per_class"].items()
    ]
    lines += ["", table((f"class ({main})", "faces", "recall", "precision"), classes)]
    if "occlusion_probe" in result:
        probes = result["occlusion_probe"]["ran"]
        regions = list(probes[0]["attention"])
        covers = [
            (each["cover"], points(each["accuracy"]), *(points(each["attention"][region]) for region in regions))
            for each in probes
        ]
        covered = f"{counted(probes[0]['n'], 'face')}, covered"
        lines += ["", table((covered, "accuracy", *regions), covers)]
    return "\n".join(lines)


def not_found(found_fraction: float) -> str:
    """How many pictures the model sees whole, for people: many mean that it is trained or judged on something else than
    faces."""
    return f"no face was found in {1 - found_fraction:.1%} of the pictures, which are taken whole"


def _not_scored(data: dict[str, Any]) -> list[str]:
    """For people who gave more labels than are asked about."""
    left = data["pictures"] - data["scored"]
    if not left:
        return []
    return [
        f"{data['scored']} of {counted(data['pictures'], 'picture')} are scored, the others are there for training; "
        "`evaluate --all` scores every one, for a model that saw none of them"
    ]


def _about_start(result: dict[str, Any]) -> list[str]:
    """What it was trained from, and whether training has spoilt that: few faces and a high rate may."""
    if "start" not in result:
        return []
    start = result["start"]
    lines = [f"The start is {start['model']} ({start['model_id']}), from which training went on."]
    chosen_by = "validation" if "validation" in start["lists"] else next(iter(start["lists"]))
    lost = start["lists"][chosen_by]["accuracy"] - result["lists"][chosen_by]["accuracy"]
    if lost > 0:
        lines.append(
            f"Training lost {100 * lost:.1f} points on {chosen_by}, where the start is the better model: try a lower "
            "learning_rate, fewer epochs, `single_pass: {epochs: 0}`, or more faces."
        )
    return lines


def _difference(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return ""
    difference = percent_difference(comparison["bootstrap"])
    if comparison["bootstrap"].get("groups") is not None:
        return difference
    return f"{difference}, p={comparison['mcnemar']['p_value']:.3f}"
