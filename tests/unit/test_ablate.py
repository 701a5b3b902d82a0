"""`ablate` takes up answers that are there, and never those of another recipe, of other faces or of other labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_cli_here, save_tiny_model
from tests.crops import kept_crops, write_labels

Run = Callable[..., dict[str, Any]]
STAGE = "{epochs: 0, bf16: false}"  # the start's own answers: nothing is trained
LABELS = {
    f"{split}{film}-0-{frame}": (("neutral", "happiness")[frame % 2], split)
    for split, films in (("train", 1), ("validation", 3), ("test", 3))
    for film in range(films)
    for frame in range(4)
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Crops, labels, a start and a recipe, and stages that run in this process."""
    kept_crops(tmp_path / "study", LABELS)
    save_tiny_model(tmp_path / "start", seed=1)
    write_recipe(tmp_path, STAGE)
    monkeypatch.setattr("jobs.processes.in_processes", lambda _, __, act, *arguments: act("cpu", *arguments))
    monkeypatch.setattr("jobs.processes.is_first", lambda: True)
    return tmp_path


def write_recipe(folder: Path, stage: str) -> None:
    (folder / "recipe.yaml").write_text(
        f"data: {folder / 'study'}\nlabels: {folder / 'study' / 'labels.csv'}\nstart: {folder / 'start'}\n"
        f"model: {{input_size: 32, aligned_size: 48}}\nsingle_pass: {STAGE}\nran: {stage}\n"
    )


@pytest.fixture
def ablate(study: Path) -> Run:
    """What it prints as JSON."""

    def run(*options: str) -> dict[str, Any]:
        only = () if "--only" in options else ("--only", "loss-plain")
        seeds = () if "--seeds" in options else ("--seeds", "1")
        done = run_cli_here(
            "ablate", study / "recipe.yaml", "--work", study / "work", *only, *seeds, *options, "--json"
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return run


def accuracies(result: dict[str, Any], name: str = "validation") -> list[float]:
    return [lists[name]["accuracy"] for lists in result["variants"].values()]


def all_right(study: Path) -> None:
    """Makes the kept answers ones that no network gave."""
    for path in study.glob("work/variants/*/right.json"):
        kept = json.loads(path.read_text())
        path.write_text(json.dumps({name: each | {"right": "1" * 12} for name, each in kept.items()}))


def test_answers_that_are_there_are_taken_up_without_a_network(
    study: Path, ablate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ablate("--lists")
    monkeypatch.setattr("jobs.ablate._trained", lambda *_: pytest.fail("it was answered already"))
    assert ablate("--lists") == first
    all_right(study)
    assert accuracies(ablate("--lists"), "full") == [1.0] * 3


@pytest.mark.parametrize(("split", "name"), [("validation", "validation"), ("test", "full")])
def test_a_label_that_was_mended_counts(study: Path, ablate: Run, split: str, name: str) -> None:
    before = ablate("--lists")
    labels = {face: ("sadness" if part == split else is_, part) for face, (is_, part) in LABELS.items()}
    write_labels(study / "study" / "labels.csv", labels)
    all_right(study)
    after = ablate("--lists")
    assert max(accuracies(after, name)) < 1
    other = "full" if name == "validation" else "validation"
    assert accuracies(after, other) == [1.0] * 3  # which are of the same faces and labels
    write_labels(study / "study" / "labels.csv", LABELS)
    assert accuracies(ablate("--lists"), name) == accuracies(before, name)


@pytest.mark.parametrize("setting", ["margin: 0.05", "seed: 7"])
def test_answers_of_another_recipe_are_not_taken(study: Path, ablate: Run, setting: str) -> None:
    before = accuracies(ablate())
    all_right(study)
    write_recipe(study, STAGE.replace("}", f", {setting}}}"))
    assert accuracies(ablate()) == before


def test_answers_of_another_start_are_not_taken(study: Path, ablate: Run) -> None:
    ablate()
    all_right(study)
    save_tiny_model(study / "start", seed=2)
    assert max(accuracies(ablate())) < 1


def test_fewer_faces_of_fewer_films_are_answered_anew(study: Path, ablate: Run) -> None:
    assert ablate()["ran_minus_single_pass"]["validation"]["bootstrap"]["groups"] == 3
    fewer = {face: label for face, label in LABELS.items() if not face.startswith("validation2-")}
    write_labels(study / "study" / "labels.csv", fewer)
    bootstrap = ablate()["ran_minus_single_pass"]["validation"]["bootstrap"]
    assert (bootstrap["n"], bootstrap["groups"]) == (8, 2)


def test_answers_that_do_not_say_what_they_are_to_are_not_taken(study: Path, ablate: Run) -> None:
    before = accuracies(ablate())
    for path in study.glob("work/variants/*/right.json"):
        path.write_text(json.dumps({"validation": "1" * 12}))  # as an older version kept them
    assert accuracies(ablate()) == before


def test_test_lists_are_shown_where_they_are_asked_for(study: Path, ablate: Run) -> None:
    with_lists = ablate("--lists")
    assert all(set(lists) == {"validation", "full"} for lists in with_lists["variants"].values())
    assert set(with_lists["ran_minus_single_pass"]) == {"validation", "full"}
    without = ablate("--seeds", "3", "--only", "loss-plain,attention-none")
    assert {tuple(lists) for lists in without["variants"].values()} == {("validation",)}
    assert set(without["ran_minus_single_pass"]) == {"validation"}
    more = ablate("--seeds", "3", "--only", "attention-none", "--lists")
    assert more["ran_minus_single_pass"]["full"]["bootstrap"]["groups"] == 3
    assert len(more["ran_minus_single_pass"]["full"]["mcnemar"]) == 3
    table = run_cli_here(
        "ablate", study / "recipe.yaml", "--work", study / "work", "--seeds", "3", "--only", "loss-plain"
    )
    assert table.returncode == 0
    assert "full" not in table.stdout
