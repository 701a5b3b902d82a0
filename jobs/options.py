"""Options that several commands share, and the YAML file that may stand in for them."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from pipeline.config import DEFAULT_DETECTOR
from pipeline.errors import UsageError
from pipeline.run_config import CROP_ON, DEVICES, ON_CHANGED

Command = TypeVar("Command", bound=Callable[..., Any])

DETECTORS = (DEFAULT_DETECTOR, "retinaface-resnet50")


def read_config_file(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """`--config FILE`: a YAML mapping of option names to values. Flags win over it; a name without a value (`limit:`)
    leaves the option as it is.

    One file may serve several commands: what only `run` has is left out elsewhere, and said.
    """
    if value is None:
        return
    try:
        content = yaml.safe_load(Path(value).read_text())
    except OSError as error:
        raise UsageError(f"--config {value} can't be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"--config {value} is not YAML{_place(error)}") from None
    if content is None:
        return
    if not isinstance(content, dict):
        raise UsageError(f"--config {value} must be a mapping of option names to values, like `fps: 5`")
    names = _parameters(context.command)
    defaults: dict[str, Any] = {}
    left_out: list[str] = []
    for key, item in content.items():
        spelled = str(key).replace("-", "_")
        option = names.get(spelled)
        if option is None:
            if spelled not in _parameters_of_run():
                allowed = ", ".join(_allowed(context.command))
                raise UsageError(f"--config {value} has the unknown key {key!r}; allowed are {allowed}")
            left_out.append(str(key))
            continue
        if item is None:
            continue
        if isinstance(item, dict):
            item = [f"{k}={v}" for k, v in item.items()]
        elif isinstance(item, list):
            item = [str(part) for part in item if part is not None]
        elif option.multiple or option.nargs == -1:
            item = [str(item)]
        assert option.name is not None
        defaults[option.name] = item
    if left_out:
        click.echo(f"note: --config {value}: {', '.join(left_out)}: not of this command, left out", err=True)
    context.default_map = {**(context.default_map or {}), **defaults}


def _parameters(command: click.Command) -> dict[str, click.Parameter]:
    """A command's parameters by the keys that a --config file may use."""
    names: dict[str, click.Parameter] = {}
    for parameter in command.params:
        if parameter.name and parameter.name != "config":
            names[parameter.name] = parameter
            names |= {flag.lstrip("-").replace("-", "_"): parameter for flag in parameter.opts}
    return names


def _allowed(command: click.Command) -> list[str]:
    """The keys of a --config file as the help spells them, an option's long form for all of its names."""
    shown = [each for each in command.params if each.name != "config" and not getattr(each, "hidden", False)]
    return sorted(max(each.opts, key=len).lstrip("-").replace("_", "-") for each in shown)


def _parameters_of_run() -> dict[str, click.Parameter]:
    from jobs.run import run_command  # it imports this module

    return _parameters(run_command)


def _place(error: yaml.YAMLError) -> str:
    """What is wrong and where. The parser's own message quotes the line, which may hold a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ""
    mark = error.problem_mark
    return f": {error.problem} in line {mark.line + 1}, column {mark.column + 1}"


config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False),
    callback=read_config_file,
    is_eager=True,
    expose_value=False,
    help="YAML file with any of these options; flags win.",
)
storage_option = click.option(
    "--storage-option",
    "storage_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="For S3 and other stores: endpoint, profile, region, key, secret, anonymous, requester_pays. Never saved.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output on stdout.")


def parse_storage_options(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("endpoint=http://…",)` as a mapping."""
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError("--storage-option wants KEY=VALUE, for example endpoint=http://localhost:9000")
        options[key.strip()] = value
    return options


def read_list(name: str) -> list[str]:
    """The inputs that a file, or standard input for `-`, names: between NUL bytes if it has any, else one a line.

    Raises UsageError if it can't be read.
    """
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"--from-file {name} can't be read: {error.strerror}") from None
    data = data.removeprefix(codecs.BOM_UTF8)
    entries = data.split(b"\0") if b"\0" in data else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [os.fsdecode(entry) for entry in entries if entry]


def extraction_options(command: Command) -> Command:
    """The options that decide which rows exist."""
    options = [
        click.option("--fps", default="5", show_default=True, help="Sampled frames per second, or `all`."),
        click.option("--segment-frames", default=32, show_default=True, help="Sampled frames per segment."),
        click.option(
            "--detector",
            type=click.Choice(DETECTORS),
            default=DEFAULT_DETECTOR,
            show_default=True,
            help="retinaface-resnet50 needs the extra retinaface-pytorch, and --detector-weights.",
        ),
        click.option("--detector-weights", metavar="PATH", help="Weights file for a detector not bundled here."),
        click.option("--min-face", default=24, show_default=True, help="Smallest face kept, in pixels."),
        click.option("--min-score", default=0.6, show_default=True, help="Lowest detection score kept."),
        click.option("--max-faces", default=64, show_default=True, help="Most faces kept per frame."),
        click.option(
            "--detect-max-side",
            default=960,
            show_default=True,
            help="Longer side that frames are downscaled to for detection, in pixels.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def run_options(command: Command) -> Command:
    """The options of `run` and `plan` that don't."""
    options = [
        click.option("-o", "--output", required=True, metavar="OUT", help="The dataset: a folder or s3:// URL."),
        click.option(
            "--from-file",
            "from_files",
            multiple=True,
            metavar="FILE",
            help="Inputs from a list, one a line or between NUL bytes (`find -print0`), taken as they are; - is stdin.",
        ),
        click.option(
            "--root", metavar="DIR", help="Name sources relative to this folder or prefix; from the first run on."
        ),
        click.option("--model", default="default", show_default=True, metavar="DIR", help="Model directory."),
        click.option(
            "--on-changed",
            type=click.Choice(ON_CHANGED),
            default="error",
            show_default=True,
            help="If a file changed since it was processed: add an error row, or replace its rows, of every model.",
        ),
        click.option(
            "--keep-crops", is_flag=True, help="Also keep the aligned faces; segments that are done get none later."
        ),
    ]
    command = execution_options(command)
    for option in reversed(options):
        command = option(command)
    return command


def execution_options(command: Command) -> Command:
    """How a run is carried out, for every command that starts one."""
    options = [
        click.option("--limit", type=int, help="At most this many new segments."),
        click.option(
            "--max-error-rate",
            default=0.0,
            show_default=True,
            help="Largest share of failed sources that still exits 0.",
        ),
        click.option(
            "--device",
            type=click.Choice(DEVICES),
            default="auto",
            show_default=True,
            help="Where the network runs; auto takes GPUs if there are any.",
        ),
        click.option(
            "--crop-on",
            type=click.Choice(CROP_ON),
            default="device",
            show_default=True,
            help="Where a face's regions are cut: where the network runs, or before, by decoding processes.",
        ),
        click.option(
            "--decoder",
            default="pyav",
            show_default=True,
            metavar="NAME",
            help="For videos: pyav, decord (the same frames), or a class of your own as MODULE:CLASS.",
        ),
        click.option(
            "--decode-actors",
            type=int,
            help="Decoding processes over the whole cluster; without GPUs they do all stages.",
        ),
        click.option("--ran-actors", type=int, help="Inference processes of their own, on CPUs too."),
        click.option(
            "--max-decode-actors", type=int, help="Upper limit for decoding processes on an autoscaling cluster."
        ),
        click.option(
            "--max-ran-actors", type=int, help="Upper limit for inference processes on an autoscaling cluster."
        ),
        click.option(
            "--decode-cpus",
            type=float,
            help="CPUs that a decoding process reserves: 1 with GPUs; without, .2, and .7 more for the other stages.",
        ),
        click.option("--ran-gpus", type=float, help="GPUs of an inference process; .5 lets two share one (default 1)."),
        click.option(
            "--wait-for-nodes-s",
            default=0.0,
            show_default=True,
            help="Autoscaling: wait up to this long for nodes; with --device cuda for GPU nodes too.",
        ),
        click.option("--batch-size", type=int, help="Faces per forward pass (default 16 on CPU, 256 on GPU)."),
        click.option(
            "--deadline-s",
            default=300.0,
            show_default=True,
            help="Longest time to decode one segment and to find and align its faces.",
        ),
        click.option("--decode-memory", default=4.0, show_default=True, help="GiB a decoder may use."),
        click.option("--scratch", metavar="DIR", help="Each node's cache of remote inputs (default: its temp folder)."),
        click.option("--scratch-gib", default=20.0, show_default=True, help="Most that the cache may hold."),
        click.option(
            "--commit-interval-s",
            default=60.0,
            show_default=True,
            help="Seconds between commits, which make rows visible.",
        ),
        click.option("--heartbeat-s", default=10.0, hidden=True),
        click.option("--stale-after-s", default=60.0, hidden=True),
        click.option("--address", metavar="ADDRESS", help="Ray cluster to join (default: RAY_ADDRESS, else local)."),
        storage_option,
        config_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command
