"""Training recipes: read, refused with the key that is wrong, and written so that they read the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ran_model.model_files import default_model_dir
from ran_model.recipe import read_recipe, write_recipe
from ran_model.regions import STRATEGIES

DEFAULT = Path(__file__).parents[2] / "jobs" / "recipes" / "default.yaml"
SMALLEST = "data: d\nmodel: {}\nsingle_pass: {}\nran: {}\n"


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_the_default_recipe_is_whole() -> None:
    default = read_recipe(DEFAULT)
    assert default.model.name == "ran-resnet18-ferplus-64"
    assert default.teacher is not None
    assert default.teacher.model.backbone == "inception_resnet_v1"
    assert default.ran.learning_rate == 2e-4


def test_the_recipe_beside_the_model_that_ships_can_be_read() -> None:
    shipped = read_recipe(default_model_dir() / "recipe.yaml")
    assert shipped.teacher == read_recipe(DEFAULT).teacher
    assert shipped.model == read_recipe(DEFAULT).model


def test_a_recipe_may_start_from_a_model(tmp_path: Path) -> None:
    short = read_recipe(DEFAULT.with_name("short.yaml"))
    assert short.start == default_model_dir()
    write_recipe(short, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == short


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    default = read_recipe(DEFAULT)
    write_recipe(default, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == default


def test_strategies_and_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = "data: d\nmodel: {regions: affectnet}\nsingle_pass: {learning_rate: 1e-3}\nran: {margin: 0}\n"
    read = read_recipe(recipe(tmp_path, text))
    assert read.model.regions == STRATEGIES["affectnet"]
    assert read.single_pass.learning_rate == 0.001
    assert isinstance(read.ran.margin, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: d\nmodel: {}\nran: {}\n", "no 'single_pass'"),
        (SMALLEST + "epochs: 3\n", "unknown key 'epochs'"),
        (SMALLEST.replace("ran: {}", "ran: {epoch: 3}"), "ran has the unknown key 'epoch'"),
        (SMALLEST.replace("model: {}", "model: {regions: six}"), "must be a list, or one of fixed"),
        (SMALLEST.replace("model: {}", "model: {backbone: alexnet}"), "one of resnet18"),
        (SMALLEST.replace("ran: {}", "ran: {margin: much}"), "ran.margin is 'much'"),
        (SMALLEST + "teacher: {model: {colour: rgb}}\n", "teacher.model.colour differs"),
        (SMALLEST + "trunk: t.safetensors\nstart: default\n", "both trunk and start"),
        ("data: [", "not YAML"),
        ("- data", "must be a mapping"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", "\\[")):
        read_recipe(recipe(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml can't be read"):
        read_recipe(tmp_path / "nowhere.yaml")
