"""Which of two models is right more often on faces with labels, and whether the difference is more than luck."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from jobs.comparison import Estimate, estimates
from jobs.face_pairs import FacePairs
from pipeline.errors import UsageError
from ran_model.datasets.face_labels import read_labels
from ran_model.datasets.notes import Notes
from ran_model.labels import EXPRESSIONS
from ran_model.significance import McNemar, mcnemar


@dataclass(frozen=True, kw_only=True)
class LabelScores:
    """faces with this label, and how many of them each model has right."""

    label: str
    faces: int
    right_a: int
    right_b: int


@dataclass(frozen=True, kw_only=True)
class LabelledComparison:
    """faces: labelled faces that both models have; only these are scored.

    labels: faces with a label in the CSV, of which labels_only_a, labels_only_b have an answer of one model only, and
    labels_unknown of neither. unlabelled: faces of both models without a label. notes: rows of the CSV that were left
    out. accuracy: share of right answers; a label that a model has no class for is a wrong answer. difference: B − A.
    Intervals resample `sources` and come out too narrow over few of them. mcnemar takes faces as independent: with many
    faces of a source its p-value is too small, and from TRUSTED_SOURCES (`ran_model.source_bootstrap`) on the interval
    of the difference is to be trusted instead.
    """

    faces: int
    sources: int
    labels: int
    labels_only_a: int
    labels_only_b: int
    labels_unknown: int
    unlabelled: int
    notes: list[str]
    accuracy_a: Estimate
    accuracy_b: Estimate
    difference: Estimate
    mcnemar: McNemar
    by_label: list[LabelScores]

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        return asdict(self)


def compare_labelled(pairs: FacePairs, path: Path, *, faces: int) -> LabelledComparison:
    """Scores both models by the CSV `path` (face_id, expression). faces: those that both models have.

    Raises UsageError for a CSV that is wrong, or that labels no face of both models.
    """
    notes = Notes()
    try:
        labels = read_labels(path, notes)
    except ValueError as error:
        raise UsageError(str(error)) from None
    names = [EXPRESSIONS[label.expression] for label in labels.values()]
    connection, query = pairs.dataset.connection, pairs.dataset.query
    connection.register("labels", pa.table({"face_id": pa.array(list(labels), pa.string()), "label": names}))
    pairs.dataset.execute(
        "CREATE TEMP TABLE labelled AS SELECT label, a.face_id IS NOT NULL AS has_a, b.face_id IS NOT NULL AS has_b, "
        "a.source_id, a.expression = label AS right_a, b.expression = label AS right_b FROM labels l "
        "LEFT JOIN faces_a a ON a.face_id = l.face_id LEFT JOIN faces_b b ON b.face_id = l.face_id"
    )
    total = query(
        "SELECT count(*) FILTER (has_a AND has_b) AS faces, count(*) AS labels, "
        "count(DISTINCT source_id) FILTER (has_a AND has_b) AS sources, "
        "count(*) FILTER (has_a AND NOT has_b) AS labels_only_a, count(*) FILTER (has_b AND NOT has_a) AS "
        "labels_only_b, count(*) FILTER (NOT has_a AND NOT has_b) AS labels_unknown FROM labelled"
    )[0]
    if not total["faces"]:
        raise UsageError(
            f"{path} labels {total['labels']} faces, none of which both models have: face_id must be as in `faces`"
        )
    key = pairs.group_key(total["sources"])
    groups = np.array(
        connection.execute(
            "SELECT count(*), sum(right_a::INT), sum(right_b::INT), sum(right_b::INT - right_a::INT) FROM labelled "
            f"WHERE has_a AND has_b GROUP BY {key} ORDER BY {key}"
        ).fetchall(),
        np.float64,
    )
    accuracy_a, accuracy_b, difference = estimates(groups[:, 1:], groups[:, 0].astype(np.int64))
    right = connection.execute("SELECT right_a, right_b FROM labelled WHERE has_a AND has_b").fetchnumpy()
    by_label = query(
        "SELECT label, count(*) AS faces, sum(right_a::INT)::BIGINT AS right_a, sum(right_b::INT)::BIGINT AS right_b "
        "FROM labelled WHERE has_a AND has_b GROUP BY label"
    )
    return LabelledComparison(
        **total,
        unlabelled=faces - total["faces"],
        notes=notes.lines(),
        accuracy_a=accuracy_a,
        accuracy_b=accuracy_b,
        difference=difference,
        mcnemar=mcnemar(*(torch.from_numpy(np.asarray(right[name], bool)) for name in ("right_a", "right_b"))),
        by_label=[LabelScores(**row) for row in sorted(by_label, key=lambda row: EXPRESSIONS.index(row["label"]))],
    )
