"""Model directories: what is written is what is read, ids are stable, and damage is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ran_model.config import ModelConfig
from ran_model.network import RegionAttentionNetwork
from ran_model.pretrained import (
    default_model_dir,
    load_model,
    load_model_bytes,
    model_id,
    read_model_bytes,
    save_model,
    single_pass_of_model,
)
from ran_model.regions import region_boxes

SMALL = ModelConfig(input_size=32, aligned_size=48)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RegionAttentionNetwork, str]:
    torch.manual_seed(0)
    network = RegionAttentionNetwork(SMALL).eval()
    folder = tmp_path_factory.mktemp("model")
    return folder, network, save_model(folder, SMALL, network, "# Card\n")


def test_a_saved_model_answers_as_the_one_in_memory(saved: tuple[Path, RegionAttentionNetwork, str]) -> None:
    folder, network, identity = saved
    model = load_model(folder)
    assert (model.config, model.model_id) == (SMALL, identity)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    pictures = np.random.default_rng(0).integers(0, 256, size=(3, 48, 48, 3), dtype=np.uint8)
    boxes = region_boxes(SMALL, 3)
    probabilities, self_attention, attention = model.predict(pictures, boxes)
    with torch.no_grad():
        output = network(torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(boxes))
    np.testing.assert_allclose(probabilities, output.logits_BK.softmax(1).numpy(), atol=2e-3)  # stored as float16
    np.testing.assert_allclose(self_attention, output.self_attention_BR.numpy(), atol=2e-3)
    np.testing.assert_allclose(attention.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert probabilities.dtype == attention.dtype == np.float32


def test_a_model_travels_as_bytes(saved: tuple[Path, RegionAttentionNetwork, str]) -> None:
    folder, _, identity = saved
    assert load_model_bytes(*read_model_bytes(folder)).model_id == identity


def test_the_id_follows_weights_and_config_but_not_the_name() -> None:
    identity = model_id(SMALL, b"weights")
    assert identity == model_id(ModelConfig.from_json(SMALL.to_json()), b"weights")
    assert identity == model_id(replace(SMALL, name="another"), b"weights")
    assert identity != model_id(SMALL, b"weightz")
    assert identity != model_id(replace(SMALL, attention_norm="authors"), b"weights")
    moved = ((0.3, 0.4), *SMALL.template[1:])
    assert identity != model_id(replace(SMALL, template=moved), b"weights")
    assert len(identity) == 12


def test_formatting_of_config_json_changes_nothing(saved: tuple[Path, RegionAttentionNetwork, str]) -> None:
    folder, _, identity = saved
    config, weights = read_model_bytes(folder)
    shuffled = json.dumps(dict(reversed(json.loads(config).items()))).encode()
    assert load_model_bytes(shuffled, weights).model_id == identity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["neutral", "boredom"]}, "'boredom'"),
        ({"regions": ["nose", "whole"]}, "region 0 must be 'whole'"),
        ({"regions": ["whole", "whole"]}, "none twice"),
        ({"backbone": "vgg99"}, "'vgg99'"),
        ({"attention_norm": "mine"}, "'mine'"),
        ({"input_size": 4}, "input_size is 4"),
        ({"template": [[0.1, 0.2]]}, "five landmarks"),
        ({"flavour": 1}, "flavour"),
        ({"input_size": "64"}, "input_size is '64': it must be a whole number"),
        ({"template": 3}, "wrong type"),
    ],
)
def test_a_wrong_config_is_refused_with_its_value(change: dict[str, object], message: str) -> None:
    values = json.loads(SMALL.to_json()) | change
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_json(json.dumps(values))


def test_damage_is_told(saved: tuple[Path, RegionAttentionNetwork, str], tmp_path: Path) -> None:
    config, weights = read_model_bytes(saved[0])
    with pytest.raises(ValueError, match="damaged"):
        load_model_bytes(config, weights[:1000])
    with pytest.raises(ValueError, match="does not fit"):
        load_model_bytes(replace(SMALL, relation_attention=False).to_json(), weights)
    with pytest.raises(ValueError, match="not JSON"):
        load_model_bytes(b"{", weights)
    with pytest.raises(ValueError, match=r"config\.json can't be read"):
        load_model(tmp_path)


def test_a_pickle_is_never_opened(saved: tuple[Path, RegionAttentionNetwork, str], tmp_path: Path) -> None:
    config, _ = read_model_bytes(saved[0])
    torch.save(saved[1].state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="no safetensors"):
        load_model_bytes(config, (tmp_path / "model.pt").read_bytes())


def test_the_shipped_model_loads_and_knows_all_eight_expressions() -> None:
    model = load_model(default_model_dir())
    assert len(model.config.classes) == 8
    assert model.config.regions[0] == "whole"
    size = model.config.aligned_size
    answers = model.predict(np.zeros((1, size, size, 3), np.uint8), region_boxes(model.config, 1))
    assert all(np.isfinite(answer).all() for answer in answers)


def test_a_stored_model_is_a_start_of_another_input_size(saved: tuple[Path, RegionAttentionNetwork, str]) -> None:
    folder, network, _ = saved
    single = single_pass_of_model(folder, replace(SMALL, input_size=40, regions=("whole",)))
    stored = network.trunk.backbone.state_dict()["layer4.1.conv2.weight"].half().float()
    assert torch.equal(single.trunk.backbone.state_dict()["layer4.1.conv2.weight"], stored)
    assert single.config.input_size == 40
    with pytest.raises(ValueError, match=r"has colour grey, and model\.colour is rgb"):
        single_pass_of_model(folder, replace(SMALL, colour="rgb"))
