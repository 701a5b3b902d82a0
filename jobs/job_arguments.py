"""A command's arguments on their way to a cluster: checked here, readable there, and free of secrets.

A job's entrypoint is shown in Ray's dashboard, its runtime environment too, and both stay in its logs. So a secret has
no way to travel with a job: the nodes have their own credentials.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click
from click.core import ParameterSource

from pipeline.errors import UsageError
from pipeline.storage.options import PUBLIC_KEYS
from pipeline.urls import without_credentials

_MEND = "credentials come from the nodes: their environment, profile or IAM role"


def checked_arguments(command: click.Command, name: str, given: Sequence[str]) -> list[str]:
    """`given` as the job gets it, after the command itself has parsed it. What a --config file says becomes flags: the
    cluster doesn't have the file.

    Raises click.UsageError for what the command would refuse; UsageError for a secret, for standard input, and for
    --address, which the job has from Ray.
    """
    with command.make_context(name, list(given)) as context:
        _refuse_what_stays_here(context)
        kept, inputs = list(_without_config(given)), list(_inputs_from_config(context))
        # Flags first: behind a `--` they would be inputs. Inputs last: one may begin with a dash.
        ending = inputs if not inputs or "--" in kept else ["--", *inputs]
        travelling = [*_flags_from_config(context), *kept, *ending]
    for argument in travelling:
        _refuse_secret_url(argument)
    return travelling


def _refuse_what_stays_here(context: click.Context) -> None:
    values = context.params
    if values.get("address"):
        raise UsageError("--address goes before the `--`: inside the cluster the job finds Ray by itself")
    if "-" in values.get("from_files", ()):
        raise UsageError(
            "--from-file - reads standard input, which a job doesn't have; put the list into a folder and give that as "
            "--working-dir"
        )
    for pair in values.get("storage_options", ()):
        key = pair.partition("=")[0].strip()
        if key not in PUBLIC_KEYS:
            raise UsageError(
                f"--storage-option {key}=… would be visible in the cluster's dashboard; {_MEND}. "
                f"Without a secret are {', '.join(PUBLIC_KEYS)}"
            )


def _refuse_secret_url(argument: str) -> None:
    """Raises UsageError for a URL that carries a password or a query, which may be a signature."""
    shown = without_credentials(argument)
    if shown != argument:
        raise UsageError(
            f"{shown} came with user info or a query, which the cluster's dashboard would show; leave them out "
            f"({_MEND}) or put the URL into a list (--from-file) in a folder that you give as --working-dir"
        )


def _without_config(given: Sequence[str]) -> Iterator[str]:
    rest = iter(given)
    for argument in rest:
        if argument == "--":
            yield argument
            yield from rest
        elif argument == "--config":
            next(rest)
        elif not argument.startswith("--config="):
            yield argument


def _flags_from_config(context: click.Context) -> Iterator[str]:
    for parameter, values in _from_config(context):
        if isinstance(parameter, click.Option) and parameter.is_flag:
            assert parameter.name is not None
            yield from parameter.opts[:1] if context.params[parameter.name] else parameter.secondary_opts[:1]
        elif isinstance(parameter, click.Option):
            yield from (f"{_long(parameter)}={item}" for item in values)


def _inputs_from_config(context: click.Context) -> Iterator[str]:
    for parameter, values in _from_config(context):
        if isinstance(parameter, click.Argument):
            yield from map(str, values)


def _from_config(context: click.Context) -> Iterator[tuple[click.Parameter, list[Any]]]:
    """The parameters that a --config file gave, and their values."""
    for parameter in context.command.params:
        if parameter.name is None or context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT_MAP:
            continue
        value: Any = (context.default_map or {})[parameter.name]
        yield parameter, value if isinstance(value, list) else [value]


def _long(option: click.Parameter) -> str:
    """The flag in its form with two dashes, which takes `=`."""
    return max(option.opts, key=len)
