"""FERPlus as training material: aligned faces, votes as label distributions, and the RAN authors' lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch
from numpy.typing import NDArray
from torch import Tensor

from ran_model.labels import EXPRESSIONS

LISTS = {"full": "ran_label", "occlusion": "occlusion_label", "pose>30": "pose30_label", "pose>45": "pose45_label"}


@dataclass(frozen=True, kw_only=True)
class FaceSet:
    """faces_BCSS: uint8 (B, 1, S, S) grey. targets_BK: label distributions. labels_B: the authors' label, int64."""

    faces_BCSS: Tensor
    targets_BK: Tensor
    labels_B: Tensor

    def __len__(self) -> int:
        return len(self.labels_B)

    def take(self, index: Tensor) -> FaceSet:
        """The faces at these positions."""
        return FaceSet(
            faces_BCSS=self.faces_BCSS[index], targets_BK=self.targets_BK[index], labels_B=self.labels_B[index]
        )


class FerPlus:
    """The FERPlus table beside its aligned faces (written by `jobs.align_ferplus`).

    `train` is FER2013's Training part of the authors' train list, `validation` its PublicTest part: what chooses epochs
    and settings.
    `test(name)` are the authors' test lists, each with its own labels: for reporting only.
    """

    def __init__(self, table: Path, aligned: Path) -> None:
        columns = ["row", "usage", "votes", "ran_split", *LISTS.values()]
        rows = parquet.read_table(table, columns=columns).to_pandas().set_index("row")
        with np.load(aligned) as stored:
            self._faces = torch.from_numpy(stored["faces_NHW"])[:, None]
            self._rows = rows.loc[stored["row"]]
            self.found_fraction = float(stored["is_found"].mean())
        self._targets = torch.from_numpy(vote_distribution(np.stack(self._rows["votes"].to_list())))

    def train(self) -> FaceSet:
        """25,045 faces."""
        return self._where("ran_label", (self._rows["ran_split"] == "train") & (self._rows["usage"] == "Training"))

    def validation(self) -> FaceSet:
        """3,191 faces."""
        return self._where("ran_label", (self._rows["ran_split"] == "train") & (self._rows["usage"] == "PublicTest"))

    def test(self, name: str = "full") -> FaceSet:
        """One of the authors' test lists: full, occlusion, pose>30 or pose>45."""
        column = LISTS[name]
        return self._where(column, (self._rows["ran_split"] == "test") & self._rows[column].notna())

    def _where(self, column: str, mask: Any) -> FaceSet:
        index = torch.from_numpy(np.flatnonzero(mask))
        labels_B = torch.from_numpy(self._rows[column].to_numpy()[index.numpy()].astype(np.int64))
        targets_BK = self._targets[index].clone()
        without = targets_BK.sum(dim=1) == 0
        targets_BK[without] = torch.eye(len(EXPRESSIONS))[labels_B[without]]
        return FaceSet(faces_BCSS=self._faces[index], targets_BK=targets_BK, labels_B=labels_B)


def vote_distribution(votes_N10: NDArray[np.int64]) -> NDArray[np.float32]:
    """FERPlus vote counts (N, 10) to distributions over the eight expressions (N, 8), zeros where none is left.

    As FERPlus' own protocol does, a single vote counts as an outlier; unknown and not-a-face are dropped.
    """
    votes = votes_N10[:, : len(EXPRESSIONS)].astype(np.float32)
    votes[votes <= 1] = 0
    shares: NDArray[np.float32] = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    return shares
