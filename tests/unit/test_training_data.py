"""Faces come to training exactly as they are served; the sets that training and evaluation take from a listing."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs import align_faces as aligning
from jobs.align_faces import align_pictures, aligned_faces
from pipeline import schema
from pipeline.detect import Detections, load_detector
from pipeline.extraction import LANDMARK_COLUMNS
from pipeline.worker import face_region_boxes
from ran_model import data as training_data
from ran_model.align import FER_TEMPLATE, align_faces
from ran_model.config import ModelConfig, Points
from ran_model.data import LabelledFaces
from ran_model.datasets import DataError, Item, Listing, read_listing
from ran_model.labels import EXPRESSIONS
from ran_model.regions import LANDMARKS, region_boxes
from tests.staged_rows import table as staged_table

ASTRONAUT = Path(__file__).parents[2] / "examples" / "media" / "astronaut.png"
CONFIG = ModelConfig(aligned_size=96, input_size=64)


def grey_face() -> np.ndarray:
    picture = cv2.imread(str(ASTRONAUT), cv2.IMREAD_GRAYSCALE)[40:190, 150:300]
    return cv2.resize(picture, (48, 48), interpolation=cv2.INTER_AREA)


def test_training_sees_what_serving_sees() -> None:
    picture = cv2.cvtColor(grey_face(), cv2.COLOR_GRAY2RGB)
    detector = load_detector(min_face_px=8, min_score=0.5)
    trained, is_found, _ = align_pictures([picture, np.zeros_like(picture)], detector, CONFIG)
    landmarks = detector.detect([picture])[0].landmarks_N52
    served = align_faces(picture, landmarks, np.array(FER_TEMPLATE, np.float32), 96)[0]
    np.testing.assert_array_equal(trained[0, ..., 0], served[..., 0])
    assert is_found.tolist() == [True, False]
    assert trained[1].max() == 0  # no face: the whole picture


LANDMARK_REGIONS = replace(CONFIG, regions=("whole", *LANDMARKS))


def test_landmark_regions_lie_in_training_where_they_are_served(tmp_path: Path) -> None:
    """Of a turned face, whose own landmarks are not the template's; of a whole picture they are."""
    picture = cv2.cvtColor(grey_face(), cv2.COLOR_GRAY2RGB)
    turned = cv2.warpAffine(
        picture, np.array([[0.75, 0.25, 3], [-0.1, 1, 6]]), (48, 48), borderMode=cv2.BORDER_REPLICATE
    )
    pictures = {"face": picture, "turned": turned, "none": np.zeros_like(picture)}
    items = [
        Item(key=key, picture=cv2.imencode(".png", each)[1].tobytes(), split="train", label=1)
        for key, each in pictures.items()
    ]
    listing = Listing(name="made", items=items, lists={}, notes=[])
    for _ in range(2):  # the second from what was kept
        faces = aligned_faces(listing, LANDMARK_REGIONS, tmp_path, threads=1).train()
        boxes = faces.boxes(LANDMARK_REGIONS).numpy()
        detector = load_detector(min_face_px=8, min_score=0.5)
        for index, key in enumerate(("face", "turned")):
            (found,) = detector.detect([pictures[key]])
            served = face_region_boxes(LANDMARK_REGIONS, found.landmarks_N52, "v-0-0")
            np.testing.assert_allclose(boxes[index], served[0], atol=1e-6)
        template = region_boxes(LANDMARK_REGIONS, 1)[0]
        np.testing.assert_allclose(boxes[2], template, atol=1e-6)
        assert np.abs(boxes[1] - template).max() > 0.02
        assert torch.equal(faces.take(torch.tensor([1])).boxes(LANDMARK_REGIONS)[0], torch.from_numpy(boxes[1]))
    plain = aligned_faces(listing, CONFIG, tmp_path, threads=1).train()
    assert plain.boxes(CONFIG).shape == (1, 6, 4)  # fixed regions are shared, as before
    assert plain.digest() != faces.digest()


def test_colour_models_keep_colours() -> None:
    picture = np.asarray(cv2.imread(str(ASTRONAUT), cv2.IMREAD_COLOR_RGB))[40:190, 150:300]
    config = ModelConfig(aligned_size=96, input_size=64, colour="rgb")
    faces, is_found, _ = align_pictures([picture], load_detector(min_face_px=8), config)
    assert faces.shape == (1, 96, 96, 3)
    assert is_found.all()
    assert faces[0, ..., 0].mean() > faces[0, ..., 2].mean() + 10  # skin is redder than blue


class TwoFaces:
    """A detector that finds a small face with the better score, and a large one."""

    name, weights_sha256 = "two", ""

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        boxes_N4 = np.array([[0, 0, 10, 12], [40, 40, 30, 36]], np.float32)
        landmarks_N52 = boxes_N4[:, None, :2] + np.array(FER_TEMPLATE, np.float32) * boxes_N4[:, None, 2:]
        return [Detections(boxes_N4, np.array([0.99, 0.6], np.float32), landmarks_N52) for _ in images]


def test_the_largest_face_is_taken_if_it_is_as_large_as_the_data_set_demands() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    large = TwoFaces().detect([picture])[0].landmarks_N52[1:]
    expected = align_faces(picture, large, np.array(FER_TEMPLATE, np.float32), 96)[0]
    for smallest_face, found in ((0.0, True), (0.35, True), (0.4, False)):
        faces, is_found, _ = align_pictures([picture], TwoFaces(), CONFIG, smallest_face=smallest_face)
        assert is_found.tolist() == [found]
        assert (faces[0, ..., 0] == cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY)).all() == found


def test_only_data_sets_of_one_face_each_demand_a_large_one(tmp_path: Path) -> None:
    """A frame of a film is squashed into a face otherwise."""
    portrait = cv2.imread(str(ASTRONAUT))  # its face takes a quarter
    for picture in ("sorted/happy/a.png", "raf/Image/aligned/train_00001_aligned.jpg"):
        (tmp_path / picture).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / picture), portrait)
    (tmp_path / "raf" / "EmoLabel").mkdir()
    (tmp_path / "raf" / "EmoLabel" / "list_patition_label.txt").write_text("train_00001.jpg 4\n")
    for folder, found in (("sorted", 1), ("raf", 0)):
        listing = read_listing(tmp_path / folder)
        assert aligned_faces(listing, CONFIG, tmp_path / "work", threads=1).found_fraction == found


@pytest.fixture
def listing() -> Listing:
    face = grey_face()
    pictures = {key: cv2.imencode(".png", np.maximum(face, 30 + n))[1].tobytes() for n, key in enumerate("abcde")}
    happy, mixed = (0.0, 1.0) + (0.0,) * 6, (0.0,) * 4 + (0.8, 0.2, 0.0, 0.0)
    items = [
        Item(key="a", picture=pictures["a"], split="train", label=1, votes=happy),
        Item(key="b", picture=pictures["b"], split="validation", label=4, votes=mixed),
        Item(key="c", picture=pictures["c"], split="test", label=3),
        Item(key="d", picture=pictures["d"], split="test", label=4, votes=mixed),
        Item(key="e", picture=pictures["e"], split="train", label=7),
    ]
    return Listing(name="made", items=items, lists={"full": {"c": 3, "d": 4}, "occlusion": {"d": 5}}, notes=[])


def test_lists_keep_their_own_labels_and_parts(listing: Listing, tmp_path: Path) -> None:
    data = aligned_faces(listing, CONFIG, tmp_path, threads=1)
    assert data.found_fraction == 1
    assert data.lists == ("full", "occlusion")
    assert data.train().labels_B.tolist() == [1, 7]
    assert data.validation().labels_B.tolist() == [4]
    assert data.test().labels_B.tolist() == [3, 4]
    assert data.test("occlusion").labels_B.tolist() == [5]
    assert data.train().faces_BCSS.shape == (2, 1, 96, 96)
    torch.testing.assert_close(data.validation().targets_BK[0, 4:6], torch.tensor([0.8, 0.2]))
    assert data.test().targets_BK[0].argmax() == 3  # no votes: the list's own label


def test_copies_of_validation_are_not_trained_on_and_copies_in_test_are_known(tmp_path: Path) -> None:
    """By pixels: files may differ. The authors' lists stay whole."""
    face = grey_face()
    pixels = {shade: np.maximum(face, shade) for shade in (30, 60, 90)}
    png, webp = (
        {shade: cv2.imencode(kind, picture, options)[1].tobytes() for shade, picture in pixels.items()}
        for kind, options in ((".png", []), (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]))
    )
    items = [
        Item(key="in validation", picture=webp[30], split="train", label=1),
        Item(key="in test", picture=webp[60], split="train", label=2),
        Item(key="own", picture=png[90], split="train", label=3),
        Item(key="v", picture=png[30], split="validation", label=1),
        Item(key="t", picture=png[60], split="test", label=2),
        Item(key="t again", picture=webp[30], split="test", label=1),
        Item(key="t own", picture=cv2.imencode(".png", face // 2)[1].tobytes(), split="test", label=1),
    ]
    lists = {"full": {"t": 2, "t again": 1, "t own": 1}, "pose30": {"t own": 1}}
    listing = Listing(name="made", items=items, lists=lists, notes=["as read"])
    for _ in range(2):  # the second from what was kept
        data = aligned_faces(listing, CONFIG, tmp_path, threads=1)
        assert data.train().labels_B.tolist() == [2, 3]
        assert data.validation().labels_B.tolist() == [1]
        assert data.test().labels_B.tolist() == [2, 1, 1]
        assert data.is_copied("full").tolist() == [True, True, False]
        assert data.is_copied("pose30").tolist() == [False]
        assert data.listing.notes == [
            "as read",
            "training pictures that validation has too, left out of training: 1 (in validation)",
            "test pictures that training has too, kept: 2 (t, t again)",
            "test pictures that validation has too, kept: 1 (t again)",
        ]


def test_a_model_of_fewer_classes_is_trained_without_the_others(listing: Listing) -> None:
    config = ModelConfig(classes=("disgust", "anger", "happiness"), aligned_size=96, input_size=64)
    faces = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 96, 96), np.uint8)
    data = LabelledFaces(listing, config, faces, np.ones(5, np.bool_))
    assert data.train().labels_B.tolist() == [2]
    assert data.validation().labels_B.tolist() == [1]
    torch.testing.assert_close(data.validation().targets_BK[0], torch.tensor([0.2, 0.8, 0.0]))
    assert data.test().labels_B.tolist() == [3, 4]
    assert data.test("occlusion").faces_BCSS.unique().tolist() == [3]


def test_faces_of_a_group_are_known_in_the_order_of_their_set(listing: Listing) -> None:
    config = ModelConfig(classes=("disgust", "anger", "sadness"), aligned_size=96, input_size=64)
    faces = np.zeros((5, 1, 96, 96), np.uint8)
    assert LabelledFaces(listing, config, faces, np.ones(5, np.bool_)).groups("full") is None
    labels = {"v": ("validation", 4), "w": ("validation", 1), "t": ("test", 4), "u": ("test", 0), "x": ("test", 2)}
    groups = {"v": "film", "w": "film", "t": "film", "u": None, "x": "film"}
    items = [
        Item(key=key, picture=b"", split=split, label=label, group=groups[key])
        for key, (split, label) in labels.items()
    ]
    lists = {"full": {"t": 4, "u": 0, "x": 2}, "pose30": {"u": 0, "x": 2}}
    made = LabelledFaces(Listing(name="made", items=items, lists=lists, notes=[]), config, faces, np.ones(5, np.bool_))
    found = made.groups("full")
    assert found is not None
    assert found.tolist() == [0, 1, 0]
    assert made.groups("pose30") is None
    assert made.groups("validation") is None  # happiness, of the same film, is no class of the model


def made(listing: Listing, **changed: Any) -> LabelledFaces:
    random = np.random.default_rng(0)
    values = {
        "faces_NCSS": random.integers(0, 256, (5, 1, 96, 96), dtype=np.uint8),
        "landmarks_N52": random.uniform(0.3, 0.7, (5, 5, 2)).astype(np.float32),
    }
    return LabelledFaces(listing, CONFIG, is_found=np.ones(5, np.bool_), **values | changed)


@pytest.mark.parametrize("regions", [("whole", "nose"), ("whole", "random_1"), ("whole", "center_down")])
def test_a_model_of_other_regions_has_the_same_pixels_and_its_own_boxes(
    listing: Listing, regions: tuple[str, ...]
) -> None:
    data, model = made(listing), replace(CONFIG, regions=regions)
    first, own = data.train(), data.for_model(model)
    shared, copied = own.train(same=first), own.train()
    assert shared.faces_BCSS is first.faces_BCSS
    assert torch.equal(shared.boxes(model), copied.boxes(model))
    assert (shared.landmarks_B52 is None) == (copied.landmarks_B52 is None) == (regions[1] != "nose")
    assert data.train().boxes_BR4 is None
    assert data.for_model(CONFIG).train(same=shared).boxes_BR4 is None


def test_landmark_regions_need_landmarks_whoever_asks_for_them(listing: Listing) -> None:
    unknown = np.full((5, 5, 2), np.nan, np.float32)
    data = made(listing, landmarks_N52=unknown)
    with pytest.raises(DataError, match="5 crops, such as a, have no row"):
        data.for_model(LANDMARK_REGIONS)


def test_a_list_is_known_by_its_faces_labels_and_landmarks(listing: Listing) -> None:
    data = made(listing)
    before = {name: data.digest(name) for name in ("validation", "full", "occlusion")}
    assert len(set(before.values())) == 3
    assert {name: made(listing).digest(name) for name in before} == before

    def changed(other: LabelledFaces) -> set[str]:
        return {name for name in before if other.digest(name) != before[name]}

    relabelled = [replace(item, label=3 if item.key == "b" else item.label) for item in listing.items]
    assert changed(made(replace(listing, items=relabelled))) == {"validation"}
    assert changed(made(replace(listing, lists=listing.lists | {"occlusion": {"d": 6}}))) == {"occlusion"}
    faces, landmarks = np.array(data._faces), np.zeros((5, 5, 2), np.float32)
    faces[2] += 1  # c, of the full list alone
    assert changed(made(listing, faces_NCSS=faces)) == {"full"}
    assert changed(made(listing, landmarks_N52=landmarks)) == set(before)


def test_a_set_is_taken_and_known_without_a_second_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "CHUNK", 16)
    config = ModelConfig(aligned_size=64, input_size=64, colour="rgb")
    items = [Item(key=str(number), picture=b"", split="train", label=1) for number in range(200)]
    stored_NHWC = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), dtype=np.uint8)
    listing = Listing(name="made", items=items, lists={}, notes=[])
    data = LabelledFaces(listing, config, stored_NHWC.transpose(0, 3, 1, 2), np.ones(200, np.bool_))
    tracemalloc.start()
    faces = data.train()
    digest = faces.digest()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * stored_NHWC.nbytes
    assert torch.equal(faces.faces_BCSS, torch.from_numpy(stored_NHWC).permute(0, 3, 1, 2))
    content = b"".join(each.numpy().tobytes() for each in (faces.faces_BCSS, faces.targets_BK, faces.labels_B))
    assert digest == hashlib.sha256(content).hexdigest()


def test_random_regions_belong_to_the_face_whatever_the_order(listing: Listing) -> None:
    config = ModelConfig(regions=("whole", "random_1"), aligned_size=96, input_size=64)
    faces, found = np.zeros((5, 1, 96, 96), np.uint8), np.ones(5, np.bool_)
    turned = Listing(name="made", items=listing.items[::-1], lists=listing.lists, notes=[])
    boxes = [LabelledFaces(each, config, faces, found).train().boxes(config) for each in (listing, turned)]
    torch.testing.assert_close(boxes[0], boxes[1].flip(0))
    assert not torch.equal(boxes[0][0], boxes[0][1])


def test_faces_are_aligned_once(listing: Listing, tmp_path: Path) -> None:
    first = aligned_faces(listing, CONFIG, tmp_path, threads=1).train().faces_BCSS
    (path,) = tmp_path.rglob("faces_NHWC.npy")
    changed = np.load(path, mmap_mode="r+")
    changed[0] = 7
    changed.flush()
    again = aligned_faces(listing, CONFIG, tmp_path, threads=1).train().faces_BCSS
    assert (again[0] == 7).all()
    assert torch.equal(again[1], first[1])


def test_a_picture_that_was_replaced_is_aligned_again(tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    item = Item(key="face", picture=path, split="train", label=1)
    faces = []
    for picture in (grey_face(), grey_face()[:, ::-1]):
        cv2.imwrite(str(path), picture)
        listing = Listing(name="made", items=[item], lists={}, notes=[])
        faces.append(aligned_faces(listing, CONFIG, tmp_path / "work").train().faces_BCSS)
    assert not torch.equal(*faces)


class CountingDetector:
    """The real one, which counts its pictures and may stop the command."""

    name, weights_sha256 = "counting", ""

    def __init__(self, stop_after: int | None = None) -> None:
        self._detector, self._stop_after, self.pictures = load_detector(min_face_px=8, min_score=0.5), stop_after, 0

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        if self.pictures == self._stop_after:
            raise KeyboardInterrupt
        self.pictures += len(images)
        return self._detector.detect(images)


def many(listing: Listing) -> Listing:
    """Eleven pictures, in which a face is found or not."""
    empty = cv2.imencode(".png", np.zeros((48, 48), np.uint8))[1].tobytes()
    items = [replace(listing.items[n % 5], key=f"{n}") for n in range(11)]
    items[3] = replace(items[3], picture=empty)
    return replace(listing, items=items, lists={})


def test_a_killed_command_goes_on_aligning_where_it_was(
    listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aligning, "PIECE", 2)
    monkeypatch.setattr(aligning, "CHECKPOINT", 4)
    pictures = many(listing)
    whole = aligned_faces(pictures, CONFIG, tmp_path / "whole", threads=3)
    killed, following = CountingDetector(stop_after=10), CountingDetector()
    monkeypatch.setattr(aligning, "load_detector", lambda **_: killed)
    with pytest.raises(KeyboardInterrupt):
        aligned_faces(pictures, CONFIG, tmp_path / "killed", threads=1)
    monkeypatch.setattr(aligning, "load_detector", lambda **_: following)
    resumed = aligned_faces(pictures, CONFIG, tmp_path / "killed", threads=1)
    assert following.pictures == 11 - 8  # two checkpoints of four were kept
    assert resumed.found_fraction == whole.found_fraction == 10 / 11
    for part in ("train", "validation"):
        ours, theirs = getattr(resumed, part)(), getattr(whole, part)()
        assert ours.digest() == theirs.digest()


def test_commands_that_want_the_same_faces_at_once_align_them_once(
    listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = CountingDetector()
    monkeypatch.setattr(aligning, "load_detector", lambda **_: detector)
    pictures = many(listing)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: aligned_faces(pictures, CONFIG, tmp_path, threads=1).train(), range(2))
    assert first.digest() == second.digest()
    assert detector.pictures == 11


def kept_crop(study: Path, crop: NDArray[np.uint8], template: Points) -> Listing:
    """A study's dataset with one face that was aligned to that template, and its label."""
    columns = {
        "face_id": ["v-0-0-0"],
        "segment_id": ["s"],
        "source_id": ["v"],
        "png": [cv2.imencode(".png", crop[..., ::-1])[1].tobytes()],
        "template": [[float(value) for point in template for value in point]],
        "size": [len(crop)],
        "run_id": ["r"],
        "pipeline_version": ["1"],
    }
    (study / "crops").mkdir(parents=True)
    schema.write_table(schema.table("crops", columns), str(study / "crops" / "a.parquet"), "crops")
    (study / "labels.csv").write_text("face_id,expression,split\nv-0-0-0,happiness,train\n")
    return read_listing(study, labels=study / "labels.csv")


def test_kept_crops_are_taken_as_they_are_whatever_their_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = ModelConfig(aligned_size=224, colour="rgb")
    portrait = np.asarray(cv2.imread(str(ASTRONAUT), cv2.IMREAD_COLOR_RGB))[40:190, 150:300]
    (crop,), _, _ = align_pictures([portrait], load_detector(min_face_px=8), colours)

    def no_detector(**_: Any) -> None:
        raise AssertionError("a face that was found already is looked for again")

    monkeypatch.setattr(aligning, "load_detector", no_detector)
    crops = kept_crop(tmp_path / "my study", crop, FER_TEMPLATE)
    face = aligned_faces(crops, CONFIG, tmp_path / "work").train().faces_BCSS[0, 0].numpy()
    expected = cv2.cvtColor(cv2.resize(crop, (96, 96), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(face, expected)


def test_kept_crops_of_another_template_are_brought_to_the_models(tmp_path: Path) -> None:
    wide: Points = tuple((0.25 + x / 2, 0.25 + y / 2) for x, y in FER_TEMPLATE)  # the face is half as large
    portrait = np.asarray(cv2.imread(str(ASTRONAUT), cv2.IMREAD_COLOR_RGB))[0:300, 50:400]
    detector = load_detector(min_face_px=8)
    (crop,), _, _ = align_pictures([portrait], detector, ModelConfig(aligned_size=224, colour="rgb", template=wide))
    (expected,), _, _ = align_pictures([portrait], detector, CONFIG)
    face = aligned_faces(kept_crop(tmp_path / "study", crop, wide), CONFIG, tmp_path / "work").train().faces_BCSS[0, 0]
    difference = np.abs(face.numpy().astype(int) - expected[..., 0])
    unmoved = cv2.cvtColor(cv2.resize(crop, (96, 96)), cv2.COLOR_RGB2GRAY)
    assert difference.mean() < 3 < 15 < np.abs(unmoved.astype(int) - expected[..., 0]).mean()


def test_kept_crops_take_their_landmarks_from_the_faces_of_their_dataset(tmp_path: Path) -> None:
    wide: Points = tuple((0.25 + x / 2, 0.25 + y / 2) for x, y in FER_TEMPLATE)
    portrait = np.asarray(cv2.imread(str(ASTRONAUT), cv2.IMREAD_COLOR_RGB))[0:300, 50:400]
    detector = load_detector(min_face_px=8)
    landmarks = detector.detect([portrait])[0].landmarks_N52[:1]
    served = face_region_boxes(LANDMARK_REGIONS, landmarks, "v-0-0")
    for name, template in (("own", FER_TEMPLATE), ("other", wide)):
        config = ModelConfig(aligned_size=224, colour="rgb", template=template)
        (crop,), _, _ = align_pictures([portrait], detector, config)
        study = tmp_path / name
        kept_crop(study, crop, template)
        with pytest.raises(DataError, match=r"1 crops, such as v-0-0-0, have no row in faces/"):
            aligned_faces(read_listing(study, labels=study / "labels.csv"), LANDMARK_REGIONS, tmp_path / "work")
        write_landmarks(study, landmarks[0])
        listing = read_listing(study, labels=study / "labels.csv")
        boxes = aligned_faces(listing, LANDMARK_REGIONS, tmp_path / "work").train().boxes(LANDMARK_REGIONS)
        np.testing.assert_allclose(boxes[0].numpy(), served[0], atol=1e-4 if name == "own" else 0.01)
    assert np.abs(served[0] - region_boxes(LANDMARK_REGIONS, 1)[0]).max() > 0.015


def write_landmarks(study: Path, landmarks_52: NDArray[np.float32]) -> None:
    """The rows of two models for the face of `kept_crop`, and one of another face."""
    for model in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        columns = dict(zip(LANDMARK_COLUMNS, np.stack([landmarks_52.ravel(), np.zeros(10)], axis=1), strict=True))
        folder = study / "faces" / model
        folder.mkdir(parents=True)
        rows = staged_table("faces", 2, face_id=["v-0-0-0", "v-0-1-0"], model_id=[model] * 2, **columns)
        schema.write_table(rows, str(folder / "part-1.parquet"), "faces")


def test_a_class_folder_is_aligned_whatever_it_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "kept-crops" / "test" / "happy"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "grey.png"), np.full((64, 64, 3), 99, np.uint8))
    data = aligned_faces(read_listing(tmp_path / "kept-crops"), CONFIG, tmp_path / "work", threads=1)
    assert data.found_fraction == 0  # looked for, and not there


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    broken = Item(key="bad", picture=b"nothing", split="train", label=0)
    listing = Listing(name="made", items=[broken], lists={}, notes=[])
    with pytest.raises(DataError, match="picture bad"):
        aligned_faces(listing, CONFIG, tmp_path)
    (tmp_path / "file_of_bad.jpg").write_text("nothing")
    listing = replace(listing, items=[replace(broken, picture=tmp_path / "file_of_bad.jpg")])
    with pytest.raises(DataError, match=r"file_of_bad\.jpg can't be decoded: .*; put it right, or take it out"):
        aligned_faces(listing, CONFIG, tmp_path)


def test_pictures_of_expressions_that_the_model_lacks_are_told(listing: Listing) -> None:
    def left_out(classes: tuple[str, ...]) -> list[str]:
        config, count = ModelConfig(aligned_size=96, classes=classes), len(listing.items)
        faces = np.zeros((count, 1, 96, 96), np.uint8)
        return LabelledFaces(listing, config, faces, np.ones(count, np.bool_)).left_out()

    assert left_out(EXPRESSIONS) == []
    assert left_out(("disgust", "surprise")) == [
        "training pictures of expressions that the model lacks, left out: 1 happiness, 1 contempt",
        "validation pictures of expressions that the model lacks, left out: 1 anger",
    ]
