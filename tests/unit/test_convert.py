"""Checkpoints of other code: read without running any, recognised by their tensors, and they answer as they did.

The RAN authors' forward is written here a second time, in plain torch, from the formulas in shared/paper/RAN.md.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from ran_model.backbones import build_backbone, load_trunk
from ran_model.checkpoints import RAN, SINGLE_PASS, TRUNK, read_checkpoint, save_trunk
from ran_model.convert import model_from_checkpoint, write_card
from ran_model.crops import crop_regions
from ran_model.inception_resnet import InceptionResnetV1
from ran_model.labels import EXPRESSIONS
from ran_model.pretrained import load_model, save_model
from ran_model.regions import region_boxes

RAF_DB = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
SIDE = 64  # of the regions, so that the tests are quick


class AuthorsNetwork(nn.Module):
    """torchvision's ResNet-18 layers, `alpha`, `beta` and `fc`, under the names of the authors' checkpoints."""

    def __init__(self, classes: int = 8, channels: int = 3) -> None:
        super().__init__()
        resnet = torchvision.models.resnet18(weights=None)
        if channels != 3:
            resnet.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        for name, layer in resnet.named_children():
            if name != "fc":
                self.add_module(name, layer)
        self.trunk_layers = [name for name, _ in self.named_children()]
        self.alpha = nn.Sequential(nn.Linear(512, 1), nn.Sigmoid())
        self.beta = nn.Sequential(nn.Linear(1024, 1), nn.Sigmoid())
        self.fc = nn.Linear(1024, classes)

    def forward(self, regions: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures of each region to logits, μ and normalised μ·ν."""
        features = [self.features(region) for region in regions]
        mu = torch.softmax(torch.cat([self.alpha(feature) for feature in features], dim=1), dim=1)
        total = mu.sum(dim=1, keepdim=True)
        mean = sum(mu[:, [i]] * feature for i, feature in enumerate(features)) / total
        joined = [torch.cat([feature, mean], dim=1) for feature in features]  # the region first, then the mean
        nu = torch.softmax(torch.cat([self.beta(both) for both in joined], dim=1), dim=1)
        weight = mu * nu / (mu * nu).sum(dim=1, keepdim=True)
        face = sum(weight[:, [i]] * both for i, both in enumerate(joined))
        return self.fc(face), mu, weight

    def features(self, pictures: Tensor) -> Tensor:
        """One region to 512 features."""
        for name in self.trunk_layers:
            pictures = getattr(self, name)(pictures)
        return pictures.flatten(1)


def lively(network: nn.Module, forward: Callable[[Tensor], object], channels: int = 3) -> nn.Module:
    """BatchNorms that have seen pictures, heads that tell regions apart, and an evaluation mode."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            forward(torch.rand(8, channels, SIDE, SIDE))
        for name, parameter in network.named_parameters():
            if name.startswith(("alpha", "beta", "fc")):
                parameter.normal_(std=0.2 if name.startswith("fc") else 0.6)
    return network.eval()


@pytest.fixture(scope="module")
def authors() -> AuthorsNetwork:
    torch.manual_seed(3)
    network = AuthorsNetwork()
    lively(network, network.features)
    return network


@pytest.fixture(scope="module")
def authors_file(authors: AuthorsNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What their training script writes: DataParallel's names and an optimizer, in a dictionary."""
    optimizer = torch.optim.SGD(authors.parameters(), lr=0.1, momentum=0.9)
    path = tmp_path_factory.mktemp("authors") / "model_best.pth.tar"
    content = {
        "epoch": 31,
        "arch": "resnet18",
        "state_dict": {f"module.{name}": tensor for name, tensor in authors.state_dict().items()},
        "best_prec1": torch.tensor(88.5),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, path)
    return path


def faces(count: int = 3) -> np.ndarray:
    """Random but smooth colour faces."""
    coarse = torch.rand(count, 3, 14, 14, generator=torch.Generator().manual_seed(5))
    smooth = nn.functional.interpolate(coarse, size=(224, 224), mode="bicubic").clamp(0, 1)
    return (smooth * 255).byte().permute(0, 2, 3, 1).numpy()


def saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def single_pass_state(classes: int = 8, name: str = "resnet18") -> dict[str, Tensor]:
    torch.manual_seed(4)
    network = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    return lively(network, network.forward).state_dict()


@pytest.mark.parametrize("regions", ["fixed", "affectnet"])
def test_the_authors_network_answers_as_it_did(
    authors: AuthorsNetwork, authors_file: Path, regions: str, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(authors_file)
    assert (checkpoint.kind, checkpoint.backbone, checkpoint.class_count) == (RAN, "resnet18", 8)
    config, network = model_from_checkpoint(checkpoint, input_size=SIDE, regions=regions, classes=EXPRESSIONS)
    assert (config.colour, config.attention_norm, config.mean, config.std) == ("rgb", "authors", 0, 1)
    save_model(tmp_path / "model", config, network, write_card(checkpoint, config))
    boxes = region_boxes(config, 3)
    answers = load_model(tmp_path / "model").predict(faces(), boxes)

    pixels = torch.from_numpy(faces()).permute(0, 3, 1, 2).float() / 255
    crops = crop_regions(pixels, torch.from_numpy(boxes), SIDE)
    with torch.no_grad():  # the authors give the whole face last
        logits, mu, weight = authors([*crops[:, 1:].unbind(1), crops[:, 0]])
    expected = (logits.softmax(dim=1), mu.roll(1, dims=1), weight.roll(1, dims=1))
    for answer, reference in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, reference.numpy(), atol=3e-3)  # stored as float16
    assert expected[0].std() > 0.02  # and there is something to compare
    assert (expected[2].amax(dim=1) - expected[2].amin(dim=1)).min() > 0.01
    with torch.no_grad():
        unrounded = network(pixels, torch.from_numpy(boxes))
    np.testing.assert_allclose(unrounded.logits_BK, logits, atol=1e-4)
    np.testing.assert_allclose(unrounded.self_attention_BR, expected[1], atol=1e-5)
    np.testing.assert_allclose(unrounded.attention_BR, expected[2], atol=1e-5)


def test_a_colour_network_made_grey_computes_what_it_did_on_grey_pictures(
    authors: AuthorsNetwork, authors_file: Path
) -> None:
    config, network = model_from_checkpoint(read_checkpoint(authors_file), input_size=SIDE, colour="grey")
    assert config.channels == 1
    grey = torch.rand(2, 1, 224, 224)
    boxes = torch.from_numpy(region_boxes(config, 2))
    crops = crop_regions(grey.expand(-1, 3, -1, -1), boxes, SIDE)
    with torch.no_grad():
        np.testing.assert_allclose(network(grey, boxes).logits_BK, authors(list(crops.unbind(1)))[0], atol=1e-4)


def test_old_files_and_safetensors_are_read_alike(authors_file: Path, tmp_path: Path) -> None:
    state = torch.load(authors_file, weights_only=True)["state_dict"]
    older = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": older}, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "new.safetensors")
    wanted = model_from_checkpoint(read_checkpoint(authors_file))[1].state_dict()
    for name in ("old.pth.tar", "new.safetensors"):
        got = model_from_checkpoint(read_checkpoint(tmp_path / name))[1].state_dict()
        assert all(torch.equal(got[key], wanted[key]) for key in wanted if "num_batches" not in key)


def test_a_single_pass_classifier_becomes_the_mean_over_its_regions(tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None, num_classes=7)
    lively(network, network.forward)
    state = {"model": {f"backbone.{k}" if k[:2] != "fc" else k: v for k, v in network.state_dict().items()}}
    checkpoint = read_checkpoint(saved(state, tmp_path / "single.pt"))
    assert (checkpoint.kind, checkpoint.class_count) == (SINGLE_PASS, 7)
    with pytest.raises(ValueError, match="--mean and --std"):
        model_from_checkpoint(checkpoint, classes=RAF_DB)
    config, ran = model_from_checkpoint(checkpoint, classes=RAF_DB, mean=0.5, std=0.25, input_size=SIDE)
    assert config.classes == RAF_DB
    pixels, boxes = torch.rand(2, 3, 224, 224), torch.from_numpy(region_boxes(config, 2))
    with torch.no_grad():
        output = ran(pixels, boxes)
        crops = crop_regions((pixels - 0.5) / 0.25, boxes, SIDE)
        logits = torch.stack([network(crop) for crop in crops.unbind(1)]).mean(dim=0)
    np.testing.assert_allclose(output.logits_BK, logits, atol=1e-4)
    np.testing.assert_allclose(output.attention_BR, 1 / 6, atol=1e-6)
    assert "no attention" in write_card(checkpoint, config)


def test_a_single_pass_classifier_answers_as_it_did_on_the_whole_face_alone(authors_file: Path, tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None, num_classes=8)
    lively(network, network.forward)
    checkpoint = read_checkpoint(saved(network.state_dict(), tmp_path / "single.pt"))
    config, ran = model_from_checkpoint(checkpoint, mean=0.5, std=0.25, input_size=SIDE, regions="whole")
    assert (config.regions, config.classes) == (("whole",), EXPRESSIONS)
    pixels, boxes = torch.rand(2, 3, 224, 224), torch.from_numpy(region_boxes(config, 2))
    with torch.no_grad():
        output = ran(pixels, boxes)
        logits = network(crop_regions((pixels - 0.5) / 0.25, boxes, SIDE)[:, 0])
    np.testing.assert_allclose(output.logits_BK, logits, atol=1e-4)
    np.testing.assert_allclose(output.attention_BR, 1, atol=1e-6)
    assert logits.std() > 0.02
    save_model(tmp_path / "model", config, ran, write_card(checkpoint, config))
    assert load_model(tmp_path / "model").config == config
    assert "from the whole face alone" in write_card(checkpoint, config)
    several = model_from_checkpoint(checkpoint, mean=0.5, std=0.25)[0]
    assert "the checkpoint's own from the whole face" in " ".join(write_card(checkpoint, several).split())
    with pytest.raises(ValueError, match="whole is for a single pass"):
        model_from_checkpoint(read_checkpoint(authors_file), input_size=SIDE, regions="whole")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_recognition_network_is_a_start_only(name: str, tmp_path: Path) -> None:
    state = single_pass_state(1000, name)
    checkpoint = read_checkpoint(saved(state, tmp_path / "imagenet.pth"))
    assert checkpoint.backbone == name
    with pytest.raises(ValueError, match=r"1000 classes.*start for training.*--trunk-only"):
        model_from_checkpoint(checkpoint, mean=0, std=1)
    save_trunk(checkpoint, tmp_path / "new" / "trunk.safetensors")
    backbone, _ = build_backbone(name, 3)
    load_trunk(backbone, tmp_path / "new" / "trunk.safetensors")
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.state_dict().items())
    load_trunk(build_backbone(name, 1)[0], tmp_path / "new" / "trunk.safetensors")


def test_a_trunk_without_its_own_classifier_is_recognised(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in single_pass_state().items() if not name.startswith("fc")}
    checkpoint = read_checkpoint(saved(state, tmp_path / "trunk.pth"))
    assert checkpoint.kind == TRUNK
    with pytest.raises(ValueError, match=r"without a classifier.*--trunk-only"):
        model_from_checkpoint(checkpoint)
    embedding = {"feature.weight": torch.rand(256, 512), "feature.bias": torch.rand(256)}
    above = {"fc.weight": torch.rand(8, 256), "fc.bias": torch.rand(8)}
    assert read_checkpoint(saved(state | embedding | above, tmp_path / "face.pth")).kind == TRUNK


def test_facenet_is_a_trunk(tmp_path: Path) -> None:
    network = InceptionResnetV1()
    above = {"last_linear.weight": torch.rand(512, 1792), "last_bn.weight": torch.rand(512)}
    above |= {"logits.weight": torch.rand(100, 512), "logits.bias": torch.rand(100)}
    checkpoint = read_checkpoint(saved(network.state_dict() | above, tmp_path / "vggface2.pt"))
    assert (checkpoint.kind, checkpoint.backbone) == (TRUNK, "inception_resnet_v1")
    save_trunk(checkpoint, tmp_path / "trunk.safetensors")
    load_trunk(InceptionResnetV1(), tmp_path / "trunk.safetensors")


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["zip", "legacy", "plain", "protocol 4"])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # not even where torch is told to trust pickles
    ran, path = tmp_path / "ran", tmp_path / "evil.pth"
    content = {"state_dict": single_pass_state() | {"extra": Payload(ran)}}
    if form in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    else:
        path.write_bytes(pickle.dumps(Payload(ran), protocol=4 if form == "protocol 4" else 0))
    with pytest.raises(ValueError, match="can run any code") as refusal:
        read_checkpoint(path)
    assert not ran.exists()
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)  # no advice to open it all the same
    pickle.loads(pickle.dumps(Payload(ran))).close()
    assert ran.exists()  # so it was a real one


def test_a_whole_module_or_its_arguments_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"needs torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "module.pth")
    torch.save({"best": np.float64(3)}, tmp_path / "numpy.pth")
    with pytest.raises(ValueError, match=r"needs numpy\S+scalar.*save its state_dict alone"):
        read_checkpoint(tmp_path / "numpy.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer3.1.conv2.weight": None}, r"lacks layer3\.1\.conv2\.weight"),
        ({"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}, r"unexpected layer1\.2\.conv1\.weight"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1\.weight is \(64, 3, 3, 3\), not \(64, 3, 7, 7\)"),
        ({"conv1.weight": torch.zeros(64, 4, 7, 7)}, "1 or 3 channels"),
        ({"bn1.weight": torch.full((64,), torch.nan)}, r"bn1\.weight has values that are not finite"),
        ({"beta.0.weight": None}, r"lacks beta\.0\.weight"),
        ({"alpha.0.bias": None}, r"lacks alpha\.0\.bias"),
        ({"fc.bias": None}, r"lacks fc\.bias"),
        ({"fc.weight": torch.zeros(8, 512)}, r"fc\.weight is \(8, 512\), not \(8, 1024\)"),
        ({"fc.bias": torch.zeros(7)}, r"fc\.bias is \(7,\), not \(8,\)"),
        ({"feature.weight": torch.zeros(2, 2)}, r"unexpected feature\.weight"),
        ({"layer1.0.conv1.weight": None}, r"not recognised; its first tensor is conv1\.weight"),
        ({"epoch": 3}, "'epoch' is a int"),
    ],
)
def test_missing_and_odd_tensors_are_named(
    change: dict[str, object], message: str, authors: AuthorsNetwork, tmp_path: Path
) -> None:
    state = dict(authors.state_dict()) | change
    path = saved({name: value for name, value in state.items() if value is not None}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


def test_prefixes_that_hide_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    state = single_pass_state()
    twice = {f"backbone.{name}": tensor for name, tensor in state.items()} | {"fc.weight": state["fc.weight"]}
    with pytest.raises(ValueError, match=r"fc\.weight twice"):
        read_checkpoint(saved(twice, tmp_path / "twice.pth"))


def test_files_that_are_no_checkpoint_are_told(authors_file: Path, tmp_path: Path) -> None:
    whole = authors_file.read_bytes()
    for name, content in {
        "cut.pth": whole[: len(whole) // 2],
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{}",
        "text.pth": b"not a checkpoint\n",
        "empty.pth": b"",
        "empty.safetensors": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is (damaged or )?no \w+") as refusal:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(refusal.value)
    for odd in ([1, 2], {}, torch.zeros(3)):
        torch.save(odd, tmp_path / "odd.pth")
        with pytest.raises(ValueError, match="no state_dict"):
            read_checkpoint(tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="can't be read: No such file"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="can't be read: Is a directory"):
        read_checkpoint(tmp_path)


def test_classes_are_assumed_only_where_that_is_safe(authors_file: Path, tmp_path: Path) -> None:
    eight = read_checkpoint(authors_file)
    assert model_from_checkpoint(eight)[0].classes == EXPRESSIONS
    with pytest.raises(ValueError, match="8 classes, but 7 are named"):
        model_from_checkpoint(eight, classes=RAF_DB)
    with pytest.raises(ValueError, match="AffectNet neutral,happiness,sadness,surprise"):
        model_from_checkpoint(eight, regions="affectnet")
    with pytest.raises(ValueError, match="'boredom'"):
        model_from_checkpoint(eight, classes=(*EXPRESSIONS[:-1], "boredom"))
    seven = read_checkpoint(saved(AuthorsNetwork(7).state_dict(), tmp_path / "seven.pth"))
    with pytest.raises(ValueError, match="7 classes, and their order is not in it"):
        model_from_checkpoint(seven)
    assert model_from_checkpoint(seven, classes=RAF_DB)[0].classes == RAF_DB


def test_one_channel_stays_grey(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(AuthorsNetwork(channels=1).state_dict(), tmp_path / "grey.pth"))
    assert model_from_checkpoint(checkpoint)[0].colour == "grey"
    with pytest.raises(ValueError, match="can only be grey"):
        model_from_checkpoint(checkpoint, colour="rgb")


def test_weights_beyond_half_precision_are_refused_and_kept_in_a_trunk(tmp_path: Path) -> None:
    state = single_pass_state() | {"bn1.running_var": torch.full((64,), 1e6)}  # pictures in 0-255
    checkpoint = read_checkpoint(saved(state, tmp_path / "large.pth"))
    with pytest.raises(ValueError, match=r"bn1\.running_var has values above 65504"):
        model_from_checkpoint(checkpoint, mean=0, std=1)
    save_trunk(checkpoint, tmp_path / "trunk.safetensors")
    assert safetensors.torch.load_file(tmp_path / "trunk.safetensors")["bn1.running_var"][0] == 1e6


def test_the_card_says_where_the_weights_came_from(authors_file: Path) -> None:
    checkpoint = read_checkpoint(authors_file)
    card = write_card(checkpoint, model_from_checkpoint(checkpoint, name="theirs")[0])
    for words in ("# theirs", "`model_best.pth.tar`", checkpoint.sha256, "Unknown here", "ran-pipeline evaluate"):
        assert words in card
    assert "for you to check" in " ".join(card.split())
