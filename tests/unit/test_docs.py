"""The documents say what is there: files, links, commands and exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.cli import COMMANDS, cli
from pipeline.errors import CapacityError, ErrorCode, ErrorRateError, StoreError, UsageError
from tests.datasets import SAME_WEIGHTS_TOLERANCE

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize(
    "folder", ["pipeline", "pipeline/media", "pipeline/ledger", "pipeline/storage", "ran_model", "jobs"]
)
def test_the_architecture_names_every_module_and_no_other(folder: str) -> None:
    section = re.search(rf"### {folder}/.*?(?=\n### |\Z)", ARCHITECTURE, re.S)
    assert section
    named = set(re.findall(r"`(\w+\.py)`", section[0]))
    there = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    assert named == there


@pytest.mark.parametrize(
    "document", [path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_the_guarantee_names_tests_that_are_there() -> None:
    named = re.findall(r"`((?:faults|unit|integration)/test_\w+\.py)`", (ROOT / "docs" / "guarantee.md").read_text())
    assert len(named) > 20
    assert all((ROOT / "tests" / path).exists() for path in named)
    faults = {f"faults/{path.name}" for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    assert faults <= set(named)


def test_commands_and_options_in_the_pages_exist() -> None:
    pages = [(ROOT / "docs" / f"{name}.md").read_text() for name in ("cluster", "dataset", "guarantee", "model")]
    text = "\n".join([README, *pages]).replace("\\\n", " ")
    used = re.findall(r"ran-pipeline (\w+)([^\n]*)", re.sub(r"( submit [^\n]*?) -- ", r"\1\nran-pipeline ", text))
    assert used
    for name, rest in used:
        assert name in COMMANDS
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)(--?[a-z][a-z-]*)(?=\s|$)", rest.partition("#")[0])) <= options


def test_every_command_but_overlay_has_json() -> None:
    assert "Every command but `overlay`, which draws, has `--json`." in README
    for name in COMMANDS:
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        has_json = any("--json" in parameter.opts for parameter in command.params)
        assert has_json is (name != "overlay"), name


def test_how_far_the_same_weights_may_lie_apart_is_what_is_tested() -> None:
    page = (ROOT / "docs" / "dataset.md").read_text()
    (stated,) = re.findall(r"differ by no more than\s+([\d.]+)", page)
    assert float(stated) == SAME_WEIGHTS_TOLERANCE


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_exit_codes_in_the_readme_are_those_of_the_code() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.M)}
    raised = {error.exit_code for error in (UsageError, ErrorRateError, CapacityError, StoreError)}
    assert codes == raised | {0, 1, 130}


def test_the_demo_picture_is_there() -> None:
    assert (ROOT / "docs" / "demo.png").stat().st_size > 50_000


def test_the_extra_that_an_error_names_is_the_one_of_the_package() -> None:
    from pipeline.retinaface_torch import EXTRA

    assert f'"{EXTRA.removeprefix("pip install ")}"' in (ROOT / "pyproject.toml").read_text()


def test_error_codes_in_the_readme_are_those_of_the_code() -> None:
    table = README.partition("| code | what was wrong |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.M)
    assert {code for cell in cells for code in re.findall(r"`(\w+)`", cell)} == set(ErrorCode)
    assert all(code.meaning for code in ErrorCode)
