"""What is scored, on which faces, and what the model card makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.evaluate import describe
from jobs.evaluation import clean_faces, evaluation, recorded_single_pass
from jobs.model_card import write_card
from ran_model.augment import Augmentation
from ran_model.config import ModelConfig
from ran_model.data import LabelledFaces
from ran_model.datasets import Item, Listing
from ran_model.evaluate import over_expressions, predict_probabilities
from ran_model.labels import EXPRESSIONS
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork
from ran_model.pretrained import LoadedModel
from ran_model.recipe import Recipe
from ran_model.train_config import TrainConfig

CONFIG = ModelConfig(input_size=32, aligned_size=48, classes=("happiness", "neutral", "anger"))


@pytest.fixture
def data() -> LabelledFaces:
    labels = [("train", 0), ("validation", 1), ("validation", 4), ("test", 1), ("test", 0), ("test", 2)]
    items = [Item(key=str(n), picture=b"", split=split, label=label) for n, (split, label) in enumerate(labels)]
    lists = {"full": {"3": 1, "4": 0, "5": 2}, "pose30": {"4": 4}}
    is_found = np.array([True] * 5 + [False])
    faces = np.random.default_rng(0).integers(0, 256, (6, 1, 48, 48), dtype=np.uint8)
    return LabelledFaces(Listing(name="made", items=items, lists=lists, notes=[]), CONFIG, faces, is_found)


def always(network: RegionAttentionNetwork | SinglePassNetwork, bias: list[float]) -> None:
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor(bias))


def test_a_batch_of_any_size_gives_the_same_probabilities(data: LabelledFaces) -> None:
    torch.manual_seed(0)
    network = RegionAttentionNetwork(CONFIG).eval()
    whole = predict_probabilities(network, data.test())
    torch.testing.assert_close(predict_probabilities(network, data.test(), batch_size=2), whole)
    torch.testing.assert_close(whole.sum(dim=1), torch.ones(3))


def test_classes_that_the_model_lacks_count_as_wrong() -> None:
    columns = over_expressions(torch.tensor([[0.5, 0.3, 0.2]]), CONFIG)
    expected = {"happiness": 0.5, "neutral": 0.3, "anger": 0.2}
    assert columns[0].tolist() == pytest.approx([expected.get(name, 0.0) for name in EXPRESSIONS])


def test_every_list_is_scored_with_its_own_labels_beside_the_twin(data: LabelledFaces) -> None:
    network, twin = RegionAttentionNetwork(CONFIG), SinglePassNetwork(CONFIG)
    always(network, [2.0, 0.0, 0.0])  # happiness for everybody
    always(twin, [0.0, 0.0, 2.0])  # anger
    result = evaluation(network, data, model_id="abcdef012345", twin=twin)
    accuracy = {name: scores["accuracy"] for name, scores in result["lists"].items()}
    assert accuracy == {"validation": 0.5, "full": pytest.approx(1 / 3), "pose30": 0.0}
    assert result["single_pass"]["lists"]["pose30"]["accuracy"] == 1.0
    assert result["comparison"]["full"]["bootstrap"]["difference"] == pytest.approx(1 / 3)
    assert result["comparison"]["pose30"]["mcnemar"]["only_b"] == 1
    assert [probe["cover"] for probe in result["occlusion_probe"]["ran"]][:2] == ["nothing", "eyes"]
    assert sum(result["occlusion_probe"]["ran"][0]["attention"].values()) == pytest.approx(1, abs=1e-5)
    text = describe(result)
    assert "pose30" in text
    assert "33.3" in text
    assert ", p=" in text
    assert "note: no face was found in 16.7% of the pictures, which are taken whole" in text
    assert "note: 5 of 6 pictures are scored, the others are there for training; `evaluate --all` scores" in text
    assert "2 faces, covered" in text


def test_what_training_gained_over_its_start_is_told_and_what_it_lost_too(data: LabelledFaces) -> None:
    network, twin, other = (
        kind(CONFIG) for kind in (RegionAttentionNetwork, SinglePassNetwork, RegionAttentionNetwork)
    )
    always(network, [2.0, 0.0, 0.0])  # happiness for everybody
    always(other, [0.0, 0.0, 2.0])  # anger
    regions = replace(CONFIG, name="first", regions=("whole", "top_left"))
    start = LoadedModel(regions, other, "0123456789ab", "cpu")
    better = evaluation(network, data, model_id="abcdef012345", twin=twin, start=start)
    assert better["start"]["lists"]["pose30"]["accuracy"] == 1.0
    gained = {name: each["bootstrap"]["difference"] for name, each in better["start"]["comparison"].items()}
    before = {name: scores["accuracy"] for name, scores in better["start"]["lists"].items()}
    after = {name: scores["accuracy"] for name, scores in better["lists"].items()}
    assert gained == {name: pytest.approx(after[name] - before[name]) for name in ("validation", "full", "pose30")}
    assert "The start is first (0123456789ab)" in describe(better)
    assert "Training lost" not in describe(better)
    always(network, [0.0, 2.0, 0.0])  # neutral
    always(other, [2.0, 0.0, 0.0])
    worse = evaluation(network, data, model_id="abcdef012345", twin=twin, start=start)
    lost = 100 * (worse["start"]["lists"]["validation"]["accuracy"] - worse["lists"]["validation"]["accuracy"])
    assert lost > 0
    assert f"Training lost {lost:.1f} points on validation" in describe(worse)
    recipe = Recipe(data=Path("d"), model=CONFIG, single_pass=TrainConfig(), ran=TrainConfig(epochs=1))
    card = " ".join(write_card(worse, recipe, data.listing).split())
    assert "The model that training began from, `0123456789ab`, and what was gained over it: validation 50.0, " in card
    assert "RAN from that trunk: 1 epoch of" in card
    assert "cross-entropy with the label." in card


def _of_films(films: int) -> LabelledFaces:
    """Five equal test faces of each film, alternately of happiness and anger."""
    items = [
        Item(key=f"{film}-{face}", picture=b"", split="test", label=(1, 4)[film % 2], group=str(film))
        for film in range(films)
        for face in range(5)
    ]
    listing = Listing(name="made", items=items, lists={"full": {item.key: item.label for item in items}}, notes=[])
    faces = np.zeros((len(items), 1, 48, 48), np.uint8)
    return LabelledFaces(listing, CONFIG, faces, np.ones(len(items), np.bool_))


@pytest.mark.parametrize(("films", "says"), [(1, "this is one source"), (6, "Over 6 sources"), (24, "In brackets")])
def test_faces_of_one_film_are_no_independent_evidence(films: int, says: str) -> None:
    network, twin = RegionAttentionNetwork(CONFIG), SinglePassNetwork(CONFIG)
    always(network, [2.0, 0.0, 0.0])  # happiness
    always(twin, [0.0, 2.0, 0.0])  # neutral, which no face is
    data = _of_films(films)
    result = evaluation(network, data, model_id="abcdef012345", twin=twin)
    bootstrap = result["comparison"]["full"]["bootstrap"]
    assert bootstrap["groups"] == films
    assert result["comparison"]["full"]["mcnemar"]["p_value"] < 0.1  # kept in the JSON
    if films > 1:
        half = 1.96 * np.sqrt(0.25 / films)  # of films, not of faces
        assert (bootstrap["high"] - bootstrap["low"]) / 2 == pytest.approx(half, rel=0.2)
    text = describe(result)
    assert says in text
    assert "p=" not in text
    assert ("too narrow" in text) == (films == 6)
    recipe = Recipe(data=Path("d"), model=CONFIG, single_pass=TrainConfig(), ran=TrainConfig())
    card = " ".join(write_card(result, recipe, data.listing).split())
    assert f"resamples whole sources, whose faces are not independent (full {films}" in card
    assert ("too narrow" in card) == (films < 20)


def test_without_a_validation_part_the_probe_covers_test_faces_of_the_models_classes() -> None:
    labels = [1, 0, 2, 1, 4]  # happiness, neutral, surprise, which the model lacks, happiness, anger
    items = [Item(key=str(n), picture=b"", split="test", label=label) for n, label in enumerate(labels)]
    listing = Listing(name="made", items=items, lists={"full": {item.key: item.label for item in items}}, notes=[])
    faces = np.random.default_rng(0).integers(0, 256, (5, 1, 48, 48), dtype=np.uint8)
    network = RegionAttentionNetwork(CONFIG)
    always(network, [2.0, 0.0, 0.0])  # happiness
    result = evaluation(network, LabelledFaces(listing, CONFIG, faces, np.ones(5, np.bool_)), model_id="abcdef012345")
    clean = result["occlusion_probe"]["ran"][0]
    assert (clean["n"], clean["accuracy"]) == (4, 0.5)


def test_of_many_faces_sorted_by_class_each_class_is_probed() -> None:
    labels = [1] * 400 + [0] * 350 + [4] * 24
    items = [Item(key=str(n), picture=b"", split="validation", label=label) for n, label in enumerate(labels)]
    faces = np.zeros((len(items), 1, 48, 48), np.uint8)
    data = LabelledFaces(Listing(name="m", items=items, lists={}, notes=[]), CONFIG, faces, np.ones(len(items), bool))
    probed = clean_faces(data, CONFIG.classes, 500).labels_B
    counts = [int((probed == index).sum()) for index in range(3)]
    assert sum(counts) == 500
    assert counts == [pytest.approx(500 * share / 774, abs=1) for share in (400, 350, 24)]


def test_the_card_states_the_figures_and_the_weak_classes(data: LabelledFaces) -> None:
    network, twin = RegionAttentionNetwork(CONFIG), SinglePassNetwork(CONFIG)
    always(network, [2.0, 0.0, 0.0])
    always(twin, [0.0, 2.0, 0.0])
    result = evaluation(network, data, model_id="abcdef012345", twin=twin)
    recipe = Recipe(data=Path("d"), model=CONFIG, single_pass=TrainConfig(), ran=TrainConfig(epochs=3))
    card = write_card(result, recipe, data.listing)
    assert "| full | 3 | 33.3 (33.3) | 33.3 (33.3) | +0.0" in card
    assert "neutral (0.0 %)" in card
    assert "`abcdef012345`" in card
    assert "1 train, 2 validation, 3 test" in card
    assert max(len(line) for line in card.splitlines() if not line.startswith("|")) <= 118


def test_the_card_knows_a_data_set_by_its_layout_not_by_its_folders_name(data: LabelledFaces) -> None:
    network, twin = RegionAttentionNetwork(CONFIG), SinglePassNetwork(CONFIG)
    result = evaluation(network, data, model_id="abcdef012345", twin=twin)
    recipe = Recipe(data=Path("d"), model=CONFIG, single_pass=TrainConfig(), ran=TrainConfig(epochs=3))
    for layout, is_known in (("class-folders", False), ("ferplus-parquet", True), ("fer2013-csv", True)):
        card = write_card(result, recipe, replace(data.listing, name="ferplus", layout=layout))
        assert ("ten votes each" in card) is is_known
        assert ("MIT licence" in card) is is_known
        assert ("in the RAN authors' lists" in " ".join(card.split())) is (layout == "ferplus-parquet")
        assert ("more than half of its votes" in " ".join(card.split())) is (layout == "fer2013-csv")
        assert max(len(line) for line in card.splitlines() if not line.startswith("|")) <= 118


def test_accuracy_is_told_without_the_test_faces_that_were_trained_on(data: LabelledFaces) -> None:
    pictures = [b"a", b"b", b"c", b"a", b"d", b"e"]  # the first of the test faces is the training face
    faces, is_found = np.zeros((6, 1, 48, 48), np.uint8), np.ones(6, np.bool_)
    network, twin = RegionAttentionNetwork(CONFIG), SinglePassNetwork(CONFIG)
    always(network, [2.0, 0.0, 0.0])  # happiness
    listing = replace(data.listing, items=[replace(data.listing.items[0], label=1), *data.listing.items[1:]])
    result = evaluation(
        network, LabelledFaces(listing, CONFIG, faces, is_found, pictures), model_id="abcdef012345", twin=twin
    )
    assert result["lists"]["full"]["accuracy"] == pytest.approx(1 / 3)
    assert result["lists"]["full"]["without_copies"] == {"n": 2, "accuracy": 0.0}
    assert result["lists"]["pose30"]["without_copies"] is None
    assert "without copies" in describe(result)
    assert "0.0 of 2" in describe(result)
    recipe = Recipe(data=Path("d"), model=CONFIG, single_pass=TrainConfig(), ran=TrainConfig(epochs=3))
    assert "the training part has too, RAN's accuracy is: full 0.0 (2 faces)." in write_card(
        result, recipe, listing
    ).replace("\n", " ")
    clean = evaluation(network, data, model_id="abcdef012345")
    assert "without copies" not in describe(clean)


def test_the_cards_changes_are_those_of_the_recipe(data: LabelledFaces) -> None:
    result = evaluation(RegionAttentionNetwork(CONFIG), data, model_id="abcdef012345", twin=SinglePassNetwork(CONFIG))
    changes = Augmentation(
        blur_chance=0.0, downscale_chance=0.25, occlusion_chance=0.5, gamma=0, contrast=0, brightness=0
    )
    recipe = Recipe(data=Path("d"), model=CONFIG, single_pass=TrainConfig(), ran=TrainConfig(), augmentation=changes)
    card = " ".join(write_card(result, recipe, data.listing).split())
    listed = "mirroring, small affine changes, down-scaling (25% of faces), a rectangle over a part (50% of faces)."
    assert f"Changes to the faces in all stages: {listed}" in card


def test_figures_of_a_twin_that_is_not_there_are_those_that_were_kept(data: LabelledFaces, tmp_path: Path) -> None:
    network, twin = RegionAttentionNetwork(CONFIG), SinglePassNetwork(CONFIG)
    always(network, [2.0, 0.0, 0.0])
    always(twin, [0.0, 2.0, 0.0])
    kept = evaluation(network, data, model_id="abcdef012345", twin=twin)
    (tmp_path / "evaluation.json").write_text(json.dumps(kept))
    alone = evaluation(network, data, model_id="abcdef012345")
    found = recorded_single_pass(tmp_path, alone)
    assert found["single_pass"]["lists"] == kept["single_pass"]["lists"]
    assert found["comparison"] == kept["comparison"]
    text = describe(alone | found)
    assert "single pass" in text
    assert "kept when it was trained" in text
    assert "kept when it was trained" not in describe(kept)
    for other in (alone | {"model_id": "0" * 12}, alone | {"lists": {"full": alone["lists"]["full"]}}):
        assert recorded_single_pass(tmp_path, other) == {}
    always(network, [0.0, 0.0, 2.0])  # other pictures under the same names
    assert recorded_single_pass(tmp_path, evaluation(network, data, model_id="abcdef012345")) == {}
    assert recorded_single_pass(tmp_path / "nowhere", alone) == {}
