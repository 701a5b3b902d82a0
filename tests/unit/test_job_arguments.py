"""What travels with a job is checked before it leaves, holds no secret, and means there what it meant here."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from jobs.job_arguments import checked_arguments
from jobs.run import run_command
from pipeline.errors import UsageError

RUN = ["s3://in/a b", "-o", "s3://out"]


def checked(*arguments: str) -> list[str]:
    return checked_arguments(run_command, "run", arguments)


def test_arguments_travel_as_they_are() -> None:
    given = [
        *RUN,
        "--fps",
        "all",
        "--storage-option",
        "endpoint=http://minio:9000",
        "--keep-crops",
        "--",
        "s3://in/w?.mp4",
    ]
    assert checked(*given) == given


@pytest.mark.parametrize("typo", [["--fsp", "5"], ["--limit", "many"], ["--device", "tpu"]])
def test_a_typo_ends_here(typo: list[str]) -> None:
    with pytest.raises(click.UsageError):
        checked(*RUN, *typo)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--storage-option", "secret=hush"], "--storage-option secret=… would be visible.*IAM role"),
        (["--storage-option=key=hush"], "--storage-option key=…"),
        (["--storage-option", "account_key=hush"], "--storage-option account_key=…"),
        (["--storage-option", "endpoint=http://user:hush@minio"], "came with user info"),
        (["s3://user:hush@in/a.mp4"], "came with user info"),
        (["--root=https://films/?X-Signature=hush"], "--working-dir"),
        (["--from-file", "-"], "--working-dir"),
        (["--address", "auto"], "before the `--`"),
    ],
)
def test_what_must_not_travel_is_refused_without_being_shown(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        checked(*RUN, *arguments)
    assert "hush" not in str(caught.value)


def test_a_config_file_is_read_here_and_its_options_travel_as_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "inputs: [s3://in/a, s3://in/b]\noutput: s3://out\nfps: 2\nkeep_crops: true\nlimit: 7\n"
        "storage_option: {endpoint: 'http://minio:9000'}\n"
    )
    travelling = checked("--config", str(file), "--limit", "9")
    with run_command.make_context("run", list(travelling)) as there:
        assert there.params["inputs"] == ("s3://in/a", "s3://in/b")
        assert there.params["output"] == "s3://out"
        assert there.params["fps"] == "2"
        assert there.params["keep_crops"]
        assert there.params["limit"] == 9
        assert there.params["storage_options"] == ("endpoint=http://minio:9000",)
    file.write_text("output: s3://out\nstorage_option: {secret: hush}\n")
    with pytest.raises(UsageError, match="secret=…"):
        checked("s3://in", f"--config={file}")


@pytest.mark.parametrize(
    "given",
    [
        ["--config", "FILE", "--", "s3://in/w.mp4", "-x.mp4", "--config", "--fps=1"],
        ["--config=FILE", "--limit", "9", "s3://in/w.mp4"],
        ["--fps", "3", "--config", "FILE"],
        ["--config", "FILE", "--"],
    ],
)
def test_what_travels_means_there_what_it_means_here(tmp_path: Path, given: list[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "inputs: [s3://in/a.mp4, -b.mp4]\noutput: s3://out\nkeep-crops: true\nlimit:\nscratch:\nfps:\nfrom-file:\n"
        "max-error-rate: .5\nstorage_option: {endpoint: 'http://minio:9000'}\nquiet: false\n"
    )
    here = [argument.replace("FILE", str(file)) for argument in given]
    with run_command.make_context("run", list(here)) as context:
        meant = context.params
    assert (meant["output"], meant["scratch"]) == ("s3://out", None)
    assert meant["fps"] == ("3" if "3" in given else "5")
    travelling = checked(*here)
    assert str(file) not in " ".join(travelling)
    with run_command.make_context("run", list(travelling)) as context:
        assert context.params == meant
