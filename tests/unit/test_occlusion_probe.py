"""Covers lie where they should, and the probe's figures are those of the network on covered faces."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ran_model.align import FER_TEMPLATE
from ran_model.config import FIXED_REGIONS, ModelConfig
from ran_model.data import FaceSet
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork
from ran_model.occlusion_probe import COVERS, cover, probe
from ran_model.regions import region_boxes

SIDE = 48
CONFIG = ModelConfig(input_size=32, aligned_size=SIDE)


def _faces(count: int) -> FaceSet:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(8, (count,), generator=generator)
    faces = torch.randint(0, 256, (count, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return FaceSet(faces_BCSS=faces, targets_BK=torch.eye(8)[labels], labels_B=labels)


def _covered(name: str, side: int = 100) -> torch.Tensor:
    """Where a white face is covered, bool (side, side)."""
    return cover(torch.full((1, 1, side, side), 255, dtype=torch.uint8), name)[0, 0] == 128


@pytest.mark.parametrize("name", COVERS)
def test_a_cover_hides_its_rectangle_and_leaves_the_rest(name: str) -> None:
    faces = _faces(3).faces_BCSS
    before = faces.clone()
    covered = cover(faces, name, shade=7)
    assert torch.equal(faces, before)
    hidden = _covered(name, SIDE)
    assert (covered[:, :, hidden] == 7).all()
    assert torch.equal(covered[:, :, ~hidden], faces[:, :, ~hidden])


def test_halves_are_halves() -> None:
    assert not _covered("nothing").any()
    for name, other in (("left half", "right half"), ("upper half", "lower half")):
        assert (_covered(name) ^ _covered(other)).all()
    assert _covered("left half")[:, :50].all()
    assert _covered("upper half")[:50].all()


def test_eyes_and_mouth_are_hidden_and_the_nose_is_not() -> None:
    left_eye, right_eye, nose, left_corner, right_corner = ((round(y * 100), round(x * 100)) for x, y in FER_TEMPLATE)
    eyes, mouth = _covered("eyes"), _covered("mouth")
    for point in (left_eye, right_eye):
        assert eyes[point]
        assert not mouth[point]
    for point in (left_corner, right_corner):
        assert mouth[point]
        assert not eyes[point]
    assert not eyes[nose]
    assert not mouth[nose]
    for band in (eyes, mouth):
        assert 0.1 < band.float().mean() < 0.2
        assert not band[0].any()
        assert not band[-1].any()


def test_eyes_and_mouth_are_those_of_the_models_template() -> None:
    low = tuple((0.5 + x / 2, 0.5 + y / 2) for x, y in FER_TEMPLATE)  # a face in the lower right quarter
    faces = torch.full((1, 1, 100, 100), 255, dtype=torch.uint8)
    for name, points in (("eyes", low[:2]), ("mouth", low[3:])):
        hidden = cover(faces, name, low)[0, 0] == 128
        assert all(hidden[round(y * 100), round(x * 100)] for x, y in points)
        assert not hidden[:40].any()
    config = ModelConfig(input_size=SIDE, aligned_size=SIDE, template=low)
    torch.manual_seed(0)
    network = RegionAttentionNetwork(config).eval()
    faces = _faces(4)
    (result,) = probe(network, faces, batch_size=4, covers=["mouth"])
    with torch.inference_mode():
        answer = network(cover(faces.faces_BCSS, "mouth", low), faces.boxes(config))
    assert result.attention_R == pytest.approx(tuple(answer.attention_BR.mean(dim=0).tolist()), abs=1e-5)


def test_an_unknown_cover_is_refused() -> None:
    with pytest.raises(ValueError, match="cover is 'hat': it must be one of nothing, eyes"):
        cover(_faces(1).faces_BCSS, "hat")


def test_the_probe_says_what_the_network_says() -> None:
    torch.manual_seed(0)
    network, faces = RegionAttentionNetwork(CONFIG).eval(), _faces(7)
    boxes = torch.from_numpy(region_boxes(CONFIG, 1))
    with torch.inference_mode():
        answers = {name: network(cover(faces.faces_BCSS, name), boxes) for name in COVERS}
        faces.labels_B[:4] = answers["nothing"].logits_BK.argmax(dim=1)[:4]
        faces.labels_B[4:] = (answers["nothing"].logits_BK.argmax(dim=1)[4:] + 1) % 8
    results = probe(network, faces, batch_size=3)
    assert [one.cover for one in results] == list(COVERS)
    for one in results:
        expected = answers[one.cover]
        assert (one.n, one.regions) == (7, FIXED_REGIONS)
        assert one.accuracy == pytest.approx(float((expected.logits_BK.argmax(dim=1) == faces.labels_B).float().mean()))
        assert one.attention_R == pytest.approx(expected.attention_BR.mean(dim=0).tolist(), abs=1e-5)
        assert sum(one.attention_R) == pytest.approx(1, abs=1e-5)
    assert results[0].accuracy == pytest.approx(4 / 7)
    assert len({one.attention_R for one in results}) == len(COVERS)


def test_a_cover_of_the_pictures_own_grey_hides_nothing() -> None:
    torch.manual_seed(0)
    faces = _faces(3)
    faces.faces_BCSS.fill_(128)
    first, *rest = probe(RegionAttentionNetwork(CONFIG), faces, batch_size=3)
    for one in rest:
        assert one.attention_R == pytest.approx(first.attention_R, abs=1e-6)
        assert one.accuracy == first.accuracy


def test_a_single_pass_looks_at_the_whole_face_alone() -> None:
    torch.manual_seed(0)
    network, faces = SinglePassNetwork(CONFIG).eval(), _faces(5)
    with torch.inference_mode():
        whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        faces.labels_B[:] = network(cover(faces.faces_BCSS, "mouth"), whole).logits_BK.argmax(dim=1)
    (result,) = probe(network, faces, batch_size=2, covers=["mouth"])
    assert (result.cover, result.accuracy) == ("mouth", 1.0)
    assert (result.attention_R, result.regions) == ((1.0,), ("whole",))


@pytest.mark.parametrize("is_training", [True, False])
def test_the_probe_leaves_the_network_as_it_was(is_training: bool) -> None:
    network = SinglePassNetwork(CONFIG).train(is_training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    probe(network, _faces(2), batch_size=2, covers=["eyes"])
    assert network.training is is_training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_no_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="no faces"):
        probe(SinglePassNetwork(CONFIG), _faces(0), batch_size=2)


def test_random_regions_are_those_of_each_face() -> None:
    torch.manual_seed(0)
    config = ModelConfig(input_size=32, aligned_size=SIDE, regions=("whole", "random_1"))
    boxes = torch.from_numpy(region_boxes(config, 3, face_ids=["a", "b", "c"]))
    network, faces = RegionAttentionNetwork(config).eval(), replace(_faces(3), boxes_BR4=boxes)
    (result,) = probe(network, faces, batch_size=2, covers=["nothing"])
    with torch.inference_mode():
        expected = network(faces.faces_BCSS, boxes).attention_BR.double().mean(dim=0)
    assert result.attention_R == pytest.approx(expected.tolist(), abs=1e-5)
