"""Aligned faces with their labels, as tensors: what training and evaluation work on.

B faces, C channels, S aligned side, R regions, K classes.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ran_model.config import ModelConfig
from ran_model.datasets.copies import without_copies
from ran_model.datasets.listing import DataError, Item, Listing
from ran_model.labels import EXPRESSIONS
from ran_model.regions import BOXES, LANDMARKS, region_boxes

CHUNK = 1024  # faces


@dataclass(frozen=True, kw_only=True)
class FaceSet:
    """faces_BCSS: uint8, grey or RGB. targets_BK: label distributions. labels_B: int64.

    boxes_BR4: the regions of each face; None takes the model's own for all of them, which fixed regions are.
    landmarks_B52: where each face's own landmarks lie, in fractions of the square, for regions that follow them when
    the face is changed; only for models with such regions.
    """

    faces_BCSS: Tensor
    targets_BK: Tensor
    labels_B: Tensor
    boxes_BR4: Tensor | None = None
    landmarks_B52: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels_B)

    def take(self, index: Tensor) -> FaceSet:
        """The faces at these positions."""
        return FaceSet(
            faces_BCSS=self.faces_BCSS[index],
            targets_BK=self.targets_BK[index],
            labels_B=self.labels_B[index],
            boxes_BR4=None if self.boxes_BR4 is None else self.boxes_BR4[index],
            landmarks_B52=None if self.landmarks_B52 is None else self.landmarks_B52[index],
        )

    def digest(self) -> str:
        """64 hex over the faces, regions of their own, and what they are to be answered with."""
        digest = hashlib.sha256(self.faces_BCSS.numpy().data)  # the buffer itself: a copy may not fit beside it
        digest.update(self.targets_BK.numpy().data)
        digest.update(self.labels_B.numpy().data)  # class balance goes by them
        if self.boxes_BR4 is not None:
            digest.update(self.boxes_BR4.numpy().data)
        return digest.hexdigest()

    def boxes(self, config: ModelConfig) -> Tensor:
        """Boxes (B, R, 4), or (1, R, 4) where all faces share them."""
        return torch.from_numpy(region_boxes(config, 1)) if self.boxes_BR4 is None else self.boxes_BR4


class LabelledFaces:
    """A listing's aligned faces by split and by test list.

    faces_NCSS: uint8, in the listing's order (may be a memory map). is_found: whether the detector found the face, or
    the whole picture was used. Labels count in the order of EXPRESSIONS, or of the config's classes for `train` and
    `validation`, which leave out pictures of other classes.
    digests: of the pictures' pixels, in the listing's order; with them `listing` is what `without_copies` leaves.
    landmarks_N52: each face's own, where alignment puts them, in fractions of the square: float32, in the listing's
    order; landmark regions lie around them, as they do when a video is scored. None takes the template's; NaN stands
    for those that are not known. Raises DataError for landmark regions where there are such.
    """

    def __init__(
        self,
        listing: Listing,
        config: ModelConfig,
        faces_NCSS: NDArray[np.uint8],
        is_found: NDArray[np.bool_],
        digests: Sequence[bytes] | None = None,
        landmarks_N52: NDArray[np.float32] | None = None,
    ) -> None:
        self._landmarks = landmarks_N52
        self._config, self._faces, self._is_found = config, faces_NCSS, is_found
        self._position = {item.key: index for index, item in enumerate(listing.items)}
        self.listing, self._copied = (listing, frozenset()) if digests is None else without_copies(listing, digests)
        self._check_landmarks()

    def for_model(self, config: ModelConfig) -> LabelledFaces:
        """The same faces for a model that looks at other regions of them. Raises DataError as a new one."""
        other = copy.copy(self)
        other._config = config
        other._check_landmarks()
        return other

    @property
    def found_fraction(self) -> float:
        """Share of the pictures in which the detector found a face."""
        return float(self._is_found.mean()) if len(self._is_found) else 0.0

    @property
    def lists(self) -> tuple[str, ...]:
        """Names of the test lists."""
        return tuple(self.listing.lists)

    def train(self, same: FaceSet | None = None) -> FaceSet:
        """What networks are trained on. same: these faces as a model of other regions has them (`for_model`), whose
        pixels are shared then, not copied."""
        if same is None:
            return self._split("train")
        boxes, landmarks = self._regions(self._of("train"))
        return replace(same, boxes_BR4=boxes, landmarks_B52=landmarks)

    def validation(self) -> FaceSet:
        """What chooses epochs and settings; held out of train."""
        return self._split("validation")

    def test(self, name: str = "full") -> FaceSet:
        """One of the test lists, with labels of its own, over EXPRESSIONS: for reporting, never for choosing."""
        return self._set(self._listed(name), self._labels(name), EXPRESSIONS)

    def left_out(self, *splits: str) -> list[str]:
        """A note for each of these (default: train and validation) that has pictures of expressions that the model
        lacks."""
        notes = []
        for split in splits or ("train", "validation"):
            part = "training" if split == "train" else split
            known, counts = {item.key for item in self._of(split)}, Counter[str]()
            for item in self.listing.of(split):
                if item.key not in known:
                    counts[EXPRESSIONS[item.label]] += 1
            if counts:
                listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
                notes.append(f"{part} pictures of expressions that the model lacks, left out: {listed}")
        return notes

    def is_copied(self, name: str) -> Tensor:
        """Which pictures of a test list the training part has too: bool (B), in the order of `test`."""
        return torch.tensor([item.key in self._copied for item in self._listed(name)], dtype=torch.bool)

    def digest(self, name: str) -> str:
        """64 hex over a test list, or "validation": faces in their order, labels, and what regions may depend on."""
        items = self._of("validation") if name == "validation" else self._listed(name)
        labels = [item.label for item in items] if name == "validation" else self._labels(name)
        index = self._index(items)
        digest = hashlib.sha256(repr([(item.key, label) for item, label in zip(items, labels, strict=True)]).encode())
        for start in range(0, len(index), CHUNK):
            digest.update(self._faces[index[start : start + CHUNK]].tobytes())
        if self._landmarks is not None:
            digest.update(self._landmarks[index].tobytes())
        return digest.hexdigest()

    def groups(self, name: str) -> Tensor | None:
        """Which faces are not independent, as those of one video: int64 (B), a number per group, in the order of `test`
        or, for "validation", of `validation`. None where every face stands alone."""
        items = self._of("validation") if name == "validation" else self._listed(name)
        numbers: dict[tuple[bool, str], int] = {}
        keys = [(item.group is not None, item.group or item.key) for item in items]
        groups = [numbers.setdefault(key, len(numbers)) for key in keys]
        return None if len(numbers) == len(items) else torch.tensor(groups, dtype=torch.int64)

    def _listed(self, name: str) -> list[Item]:
        return [item for item in self.listing.of("test") if item.key in self.listing.lists[name]]

    def _labels(self, name: str) -> list[int]:
        """A test list's own, over EXPRESSIONS."""
        return [self.listing.lists[name][item.key] for item in self._listed(name)]

    def _of(self, split: str) -> list[Item]:
        """Without pictures of classes that the model lacks."""
        return self.listing.of(split, self._config.classes)

    def _split(self, split: str) -> FaceSet:
        classes, items = self._config.classes, self._of(split)
        return self._set(items, [classes.index(EXPRESSIONS[item.label]) for item in items], classes)

    def _set(self, items: Sequence[Item], labels: Sequence[int], classes: tuple[str, ...]) -> FaceSet:
        index = self._index(items)
        targets = np.zeros((len(items), len(classes)), np.float32)
        columns = [EXPRESSIONS.index(name) for name in classes]
        for row, (item, label) in enumerate(zip(items, labels, strict=True)):
            votes = np.zeros(len(classes)) if item.votes is None else np.array(item.votes)[columns]
            targets[row] = votes / votes.sum() if votes.sum() > 0 else np.eye(len(classes))[label]
        boxes, landmarks = self._regions(items)
        faces = np.empty((len(index), *self._faces.shape[1:]), np.uint8)
        for start in range(0, len(index), CHUNK):  # in one go there would be a second copy, in the stored order of axes
            faces[start : start + CHUNK] = self._faces[index[start : start + CHUNK]]
        return FaceSet(
            faces_BCSS=torch.from_numpy(faces),
            targets_BK=torch.from_numpy(targets),
            labels_B=torch.tensor(labels, dtype=torch.int64),
            boxes_BR4=boxes,
            landmarks_B52=landmarks,
        )

    def _regions(self, items: Sequence[Item]) -> tuple[Tensor | None, Tensor | None]:
        """boxes_BR4 and landmarks_B52, as a `FaceSet` has them."""
        regions, landmarks = self._config.regions, None
        if self._landmarks is not None and any(name in LANDMARKS for name in regions):
            landmarks = self._landmarks[self._index(items)]
        if landmarks is None and all(name in BOXES or name in LANDMARKS for name in regions):
            return None, None
        keys = [item.key for item in items]
        boxes = region_boxes(self._config, len(items), landmarks_N52=landmarks, face_ids=keys)
        return torch.from_numpy(boxes), None if landmarks is None else torch.from_numpy(landmarks)

    def _index(self, items: Sequence[Item]) -> NDArray[np.int64]:
        """Where their faces are kept."""
        return np.array([self._position[item.key] for item in items], np.int64)

    def _check_landmarks(self) -> None:
        if self._landmarks is None or all(name not in LANDMARKS for name in self._config.regions):
            return
        is_unknown_N = np.isnan(self._landmarks).any(axis=(1, 2))
        if is_unknown_N.any():
            face = list(self._position)[int(is_unknown_N.argmax())]
            raise DataError(
                f"{self.listing.name}: {int(is_unknown_N.sum())} crops, such as {face}, have no row in "
                "faces/**/*.parquet, and regions around landmarks need the landmarks there: take the dataset as it was "
                "written, or other regions"
            )
