"""`submit`: any command as a job on a Ray cluster, through Ray's job API."""

from __future__ import annotations

import json
import os
import shlex
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from jobs.job_arguments import checked_arguments
from jobs.options import json_option
from pipeline import __version__
from pipeline.cluster import token_wanted
from pipeline.errors import StoreError, UsageError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

#: Left out of --working-dir: history, environments and caches, and what a job has no business to carry.
EXCLUDED = [".git/", ".venv/", "venv/", "__pycache__/", "node_modules/", ".cache/", "*.mp4", "*.mov", "*.mkv", "*.avi"]
STOP_WAIT_S = 120  # `ray job stop` kills after this; a run commits what is staged first


@click.command("submit", context_settings={"allow_interspersed_args": False})
@click.option(
    "--address",
    required=True,
    envvar="RAY_API_SERVER_ADDRESS",
    metavar="URL",
    help="The cluster's dashboard, like http://head:8265 (default: RAY_API_SERVER_ADDRESS).",
)
@click.option("--wait", is_flag=True, help="Follow the job's log and end with its exit code.")
@click.option("--follow", "followed", metavar="JOB_ID", help="Follow a job that was submitted before.")
@click.option(
    "--working-dir",
    metavar="DIR",
    help="A small folder (lists of inputs, a model) that the job starts in. By default nothing is uploaded.",
)
@json_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]…")
def submit_command(
    address: str, wait: bool, followed: str | None, working_dir: str | None, as_json: bool, arguments: tuple[str, ...]
) -> int:
    """Run COMMAND, with the arguments that it has here, as a job on a Ray cluster.

    `run`, `reprocess` and `retry` use all of the cluster, other commands its head node alone.

    The job id goes to standard output, the log to standard error. With --wait, Ctrl-C ends only the following: the job
    goes on, and --follow JOB_ID comes back to it. The cluster must have this package on its nodes; paths are those of
    its head node.
    """
    if bool(followed) == bool(arguments):
        raise UsageError("give a command to submit, `submit --address URL -- run …`, or --follow JOB_ID: one of both")
    entrypoint = _entrypoint(arguments) if arguments else ""
    client = _client(address)
    job_id = followed or _submit(client, entrypoint, working_dir)
    if not followed and not as_json:
        click.echo(job_id)
    if wait or followed:
        return _follow(client, job_id, address, as_json, is_new=not followed)
    if as_json:
        _echo_json(job_id, address)
    else:
        click.echo(f"submitted; follow it with: {_come_back(address, job_id)}", err=True)
    return 0


def _entrypoint(arguments: tuple[str, ...]) -> str:
    """The job's command line, after the command has parsed it here: a typo ends here and now, with exit code 2."""
    from jobs.cli import COMMANDS, cli

    name, *given = arguments
    command = cli.get_command(click.get_current_context(), name)
    if command is None or command is submit_command:
        allowed = ", ".join(other for other in COMMANDS if other != "submit")
        raise UsageError(f"there is no command {name!r} to submit; there are {allowed}")
    return shlex.join(["ran-pipeline", name, *checked_arguments(command, name, given)])


def _client(address: str) -> JobSubmissionClient:
    """The job API at `address`. Raises UsageError for another kind of address, StoreError if nobody is there."""
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"--address is {address!r}: it is the dashboard's URL, like http://head:8265")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    from jobs.following import answer

    try:
        with _only(address):
            return answer(lambda: JobSubmissionClient(address))
    except AuthenticationError:
        raise token_wanted(address) from None
    except (OSError, RuntimeError) as error:
        raise StoreError(f"no Ray cluster answers at {address}: {error}") from None


@contextmanager
def _only(address: str) -> Iterator[None]:
    """Ray lets the environment win over the address that it is given, RAY_ADDRESS too, which is of another kind."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _submit(client: JobSubmissionClient, entrypoint: str, working_dir: str | None) -> str:
    # No CPUs for the entrypoint: without them Ray starts the driver on the head node, never on a spot worker.
    environment: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}}
    if working_dir is not None:
        environment |= {"working_dir": working_dir, "excludes": EXCLUDED}
    job_id = f"{entrypoint.split()[1]}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    try:
        return client.submit_job(
            entrypoint=entrypoint,
            submission_id=job_id,
            runtime_env=environment,
            metadata={"ran_pipeline_version": __version__},
        )
    except ValueError as error:  # no such folder, or one that is too large
        raise UsageError(f"--working-dir {working_dir}: {error}") from None
    except (OSError, RuntimeError) as error:
        raise StoreError(f"the cluster did not take the job: {error}") from None


def _follow(client: JobSubmissionClient, job_id: str, address: str, as_json: bool, *, is_new: bool) -> int:
    from jobs.following import INTERRUPTED, LostJobError, exists, exit_code, follow

    come_back = _come_back(address, job_id)
    try:
        if not is_new and not exists(client, job_id):
            raise UsageError(
                f"--follow {job_id}: the cluster at {address} has no such job; `ray job list` shows those that it has. "
                "If its head was started anew, submit the same command again to resume"
            )
        job = follow(client, job_id)
    except KeyboardInterrupt:
        click.echo(
            f"\nno longer following; the job goes on. Come back to it with: {come_back}\n"
            f"End it with: ray job stop --address {address} {job_id}",
            err=True,
        )
        return INTERRUPTED
    except LostJobError:
        raise
    except StoreError as error:
        raise StoreError(f"{error}; the job may well go on, come back to it with: {come_back}") from None
    code = exit_code(job)
    if as_json:
        _echo_json(job_id, address, status=str(job.status), exit_code=code)
    return code


def _come_back(address: str, job_id: str) -> str:
    return f"ran-pipeline submit --address {address} --follow {job_id}"


def _echo_json(job_id: str, address: str, **more: Any) -> None:
    click.echo(json.dumps({"job_id": job_id, "address": address, **more}, indent=2))
