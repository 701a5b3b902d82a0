"""The faces whose answer changed most from one model to another, with their pictures where crops were kept.

Change is the total variation ½ Σ |p_b − p_a| between the probabilities: the largest difference that any question about
the expression could show, from 0 to 1. Unlike the Kullback-Leibler divergence it is finite where a model gives 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.face_pairs import FacePairs
from jobs.model_columns import ModelColumns
from jobs.text import moment

PER_SOURCE = 3
CANDIDATES = 50  # times as many faces as are shown


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one model says. probabilities: by class, in column order."""

    expression: str
    confidence: float
    probabilities: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ChangedFace:
    """A face. timestamp: seconds, None for pictures. box: x, y, width, height in pixels of the frame.

    png: the aligned face, None if no crop was kept.
    """

    face_id: str
    source_uri: str
    member: str | None
    frame: int
    timestamp: float | None
    box: tuple[float, float, float, float]
    total_variation: float
    a: Answer
    b: Answer
    png: bytes | None

    @property
    def where(self) -> str:
        """The moment or the picture, without the source."""
        return moment(self.member, self.timestamp)

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only; has_crop instead of the picture."""
        values = {name: value for name, value in vars(self).items() if name != "png"}
        return values | {"a": vars(self.a), "b": vars(self.b), "has_crop": self.png is not None}


def changed_faces(pairs: FacePairs, count: int) -> list[ChangedFace]:
    """At most `count` faces, the most changed first; equal ones by face_id.

    At most 3 of a source as long as the 50 · count most changed faces have others, so that a few seconds of one video
    don't fill the list.
    """
    dataset = pairs.dataset
    candidates = dataset.query(
        "SELECT face_id, source_id, total_variation FROM pairs WHERE total_variation > 0 "
        f"ORDER BY total_variation DESC, face_id LIMIT {CANDIDATES * count}"
    )
    chosen = {row["face_id"]: row["total_variation"] for row in _spread(candidates, count)}
    if not chosen:
        return []
    wanted = [list(chosen)]
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for name in ("faces_a", "faces_b"):
        found = dataset.query(f"SELECT * FROM {name} WHERE face_id IN (SELECT unnest(?))", wanted)
        rows[name] = {row["face_id"]: row for row in found}
    crops = dataset.query("SELECT face_id, png FROM crops WHERE face_id IN (SELECT unnest(?))", wanted)
    pngs = {row["face_id"]: row["png"] for row in crops}
    faces = []
    for face_id, total_variation in chosen.items():
        row = rows["faces_a"][face_id]
        faces.append(
            ChangedFace(
                face_id=face_id,
                source_uri=row["source_uri"],
                member=row["member"],
                frame=row["frame"],
                timestamp=row["timestamp"],
                box=(row["FaceRectX"], row["FaceRectY"], row["FaceRectWidth"], row["FaceRectHeight"]),
                total_variation=total_variation,
                a=_answer(row, pairs.a),
                b=_answer(rows["faces_b"][face_id], pairs.b),
                png=pngs.get(face_id),
            )
        )
    return faces


def _spread(candidates: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first `count` with at most PER_SOURCE of a source, filled up with the first of the others; order stays."""
    taken: Counter[str] = Counter()
    first: list[int] = []
    others: list[int] = []
    for index, row in enumerate(candidates):
        taken[row["source_id"]] += 1
        (first if taken[row["source_id"]] <= PER_SOURCE else others).append(index)
    return [candidates[index] for index in sorted((first + others)[:count])]


def _answer(row: dict[str, Any], model: ModelColumns) -> Answer:
    return Answer(
        expression=row["expression"],
        confidence=row["confidence"],
        probabilities={name: row[f"prob_{name}"] for name in model.classes},
    )
