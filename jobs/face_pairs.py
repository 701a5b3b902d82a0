"""The faces that two models have both answered, as a DuckDB view that joins `all_faces` with itself on face_id.

DuckDB streams the join and spills it to disk beyond its bound (`OpenedDataset.bounded`): a dataset may be larger than
memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.dataset import OpenedDataset
from jobs.model_columns import ModelColumns, column_value, model_columns
from jobs.sql import literal, quoted
from pipeline import schema

#: Sources that are resampled one by one; beyond, they are pooled at random into as many groups (see `group_key`).
MOST_GROUPS = 4096

_ABOUT = (
    "face_id", "source_id", "source_uri", "member", "frame", '"timestamp"', "FaceRectX", "FaceRectY", "FaceRectWidth",
    "FaceRectHeight",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FacePairs:
    """Views over the faces of models `a` and `b`.

    `pairs` has a row per face of both: where it is; expression_a, expression_b; total_variation, ½ Σ |p_b − p_a| over
    the classes, where one that a model lacks has probability 0; and `<column>_a`, `<column>_b` of every shared column.
    `faces_a` and `faces_b` are the models' rows. shared: `confidence`, `entropy` and the columns of probabilities and
    attention that both models have. incomparable: those of `shared` that are over other classes or regions in one model
    than in the other, so that a difference says little: entropy, and shares of attention.
    """

    dataset: OpenedDataset
    a: ModelColumns
    b: ModelColumns
    shared: tuple[str, ...]
    incomparable: frozenset[str] = frozenset()

    def group_key(self, sources: int) -> str:
        """SQL for what is resampled: the source, or, with very many, one of 4,096 groups of sources.

        source_id is a hash, so its first three digits pool sources at random; groups are as independent as sources.
        """
        return "source_id" if sources <= MOST_GROUPS else "left(source_id, 3)"


@contextmanager
def face_pairs(dataset: OpenedDataset, model_a: str, model_b: str) -> Iterator[FacePairs]:
    """The views, on the dataset's connection. Models are full ids that the dataset has."""
    a, b = model_columns(dataset, model_a), model_columns(dataset, model_b)
    probabilities = [f"prob_{name}" for name in schema.EXPRESSIONS if name in a.classes and name in b.classes]
    attention = [f"attention_{name}" for name in a.regions if name in b.regions]
    shared = (*probabilities, "confidence", "entropy", *attention)
    distance = " + ".join(
        f"abs(coalesce(b.prob_{name}, 0)::DOUBLE - coalesce(a.prob_{name}, 0))" for name in schema.EXPRESSIONS
    )
    selected = [f"a.{name}" for name in _ABOUT]
    selected += ["a.expression AS expression_a", "b.expression AS expression_b", f"({distance}) / 2 AS total_variation"]
    selected += [
        f"{column_value(column, model)}::DOUBLE AS {quoted(f'{column}_{model}')}" for column in shared for model in "ab"
    ]
    execute = dataset.execute
    with dataset.bounded():
        execute("SET preserve_insertion_order = false")
        execute(f"CREATE TEMP VIEW faces_a AS SELECT * FROM all_faces WHERE model_id = {literal(model_a)}")
        execute(f"CREATE TEMP VIEW faces_b AS SELECT * FROM all_faces WHERE model_id = {literal(model_b)}")
        execute(
            f"CREATE TEMP VIEW pairs AS SELECT {', '.join(selected)} FROM faces_a a JOIN faces_b b "
            "ON a.face_id = b.face_id"
        )
        differing = ["entropy"] if a.classes != b.classes else []
        differing += attention if set(a.regions) != set(b.regions) else []
        yield FacePairs(dataset=dataset, a=a, b=b, shared=shared, incomparable=frozenset(differing))
