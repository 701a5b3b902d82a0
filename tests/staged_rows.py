"""Rows as a worker stages them: which rows a segment has depends on its id alone, so any two runs stage the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.ledger.staging import StagedFile, StagedSet, stage_table
from pipeline.storage.store import Store

MODEL, OTHER_MODEL = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def segment_id(number: int) -> str:
    """The id of the number-th segment."""
    return f"{number:020x}"


def source_id(number: int) -> str:
    """The id of the number-th source."""
    return f"{number:016x}"


def face_count(segment: str) -> int:
    """0, 1 or 2 faces; none where the segment failed."""
    return 0 if is_error(segment) else int(segment, 16) % 3


def face_ids(segments: Sequence[str]) -> list[str]:
    """Ids of the segments' faces."""
    return [
        f"{segment[:16]}-0-{int(segment, 16)}-{face}" for segment in segments for face in range(face_count(segment))
    ]


def is_error(segment: str) -> bool:
    """Every fifth segment failed."""
    return int(segment, 16) % 5 == 4


def table(name: str, rows: int, **given: Any) -> pa.Table:
    """Rows of a table; columns that are not given get the plainest value there is."""
    columns = {field.name: _plain(field.type, rows) for field in schema.TABLES[name] if not field.nullable}
    return schema.table(name, columns | given)


def _plain(type_: pa.DataType, rows: int) -> pa.Array:
    if pa.types.is_list(type_):
        return pa.array([[1]] * rows, type_)
    if pa.types.is_string(type_):
        return pa.repeat("x", rows)
    if pa.types.is_binary(type_):
        return pa.repeat(pa.scalar(b"x", type_), rows)
    return pa.repeat(1, rows).cast(type_)


def faces(segments: Sequence[str], *, model_id: str = MODEL, run_id: str = "run") -> pa.Table:
    """The faces of some segments."""
    owners = [segment for segment in segments for _ in range(face_count(segment))]
    count = len(owners)
    return table(
        "faces",
        count,
        face_id=face_ids(segments),
        segment_id=owners,
        model_id=[model_id] * count,
        run_id=[run_id] * count,
    )


def segments_table(segments: Sequence[str], *, model_id: str = MODEL, run_id: str = "run") -> pa.Table:
    """One row per segment."""
    count = len(segments)
    return table(
        "segments",
        count,
        segment_id=list(segments),
        model_id=[model_id] * count,
        run_id=[run_id] * count,
        faces_kept=[face_count(segment) for segment in segments],
        status=["error" if is_error(segment) else "ok" for segment in segments],
    )


def crops(segments: Sequence[str]) -> pa.Table:
    """One picture per face."""
    owners = [segment for segment in segments for _ in range(face_count(segment))]
    return table("crops", len(owners), face_id=face_ids(segments), segment_id=owners)


def sources(numbers: Sequence[int]) -> pa.Table:
    """One row per source."""
    return table("sources", len(numbers), source_id=[source_id(number) for number in numbers])


def stage(
    store: Store,
    run_id: str,
    numbers: Sequence[int],
    *,
    model_id: str = MODEL,
    covered: Sequence[int] = (),
    tellers: dict[int, int] | None = None,
    keep_crops: bool = False,
    source_numbers: Sequence[int] = (),
    tails: dict[str, int] | None = None,
) -> StagedSet:
    """What a worker does with one block: segments `numbers`, of which `covered` have no row."""
    with_rows = [segment_id(number) for number in numbers if number not in covered]
    files: list[StagedFile] = []
    if with_rows:
        rows = faces(with_rows, model_id=model_id, run_id=run_id)
        files.append(
            stage_table(store, run_id, "segments", segments_table(with_rows, model_id=model_id, run_id=run_id))
        )
        if rows.num_rows:
            files.append(stage_table(store, run_id, "faces", rows))
            if keep_crops:
                files.append(stage_table(store, run_id, "crops", crops(with_rows)))
    if source_numbers:
        files.append(stage_table(store, run_id, "sources", sources(source_numbers)))
    return StagedSet(
        segment_ids=[segment_id(number) for number in numbers],
        covered=[segment_id(number) for number in covered],
        files=files,
        tails=tails or {},
        tellers={segment_id(number): segment_id(teller) for number, teller in (tellers or {}).items()},
    )
