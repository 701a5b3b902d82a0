"""Stored rows of `faces`, with their aligned pictures, as what `drawing` draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.drawing import FaceAnswer
from pipeline import schema
from ran_model.align import similarity_transform, transform_points
from ran_model.config import ModelConfig
from ran_model.regions import region_boxes

Row = dict[str, Any]


def landmarks_of(rows: Sequence[Row]) -> NDArray[np.float32]:
    """The faces' landmarks, pixels of the frame: (N, 5, 2)."""
    points = [[[row[f"landmark_{name}_{axis}"] for axis in "xy"] for name in schema.LANDMARKS] for row in rows]
    return np.array(points, np.float32).reshape(-1, 5, 2)


def face_answers(
    rows: Sequence[Row],
    aligned: Iterable[NDArray[np.uint8]],
    template_52: NDArray[np.float32],
    regions: tuple[str, ...],
    usual: tuple[float, ...] = (),
) -> list[FaceAnswer]:
    """Each face with its answer, numbered from 1. aligned: pictures in which the landmarks lie as in the template.

    Regions' boxes follow from their names; the dataset does not hold a model's `landmark_side`, so landmark regions
    are drawn with its default. Raises ValueError for a region that has no box.
    """
    if not rows:
        return []
    landmarks_N52 = landmarks_of(rows)
    boxes_NR4 = region_boxes(
        ModelConfig(regions=regions),
        len(rows),
        landmarks_N52=transform_points(landmarks_N52, similarity_transform(landmarks_N52, template_52, 1)),
        face_ids=[row["face_id"] for row in rows],
    )
    return [
        FaceAnswer(
            number=index + 1,
            box=(row["FaceRectX"], row["FaceRectY"], row["FaceRectWidth"], row["FaceRectHeight"]),
            expression=row["expression"],
            confidence=row["confidence"],
            probabilities=probabilities_of(row),
            aligned=picture,
            regions=regions,
            attention=tuple(attention_of(row, regions).tolist()),
            usual=usual,
            region_boxes=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes_NR4[index]),
        )
        for index, (row, picture) in enumerate(zip(rows, aligned, strict=True))
    ]


def probabilities_of(row: Row) -> dict[str, float]:
    """Of the classes that the model has."""
    shares = {name: row[f"prob_{name}"] for name in schema.EXPRESSIONS}
    return {name: share for name, share in shares.items() if share is not None}


def regions_of(row: Row) -> tuple[str, ...]:
    """The regions that the row's model has, in column order."""
    named = (name for name in schema.REGIONS if row[f"attention_{name}"] is not None)
    return (*named, *(row["attention_other"] or ()))


def attention_of(row: Row, regions: tuple[str, ...]) -> NDArray[np.float32]:
    """The weights of a face's regions: (R,), of sum 1."""
    other = row["attention_other"] or {}
    return np.array([other[name] if name in other else row[f"attention_{name}"] for name in regions], np.float32)
