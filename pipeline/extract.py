"""The decode stage: plan rows in, the same rows with their faces' aligned pixels out. A CPU actor."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.child import DecodeChild
from pipeline.config import Extraction
from pipeline.errors import MediaError
from pipeline.extraction import FACE_COLUMNS, ExtractedSegment
from pipeline.pixels import pixels_column
from pipeline.segments import PLAN, Segment, video_key
from pipeline.worker import WorkerConfig

BLOCK_PIXEL_BYTES = 256 << 20

_ARROW: dict[type, pa.DataType] = {np.int16: pa.int16(), np.int32: pa.int32(), np.float32: pa.float32()}
FACES_TYPE = pa.list_(pa.struct([pa.field(name, _ARROW[dtype]) for name, dtype in FACE_COLUMNS.items()]))
_UNKNOWN_AS_NAN = {field.name for field in schema.FACES if pa.types.is_floating(field.type) and field.nullable}

#: Columns that this stage adds to a plan row.
EXTRACTED = pa.schema(
    {
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "first_member": pa.string(),
        "video_key": pa.string(),
        "frames": pa.list_(pa.int64()),
        "timestamps": pa.list_(pa.float64()),
        "frame_members": pa.list_(pa.string()),
        "ordinals": pa.list_(pa.int32()),
        "face_counts": pa.list_(pa.int32()),
        "frame_errors": pa.list_(pa.string()),
        "status": pa.string(),
        "error_stage": pa.string(),
        "failure_code": pa.string(),
        "failure_message": pa.string(),
        "beyond": pa.int32(),
        "covered": pa.bool_(),
        "deferred": pa.bool_(),
        "fetch_s": pa.float32(),
        "decode_s": pa.float32(),
        "detect_s": pa.float32(),
        "node": pa.string(),
        "decoder": pa.string(),
        "started_at": pa.float64(),  # Unix time at which the unit was taken up; for the run's start-up time
        "faces": FACES_TYPE,
        "region_boxes": pa.list_(pa.float32()),  # N·R·4, fractions of the aligned square
        "pixels": pa.large_binary(),  # N·S·S·3, RGB
    }
)


class DecodeActor:
    """Runs the child over a dispatch unit. One row per segment comes back, in order, whatever happened to it."""

    def __init__(self, config: WorkerConfig, deadline_s: float, block_pixel_bytes: int = BLOCK_PIXEL_BYTES) -> None:
        self._child = DecodeChild(config, deadline_s=deadline_s, warm=True)
        self._extraction = config.extraction
        self._block_pixel_bytes = block_pixel_bytes

    def __call__(self, plan: pa.Table) -> pa.Table:
        return extract_unit(plan, self._extract, self._extraction, self._block_pixel_bytes)

    def close(self) -> None:
        """Ends the child."""
        self._child.stop()

    def _extract(self, segment: Segment) -> tuple[ExtractedSegment, bytes | bytearray]:
        if segment.error is not None:
            failed = ExtractedSegment(segment_id=segment.segment_id)
            failed.fail(segment.error, partial=False, stage="probe")
            return failed, b""
        return self._child.extract(segment)


def extract_unit(
    plan: pa.Table,
    extract: Callable[[Segment], tuple[ExtractedSegment, bytes | bytearray]],
    extraction: Extraction,
    block_pixel_bytes: int = BLOCK_PIXEL_BYTES,
) -> pa.Table:
    """Plan rows with the columns of EXTRACTED, by `extract`. What comes after so many bytes of faces is deferred."""
    started_at = time.time()
    results: list[ExtractedSegment] = []
    pixels: list[bytes | bytearray] = []
    deferred: list[bool] = []
    used = 0
    for row in plan.select(PLAN.names).to_pylist():
        segment = Segment.from_row(row)
        late = used > block_pixel_bytes
        faces: bytes | bytearray = b""
        if late:
            result = ExtractedSegment(segment_id=segment.segment_id)
        else:
            result, faces = extract(segment)
        used += len(faces)
        results.append(result)
        pixels.append(faces)
        deferred.append(late)
    return append_results(plan, results, pixels, deferred, extraction, started_at)


def append_results(
    plan: pa.Table,
    results: Sequence[ExtractedSegment],
    pixels: Sequence[bytes | bytearray],
    deferred: Sequence[bool],
    extraction: Extraction,
    started_at: float,
) -> pa.Table:
    """Plan rows with the columns of EXTRACTED."""
    rows = plan.select(["kind", "source_id", "window", "members"]).to_pylist()
    spans = [_span_s(row, result, extraction) for row, result in zip(rows, results, strict=True)]
    columns: dict[str, Any] = {
        "start_s": [start for start, _ in spans],
        "end_s": [end for _, end in spans],
        "first_member": [row["members"][0]["name"] if row["members"] else None for row in rows],
        "video_key": [_video_key(row) for row in rows],
        "frame_members": [result.members for result in results],
        "failure_code": [result.error_code for result in results],
        "failure_message": [result.error_message for result in results],
        "deferred": deferred,
        "node": [socket.gethostname()] * len(results),
        "started_at": [started_at] * len(results),
        "faces": _faces_array(results),
        "region_boxes": [result.region_boxes.ravel() for result in results],
        "pixels": pixels_column(pixels),
    }
    for field in EXTRACTED:
        values = columns.get(field.name)
        if values is None:
            values = [getattr(result, field.name) for result in results]
        array = values if isinstance(values, pa.Array) else pa.array(values, field.type)
        plan = plan.append_column(field, array)
    return plan


def failed_block(plan: pa.Table, error: MediaError, extraction: Extraction) -> pa.Table:
    """Plan rows that no actor survived, as the decode stage would have returned them: one failure each."""
    results = []
    for segment_id in plan["segment_id"].to_pylist():
        result = ExtractedSegment(segment_id=segment_id)
        result.fail(error, partial=False, stage="process")
        results.append(result)
    return append_results(plan, results, [b""] * len(results), [False] * len(results), extraction, time.time())


def _video_key(row: Mapping[str, Any]) -> str | None:
    if row["kind"] != "video":
        return None
    return video_key(row["source_id"], row["members"][0]["ordinal"] if row["members"] else None)


def _span_s(
    row: Mapping[str, Any], result: ExtractedSegment, extraction: Extraction
) -> tuple[float | None, float | None]:
    """The window's span in seconds: of its grid points for a sampled video, of its frames when all are taken. Of what
    could not even be probed it is not known."""
    if row["kind"] != "video" or result.error_stage == "probe":
        return None, None
    if extraction.rate is None:
        known = [timestamp for timestamp in result.timestamps if timestamp is not None]
        return (known[0], known[-1]) if known else (None, None)
    first = row["window"] * extraction.segment_frames  # grid point g takes the frames in ((g - 1) / rate, g / rate]
    last = first + extraction.segment_frames - 1
    return float(max(0, first - 1) / extraction.rate), float(last / extraction.rate)


def _faces_array(results: Sequence[ExtractedSegment]) -> pa.Array:
    offsets = np.cumsum([0, *(result.faces_kept for result in results)], dtype=np.int32)
    arrays = [
        pa.array(
            np.concatenate([result.faces[field.name] for result in results]),
            field.type,
            from_pandas=field.name in _UNKNOWN_AS_NAN,
        )
        for field in FACES_TYPE.value_type
    ]
    faces = pa.StructArray.from_arrays(arrays, fields=list(FACES_TYPE.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), faces)
