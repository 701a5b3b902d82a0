"""`convert`: a PyTorch or safetensors checkpoint of other code to a model directory, or to a trunk to start from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.options import json_option
from pipeline.errors import UsageError
from ran_model.config import ATTENTION_NORMS, COLOURS
from ran_model.datasets.expressions import expression_index
from ran_model.labels import EXPRESSIONS

if TYPE_CHECKING:  # torch: only when the command is called
    from ran_model.checkpoints import Checkpoint


@click.command("convert")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("-o", "--output", required=True, metavar="MODEL_DIR", help="New folder, or .safetensors of --trunk-only.")
@click.option("--trunk-only", is_flag=True, help="Write only the trunk, as a start for training.")
@click.option("--classes", metavar="A,B,…", help="In the order of the logits (default for eight: FERPlus' order).")
@click.option(
    "--regions",
    type=click.Choice(["fixed", "affectnet", "whole"]),
    help="Six fixed (default), AffectNet's eight, or the whole face alone, of a single-pass classifier.",
)
@click.option("--attention-norm", type=click.Choice(ATTENTION_NORMS), help="Default: authors, for their network.")
@click.option(
    "--colour",
    type=click.Choice(COLOURS),
    help="Default: as the first layer takes it. A colour network that learnt from grey pictures wants grey.",
)
@click.option("--input-size", type=int, help="Pixels of a region's side as the network sees it (default 224).")
@click.option("--mean", metavar="NUMBER", help="Of pixels in 0-1 (default 0 for the authors' network).")
@click.option("--std", metavar="NUMBER", help="Of pixels in 0-1 (default 1 for the authors' network).")
@click.option("--name", help="The model's name, for people.")
@json_option
def convert_command(
    checkpoint: str,
    output: str,
    trunk_only: bool,
    classes: str | None,
    regions: str | None,
    attention_norm: str | None,
    colour: str | None,
    input_size: int | None,
    mean: str | None,
    std: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Make a model directory of CHECKPOINT, a .safetensors or PyTorch file, without running code from it.

    Recognised are the RAN authors' ResNet-18, and ResNet-18 and -50 by torchvision's names: with a classifier of
    expressions they become models, else, as facenet-pytorch's InceptionResnetV1, trunks (--trunk-only). The order of
    regions does not matter to the weights: all share one attention. A single-pass classifier answers as it did with
    --regions whole; else by the mean of its answers over the regions.
    """
    options: dict[str, Any] = {
        "classes": None if classes is None else tuple(map(_expression, classes.split(","))),
        "regions": regions,
        "attention_norm": attention_norm,
        "colour": colour,
        "input_size": input_size,
        "mean": _one_number("--mean", mean),
        "std": _one_number("--std", std),
        "name": name,
    }
    given = {key: value for key, value in options.items() if value is not None}
    target = Path(output)
    _check_target(target, trunk_only)
    if trunk_only and given:
        raise UsageError(f"--trunk-only writes no configuration: leave out --{next(iter(given)).replace('_', '-')}")
    from ran_model.checkpoints import read_checkpoint  # torch: only when called

    try:
        read = read_checkpoint(Path(checkpoint))
        told = {
            "recognised": read.description,
            "kind": read.kind,
            "backbone": read.backbone,
            "sha256": read.sha256,
            "output": str(target),
            **(_trunk(read, target) if trunk_only else _model(read, target, given)),
        }
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"-o {output} can't be written: {error.strerror or error}") from None
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"recognised: {told['recognised']}")
    if not trunk_only:
        click.echo(f"classes: {', '.join(told['classes'])} ({'as given' if classes else 'assumed: FERPlus order'})")
        click.echo(f"model_id: {told['model_id']}")
    click.echo(f"wrote {output}")
    click.echo("The licence of the weights is yours to check.")


def _expression(name: str) -> str:
    """Its name here, where it is known by another, such as happy; else as it was given."""
    index = expression_index(name)
    return name.strip() if index is None else EXPRESSIONS[index]


def _model(read: Checkpoint, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    from ran_model.convert import model_from_checkpoint, write_card
    from ran_model.pretrained import save_model

    config, network = model_from_checkpoint(read, **options)
    model_id = save_model(target, config, network, write_card(read, config))
    return {
        "model_id": model_id,
        "classes": list(config.classes),
        "classes_assumed": "classes" not in options,
    }


def _trunk(read: Checkpoint, target: Path) -> dict[str, Any]:
    from ran_model.checkpoints import save_trunk

    save_trunk(read, target)
    return {"left_out": list(read.head)}


def _check_target(target: Path, trunk_only: bool) -> None:
    if trunk_only and target.suffix != ".safetensors":
        raise UsageError(f"-o {target} must end with .safetensors: --trunk-only writes one file")
    if target.exists() and not (target.is_dir() and not trunk_only and not any(target.iterdir())):
        raise UsageError(f"-o {target} is there already, and is not overwritten: name a new one")


def _one_number(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    if "," in text:
        raise UsageError(
            f"{option} {text} is one number per channel, and models here normalise all channels alike; it can't be "
            "folded into the first layer exactly, which pads with zeros. Use the checkpoint as a start: --trunk-only"
        )
    raise UsageError(f"{option} {text} is no number")
