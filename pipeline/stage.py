"""The last stage: predictions become Parquet files in the run's staging folder, and one manifest row per segment.

Nothing here is visible to readers; the driver's commit makes it so (`pipeline.ledger.commit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import __version__, schema
from pipeline.extraction import FACE_COLUMNS
from pipeline.ledger.staging import StagedFile, stage_table
from pipeline.pixels import face_pictures
from pipeline.storage.store import Store
from ran_model.config import ModelConfig

#: What the driver reads. `files` is the same in every row of a block: its set covers all segments of the block.
MANIFEST = pa.schema(
    {
        "segment_id": pa.string(),
        "source_id": pa.string(),
        "source_uri": pa.string(),
        "window": pa.int32(),
        "status": pa.string(),
        "error_code": pa.string(),
        "sampled_frames": pa.int32(),
        "faces_kept": pa.int32(),
        "video_key": pa.string(),
        "beyond": pa.int32(),
        "covered": pa.bool_(),
        "deferred": pa.bool_(),
        "fetch_s": pa.float32(),
        "decode_s": pa.float32(),
        "detect_s": pa.float32(),
        "infer_s": pa.float32(),
        "started_at": pa.float64(),
        "files": pa.list_(
            pa.struct(
                {
                    "table": pa.string(),
                    "path": pa.string(),
                    "rows": pa.int64(),
                    "bytes": pa.int64(),
                    "sha256": pa.string(),
                }
            )
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Where and as what rows are written."""

    store: Store
    run_id: str
    model_id: str
    model_config: bytes
    keep_crops: bool = False


class StageWriter:
    """Callable on one block of predicted segments; returns its manifest."""

    def __init__(self, config: StageConfig) -> None:
        self._config = config
        self._model = ModelConfig.from_json(config.model_config)

    def __call__(self, block: pa.Table) -> pa.Table:
        written = block.filter(pc.invert(pc.or_(block["deferred"], block["covered"])))
        files: list[StagedFile] = []
        if written.num_rows:
            faces = self._faces(written)
            files.append(self._stage("segments", self._segments(written)))
            if faces.num_rows:
                files.append(self._stage("faces", faces))
                if self._config.keep_crops:
                    files.append(self._stage("crops", self._crops(written, faces)))
        return self._manifest(block, files)

    def _stage(self, table: str, rows: pa.Table) -> StagedFile:
        return stage_table(self._config.store, self._config.run_id, table, rows)

    def _common(self, count: int) -> dict[str, pa.Array]:
        values = {"model_id": self._config.model_id, "run_id": self._config.run_id, "pipeline_version": __version__}
        return {name: pa.repeat(value, count) for name, value in values.items()}

    def _faces(self, block: pa.Table) -> pa.Table:
        """One row per face, in the declared schema. Everything is flattened column-wise; no loop over faces."""
        counts = np.asarray(pc.list_value_length(block["faces"]), np.int64)
        total = int(counts.sum())
        segment = np.repeat(np.arange(block.num_rows), counts)
        struct = pa.StructArray.from_arrays(
            [pc.struct_field(_flatten(block["faces"]), name) for name in FACE_COLUMNS], names=list(FACE_COLUMNS)
        )
        columns: dict[str, Any] = {name: struct.field(name) for name in FACE_COLUMNS}
        frame_offsets = np.cumsum([0, *np.asarray(pc.list_value_length(block["frames"]), np.int64)])
        position = pa.array(frame_offsets[segment] + np.asarray(struct.field("frame_position")))
        for name, source in (("frame", "frames"), ("timestamp", "timestamps"), ("member", "frame_members")):
            columns[name] = _flatten(block[source]).take(position)
        for name in ("source_id", "source_uri", "segment_id"):
            columns[name] = block[name].combine_chunks().take(pa.array(segment))
        ordinals = _flatten(block["ordinals"]).take(position)
        columns["face_id"] = pc.binary_join_element_wise(
            columns["source_id"],
            *(pc.cast(part, pa.string()) for part in (ordinals, columns["frame"], columns["face"])),
            "-",
        )
        columns |= self._common(total) | self._predictions(block, total)
        return _build(schema.FACES, columns, total)

    def _predictions(self, block: pa.Table, total: int) -> dict[str, Any]:
        classes, regions = self._model.classes, self._model.regions
        probabilities = _matrix(block["probabilities"], total, len(classes))
        columns: dict[str, Any] = {f"prob_{name}": probabilities[:, k] for k, name in enumerate(classes)}
        best = probabilities.argmax(1) if total else np.empty(0, np.int64)
        columns["expression"] = pa.array(list(classes)).take(pa.array(best))
        columns["confidence"] = probabilities[np.arange(total), best]
        logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        columns["entropy"] = -(probabilities * logs).sum(1)
        attention = _matrix(block["attention"], total, len(regions))
        self_attention = _matrix(block["self_attention"], total, len(regions))
        other: dict[str, NDArray[np.float32]] = {}
        for r, name in enumerate(regions):
            if name in schema.REGIONS:
                columns[f"attention_{name}"] = attention[:, r]
                columns[f"self_attention_{name}"] = self_attention[:, r]
            else:
                other[name] = attention[:, r]
        if other:
            rows = [list(zip(other, values, strict=True)) for values in zip(*other.values(), strict=True)]
            columns["attention_other"] = pa.array(rows, schema.FACES.field("attention_other").type)
        return columns

    def _segments(self, block: pa.Table) -> pa.Table:
        columns: dict[str, Any] = {
            name: block[name].combine_chunks()
            for name in (
                "segment_id", "source_id", "source_uri", "kind", "start_s", "end_s", "first_member", "frames",
                "timestamps", "face_counts", "frame_errors", "status", "error_stage", "fetch_s", "decode_s",
                "detect_s", "infer_s", "attempts", "node",
                "decoder",
            )
        }  # fmt: skip
        columns["error_code"] = block["failure_code"].combine_chunks()
        columns["error_message"] = block["failure_message"].combine_chunks()
        columns["faces_kept"] = pc.cast(pc.list_value_length(block["faces"]), pa.int32()).combine_chunks()
        inside = pc.is_valid(block["first_member"]).combine_chunks()
        members = block["frame_members"].combine_chunks()
        columns["members"] = pc.if_else(inside, members, pa.nulls(len(members), members.type))
        failed = pc.fill_null(pc.list_value_length(_without_nulls(block["frame_errors"])), 0)
        errors = columns["frame_errors"]
        columns["frame_errors"] = pc.if_else(pc.greater(failed, 0), errors, pa.nulls(len(errors), errors.type))
        columns |= self._common(block.num_rows)
        return _build(schema.SEGMENTS, columns, block.num_rows)

    def _crops(self, block: pa.Table, faces: pa.Table) -> pa.Table:
        import cv2

        size = self._model.aligned_size
        pngs = [
            cv2.imencode(".png", cv2.cvtColor(face, cv2.COLOR_RGB2BGR))[1].tobytes()
            for part in face_pictures(block["pixels"], size)
            for face in part
        ]
        template = np.asarray(self._model.template, np.float32).ravel().tolist()
        columns: dict[str, Any] = {
            "face_id": faces["face_id"],
            "segment_id": faces["segment_id"],
            "source_id": faces["source_id"],
            "png": pa.array(pngs, pa.binary()),
            "template": pa.array([template] * len(pngs), pa.list_(pa.float32())),
            "size": pa.repeat(size, len(pngs)),
        }
        return _build(schema.CROPS, columns | self._common(len(pngs)), len(pngs))

    def _manifest(self, block: pa.Table, files: Sequence[StagedFile]) -> pa.Table:
        described = [
            {"table": f.table, "path": f.path, "rows": f.rows, "bytes": f.bytes, "sha256": f.sha256} for f in files
        ]
        columns: dict[str, Any] = {name: block[name] for name in MANIFEST.names if name in block.column_names}
        columns["error_code"] = block["failure_code"]
        columns["sampled_frames"] = pc.list_value_length(block["frames"])
        columns["faces_kept"] = pc.list_value_length(block["faces"])
        columns["files"] = pa.array([described] * block.num_rows, MANIFEST.field("files").type)
        return _build(MANIFEST, columns, block.num_rows)


def _build(target: pa.Schema, columns: Mapping[str, Any], rows: int) -> pa.Table:
    """A table of exactly `target`'s columns; those not given are null."""
    arrays = []
    for field in target:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(rows, field.type)
        elif isinstance(values, np.ndarray):
            values = pa.array(values)
        arrays.append(values if values.type == field.type else pc.cast(values, field.type))
    return pa.Table.from_arrays(arrays, schema=target)


def _flatten(column: pa.ChunkedArray) -> pa.Array:
    """The values of a list column as one array (`flatten` respects slices; `.values` would not)."""
    return column.combine_chunks().flatten()


def _without_nulls(column: pa.ChunkedArray) -> pa.Array:
    """A list column with the null items of each list dropped."""
    return pa.array([[item for item in row if item is not None] for row in column.to_pylist()], pa.list_(pa.string()))


def _matrix(column: pa.ChunkedArray, rows: int, width: int) -> NDArray[np.float32]:
    return np.asarray(_flatten(column), np.float32).reshape(rows, width)
