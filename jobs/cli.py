"""`ran-pipeline`: the commands and what they end with."""

from __future__ import annotations

import errno
import traceback

import click

from jobs.leaving import leave
from pipeline import __version__
from pipeline.errors import CapacityError, RanError
from pipeline.terminal import error_line, printable

INTERRUPTED = 130

#: Commands and the module that has each; imported only when called, so `--help` is quick.
COMMANDS = {
    "run": "jobs.run",
    "plan": "jobs.run",
    "inspect": "jobs.inspect",
    "errors": "jobs.inspect",
    "query": "jobs.query",
    "report": "jobs.report",
    "compare": "jobs.compare",
    "overlay": "jobs.overlay",
    "export": "jobs.export",
    "reprocess": "jobs.reprocess",
    "retry": "jobs.retry",
    "verify": "jobs.verify",
    "compact": "jobs.compact",
    "train": "jobs.train",
    "evaluate": "jobs.evaluate",
    "ablate": "jobs.ablate",
    "convert": "jobs.convert",
    "submit": "jobs.submit",
    "doctor": "jobs.doctor",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        import importlib

        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), f"{cmd_name}_command")
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ran-pipeline")
def cli() -> None:
    """What every face in your videos and pictures showed, when, and which regions of the face decided it.

    Exit codes: 0 done; 1 a bug; 2 usage or configuration; 3 finished with more failed sources than --max-error-rate;
    4 the cluster or disk can't hold the job; 5 the store or cluster failed (run again to resume) or a file of the
    dataset is damaged (verify --repair); 130 interrupted.
    """


def main() -> None:
    """Entry point. Errors that users can mend are one line on stderr; anything else is a bug and says so."""
    try:
        code: int = cli.main(standalone_mode=False) or 0  # commands that only show something return nothing
    except click.exceptions.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = 2
    except RanError as error:
        click.echo(error_line(error), err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit):  # whoever read the output left (`| head`): click ends so
        code = 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" of {printable(str(error.filename))}" if error.filename else ""
            click.echo(f"error: the disk{where} is full ({error.strerror}): make room, and do the same again", err=True)
            code = CapacityError.exit_code
        else:
            traceback.print_exc()
            click.echo("error: this is a bug in ran-pipeline; please report it with the lines above", err=True)
            code = 1
    leave(code)


if __name__ == "__main__":
    main()
