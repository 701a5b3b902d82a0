"""Faces to look at: of each expression the clearest and some of the least sure, from many sources and moments."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from jobs.dataset import OpenedDataset
from jobs.drawing import FACE_PX, tinted
from jobs.face_answer import Row, attention_of, face_answers, probabilities_of
from jobs.html_page import read_picture
from jobs.model_columns import ModelColumns
from pipeline.schema import EXPRESSIONS

CLEAR, UNSURE = 4, 2  # faces per expression
PER_SOURCE = 2
CANDIDATES = 200  # per expression and end of the scale, to find other sources and moments among


@dataclass(frozen=True, kw_only=True)
class ShownFace:
    """A face. is_clear: among those with the highest confidence of its expression, else the lowest. probabilities by
    expression, attention by region. png: the aligned face, None if no crop was kept. tint: the same with the weight of
    its regions on it, None where it can't be drawn."""

    face_id: str
    is_clear: bool
    source_uri: str
    member: str | None
    frame: int
    timestamp: float | None
    expression: str
    confidence: float
    probabilities: dict[str, float]
    attention: dict[str, float]
    png: bytes | None = None
    tint: Image.Image | None = None

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings and dicts only; has_crop instead of the pictures."""
        values = {name: value for name, value in vars(self).items() if name not in ("png", "tint")}
        return values | {"has_crop": self.png is not None}


def shown_faces(dataset: OpenedDataset, columns: ModelColumns) -> list[ShownFace]:
    """By expression in the schema's order, the clear ones before the unsure ones. Faces with a crop are preferred.

    At most PER_SOURCE of a source and one of a segment, as long as the candidates have others; among equally confident
    faces a hash decides, so that one source does not fill them.
    """
    candidates = _candidates(dataset)
    cropped = _with_crop(dataset, [face["face_id"] for faces in candidates.values() for face in faces])
    chosen: dict[str, bool] = {}
    for expression in EXPRESSIONS:
        for is_clear, count in ((True, CLEAR), (False, UNSURE)):
            faces = [face for face in candidates[expression, is_clear] if face["face_id"] not in chosen]
            faces = [face for face in faces if face["face_id"] in cropped] or faces
            chosen |= {face["face_id"]: is_clear for face in _spread(faces, count)}
    rows = _by_id(dataset, "SELECT * FROM faces WHERE face_id IN (SELECT unnest(?))", chosen)
    crops = _by_id(dataset, "SELECT * FROM crops WHERE face_id IN (SELECT unnest(?))", chosen)
    return [_shown(rows[face_id], is_clear, columns, crops.get(face_id)) for face_id, is_clear in chosen.items()]


def _candidates(dataset: OpenedDataset) -> dict[tuple[str, bool], list[Row]]:
    """The ends of the confidence scale per expression, best first, in one pass that holds nothing else: at most a
    quarter of the faces each, for what is clear must not depend on where it is."""
    face = "{'face_id': face_id, 'source_id': source_id, 'segment_id': segment_id}"
    key = "((confidence::DOUBLE * 1e9)::UBIGINT << 32) | (hash(face_id) >> 32)"
    rows = dataset.query(
        f"SELECT expression, count(*) AS faces, arg_max({face}, {key}, {CANDIDATES}) AS clear, "
        f"arg_min({face}, {key}, {CANDIDATES}) AS unsure FROM faces GROUP BY expression"
    )
    found: dict[tuple[str, bool], list[Row]] = defaultdict(list)
    for row in rows:
        quarter = row["faces"] // 4
        found[row["expression"], True] = row["clear"][: max(CLEAR, quarter)]
        found[row["expression"], False] = row["unsure"][: max(CLEAR + UNSURE, quarter)]
    return found


def _with_crop(dataset: OpenedDataset, face_ids: list[str]) -> set[str]:
    if not dataset.log.state.files("crops"):
        return set()
    found = dataset.query("SELECT face_id FROM crops WHERE face_id IN (SELECT unnest(?))", [face_ids])
    return {row["face_id"] for row in found}


def _by_id(dataset: OpenedDataset, sql: str, face_ids: Iterable[str]) -> dict[str, Row]:
    wanted = list(face_ids)
    return {row["face_id"]: row for row in dataset.query(sql, [wanted])} if wanted else {}


def _spread(faces: Sequence[Row], count: int) -> list[Row]:
    """The first `count`, others of a source or segment that is there already only where nothing else is left."""
    of_source: Counter[str] = Counter()
    of_segment: Counter[str] = Counter()
    ranks = []
    for index, face in enumerate(faces):
        again = of_segment[face["segment_id"]] > 0
        ranks.append((again, of_source[face["source_id"]] >= PER_SOURCE, index))
        if not again:
            of_source[face["source_id"]] += 1
        of_segment[face["segment_id"]] += 1
    return [faces[index] for *_, index in sorted(sorted(ranks)[:count], key=lambda rank: rank[-1])]


def _shown(row: Row, is_clear: bool, columns: ModelColumns, crop: Row | None) -> ShownFace:
    face = ShownFace(
        is_clear=is_clear,
        probabilities=probabilities_of(row),
        attention=dict(zip(columns.regions, attention_of(row, columns.regions).tolist(), strict=True)),
        **{name: row[name] for name in ("face_id", "source_uri", "member", "frame", "timestamp")},
        **{name: row[name] for name in ("expression", "confidence")},
    )
    return face if crop is None else replace(face, png=crop["png"], tint=_tint(row, crop, columns.regions))


def _tint(row: Row, crop: Row, regions: tuple[str, ...]) -> Image.Image | None:
    """None for a picture that can't be read, and for regions whose place is not known by their name."""
    picture = read_picture(crop["png"])
    template = np.array(crop["template"], np.float32)
    if picture is None or template.size != 10:
        return None
    try:
        (answer,) = face_answers([row], [np.asarray(picture)], template.reshape(5, 2), regions)
    except ValueError:
        return None
    return tinted(answer, FACE_PX)
