"""What a model answers, as columns of `faces`: its classes and its regions."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.dataset import OpenedDataset
from jobs.sql import literal
from pipeline import schema


@dataclass(frozen=True, kw_only=True)
class ModelColumns:
    """What a model answers: its classes and its regions, in column order; none if it has no face yet."""

    model_id: str
    classes: tuple[str, ...]
    regions: tuple[str, ...]


def model_columns(dataset: OpenedDataset, model_id: str) -> ModelColumns:
    """Read from one row: the columns that are null are the same in all rows of a model."""
    rows = dataset.query(f"SELECT * FROM all_faces WHERE model_id = {literal(model_id)} LIMIT 1")
    if not rows:
        return ModelColumns(model_id=model_id, classes=(), regions=())
    row = rows[0]
    regions = [name for name in schema.REGIONS if row[f"attention_{name}"] is not None]
    return ModelColumns(
        model_id=model_id,
        classes=tuple(name for name in schema.EXPRESSIONS if row[f"prob_{name}"] is not None),
        regions=(*regions, *(row["attention_other"] or ())),
    )


def column_value(column: str, table: str) -> str:
    """SQL for a column of a table of faces, also for `attention_<region>` of a region that has none."""
    if column in schema.FACES.names:
        return f"{table}.{column}"
    return f"{table}.attention_other[{literal(column.removeprefix('attention_'))}]"
