"""Which faces a trained network answers right, kept on disk as long as its training and the faces are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Those of one network, in one file.

    training: all that it was trained by, as `ran_model.train.settings` has it. faces: by list, which faces with which
    labels, as `LabelledFaces.digest` has it.
    """

    path: Path
    training: str
    faces: Mapping[str, str]

    def missing(self) -> list[str]:
        """The lists whose answers are not there, or are of another training or of other faces or labels."""
        kept = _read(self.path)
        return [name for name in self.faces if kept.get(name, {}).get("of") != self._of(name)]

    def add(self, rights: Mapping[str, Tensor]) -> None:
        """Keeps these lists' answers (bool per face), and those of other lists that are there."""
        kept = _read(self.path)
        kept |= {name: {"of": self._of(name), "right": right_to_text(right_B)} for name, right_B in rights.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(kept))
        unfinished.replace(self.path)

    def _of(self, name: str) -> str:
        return hashlib.sha256(f"{self.training}\0{self.faces[name]}".encode()).hexdigest()[:16]


def read_answers(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """What `Answers` of that path keeps of these lists, of which none is missing: bool per face."""
    kept = _read(path)
    return {name: right_from_text(kept[name]["right"]) for name in names}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """By list. Without those that an older version wrote, which did not say what they are answers to."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    return {name: answers for name, answers in kept.items() if isinstance(answers, dict)}


def right_from_text(text: str) -> Tensor:
    """A face per letter, "1" where the answer is right: how answers are kept on disk."""
    return torch.tensor([letter == "1" for letter in text], dtype=torch.bool)


def right_to_text(right_B: Tensor) -> str:
    """The way back of `right_from_text`."""
    return "".join("1" if right else "0" for right in right_B.tolist())
