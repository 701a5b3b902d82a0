"""One YAML file stands in for the flags of every command that starts a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from jobs.cli import cli
from pipeline.errors import UsageError

OUTPUT = {"run": ["in.mp4", "-o", "out"], "plan": ["in.mp4", "-o", "out"], "reprocess": ["out"], "retry": ["out"]}


def parsed(name: str, *arguments: str | Path) -> dict[str, Any]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    with command.make_context(name, [*OUTPUT[name], *map(str, arguments)]) as context:
        return context.params


def test_one_value_for_an_option_that_may_repeat_is_a_list_of_one(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("from-file: list.txt\nstorage-option: endpoint=http://minio:9000\n")
    values = parsed("run", "--config", config)
    assert values["from_files"] == ("list.txt",)
    assert values["storage_options"] == ("endpoint=http://minio:9000",)
    config.write_text("inputs: films\noutput: out\n")
    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    with command.make_context("run", ["--config", str(config)]) as context:
        assert context.params["inputs"] == ("films",)


@pytest.mark.parametrize("name", ["reprocess", "retry", "plan"])
def test_what_only_run_has_is_left_out_elsewhere_and_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("quiet: true\nfps: 2\nbatch-size: 3\nmodel: my-model\n")
    values = parsed(name, "--config", config)
    assert values["batch_size"] == 3
    assert values["model"] == "my-model"
    left_out = "quiet" if name == "plan" else "fps"
    assert capsys.readouterr().err == f"note: --config {config}: {left_out}: not of this command, left out\n"


@pytest.mark.parametrize("name", list(OUTPUT))
def test_a_key_that_no_run_has_is_refused_with_those_that_the_help_shows(name: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("frames-per-second: 5\n")
    with pytest.raises(UsageError, match=r"unknown key 'frames-per-second'; allowed are ") as refusal:
        parsed(name, "--config", config)
    keys = str(refusal.value).partition("allowed are ")[2].split(", ")
    assert len(keys) == len(set(keys))
    assert {"batch-size", "decode-memory", "json", "output", "storage-option"} <= set(keys)
    internal = {"o", "as-json", "storage-options", "from-files", "config", "heartbeat-s", "stale-after-s"}
    assert not internal & set(keys)
