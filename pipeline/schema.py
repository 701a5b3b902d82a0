"""The tables on disk, and the views that `query` makes of them: their columns, types and meanings, declared once.
docs/columns.md is generated from here.

Plain Parquet for every reader: no extension types, no FixedSizeList, no dictionary types. Every file has every column
of its table; what is not known is null, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ErrorCode

#: Version of everything under OUT: a program refuses a dataset whose version is higher than its own.
SCHEMA_VERSION = 1

#: Expression classes that have a column, in column order. A model with a class outside these is refused.
EXPRESSIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

#: Regions that have columns, in column order; regions of other strategies go to `attention_other`.
REGIONS = (
    "whole", "top_left", "top_right", "center_down", "center_90", "center_85", "center_80", "center_75", "center_top",
    "left_eye", "right_eye", "nose", "mouth_left", "mouth_right",
)  # fmt: skip

#: The detector's five landmarks, in its order. Left is left in the picture.
LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")

#: Row-group and page compression of every file.
COMPRESSION = "zstd"

#: Most rows of a row group, and about the bytes of one.
ROW_GROUP_ROWS, _ROW_GROUP_BYTES = 65_536, 64 << 20
#: Pictures are looked up a few segments at a time, and a row group is the least that can be fetched.
_CROPS_ROW_GROUP_BYTES = 8 << 20

_VERSION_KEY = b"ran_schema_version"
_TABLE_KEY = b"ran_table"
_MEMBER = pa.struct(
    [("ordinal", pa.int32()), ("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
)  # one picture of an archive


def _column(name: str, type_: pa.DataType, description: str, *, null: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=null, metadata={b"description": description.encode()})


def _table(name: str, *columns: pa.Field) -> pa.Schema:
    return pa.schema(columns, metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode(), _TABLE_KEY: name.encode()})


def _sided(name: str) -> str:
    """What to say after the name of a landmark or region that is at one side: whose left or right it is."""
    for side, subjects in (("left", "right"), ("right", "left")):
        if side in name.split("_"):
            return f" ({side} in the picture: the subject's {subjects} when facing the camera)"
    return ""


_SOURCE_ID = _column("source_id", pa.string(), "16 hex over the source's uri and fingerprint")
_SOURCE_URI = _column("source_uri", pa.string(), "the source: absolute path, URL, or path relative to the root")
_SEGMENT_ID = _column("segment_id", pa.string(), "20 hex over source, window and extraction; the unit of commit")
_MODEL_ID = _column("model_id", pa.string(), "12 hex over the model's weights and configuration")
_RUN_ID = _column("run_id", pa.string(), "the run that committed the row")
_PIPELINE_VERSION = _column("pipeline_version", pa.string(), "version of ran-pipeline that wrote the row")

FACES = _table(
    "faces",
    _column("face_id", pa.string(), "`<source_id>-<member ordinal>-<frame>-<face>`; (face_id, model_id) is unique"),
    _SOURCE_ID,
    _SOURCE_URI,
    _column("member", pa.string(), "name inside the archive; null outside archives", null=True),
    _SEGMENT_ID,
    _MODEL_ID,
    _RUN_ID,
    _PIPELINE_VERSION,
    _column(
        "frame",
        pa.int64(),
        "0-based index in the source's own frame order; 0 for every picture: in an archive `member` tells them apart. "
        "--fps f samples frame 0 and the first frame in each interval (k/f, (k+1)/f] of seconds",
    ),
    _column(
        "timestamp", pa.float64(), "presentation time in seconds from the first frame; null for pictures", null=True
    ),
    _column("face", pa.int16(), "0-based within the frame, by descending score"),
    _column("FaceRectX", pa.float32(), "left edge of the box, pixels of the upright frame"),
    _column("FaceRectY", pa.float32(), "top edge of the box, pixels"),
    _column("FaceRectWidth", pa.float32(), "width of the box, pixels"),
    _column("FaceRectHeight", pa.float32(), "height of the box, pixels"),
    _column("FaceScore", pa.float32(), "the detector's score, 0 to 1"),
    *(
        _column(
            f"landmark_{landmark}_{axis}",
            pa.float32(),
            f"{landmark.replace('_', ' ')}{_sided(landmark)}, {axis} in pixels",
        )
        for landmark in LANDMARKS
        for axis in "xy"
    ),
    _column("frame_width", pa.int32(), "width of the upright frame, pixels"),
    _column("frame_height", pa.int32(), "height of the upright frame, pixels"),
    _column(
        "Pitch",
        pa.float32(),
        "head pose from the five landmarks, degrees, to sort by and no measurement: one face in other sizes and "
        "sharpness scatters by 6 (standard deviation), and a covered mouth shifts it by 24; positive: looks down",
        null=True,
    ),
    _column(
        "Roll",
        pa.float32(),
        "the head's turn in the picture's plane, degrees; positive: leans clockwise in the picture",
        null=True,
    ),
    _column(
        "Yaw",
        pa.float32(),
        "like Pitch; one face scatters by 3, and of faces turned by more than 45, half have less than 20 here; "
        "positive: looks to the right of the picture",
        null=True,
    ),
    _column(
        "sharpness",
        pa.float32(),
        "variance of the aligned face's Laplacian; low: blurred or enlarged",
    ),
    _column("brightness", pa.float32(), "mean luma of the aligned face, 0 to 255"),
    *(
        _column(f"prob_{name}", pa.float32(), f"softmax probability of {name}; null if the model lacks it", null=True)
        for name in EXPRESSIONS
    ),
    _column("expression", pa.string(), "the most probable class"),
    _column("confidence", pa.float32(), "the probability of `expression`"),
    _column("entropy", pa.float32(), "Shannon entropy of the probabilities, in nats"),
    *(
        _column(
            f"attention_{name}",
            pa.float32(),
            f"final weight μ·ν of region {name}{_sided(name)}, normalised to sum 1; null if the model lacks it",
            null=True,
        )
        for name in REGIONS
    ),
    *(
        _column(
            f"self_attention_{name}",
            pa.float32(),
            f"self-attention μ of region {name}{_sided(name)}; null if the model lacks it",
            null=True,
        )
        for name in REGIONS
    ),
    _column(
        "attention_other",
        pa.map_(pa.string(), pa.float32()),
        "final weight by name of regions that have no column",
        null=True,
    ),
)

SEGMENTS = _table(
    "segments",
    _SEGMENT_ID,
    _SOURCE_ID,
    _SOURCE_URI,
    _MODEL_ID,
    _column("kind", pa.string(), "`video` (also one in an archive), `picture` or `archive` (a run of its pictures)"),
    _column("start_s", pa.float64(), "begin of the window, seconds from the first frame; videos only", null=True),
    _column("end_s", pa.float64(), "end of the window, seconds from the first frame; videos only", null=True),
    _column("first_member", pa.string(), "the video, or the first of the pictures; archives only", null=True),
    _column("frames", pa.list_(pa.int64()), "index of each sampled frame: the denominator"),
    _column("timestamps", pa.list_(pa.float64()), "presentation time of each sampled frame, seconds; null in pictures"),
    _column(
        "face_counts",
        pa.list_(pa.int32()),
        "faces found in each sampled frame, before `--max-faces`; null where it could not be read",
    ),
    _column("members", pa.list_(pa.string()), "member of each sampled frame; archives only", null=True),
    _column(
        "frame_errors",
        pa.list_(pa.string()),
        "`code: message` of each sampled frame, null where it is good; null if none failed",
        null=True,
    ),
    _column("faces_kept", pa.int32(), "rows in `faces` of this segment"),
    _column("status", pa.string(), "`ok`, `partial` or `error`"),
    _column("error_stage", pa.string(), "the stage that failed", null=True),
    _column("error_code", pa.string(), "what was wrong, a stable word", null=True),
    _column("error_message", pa.string(), "what was wrong, in words", null=True),
    _column("fetch_s", pa.float64(), "seconds spent fetching"),
    _column("decode_s", pa.float64(), "seconds spent decoding"),
    _column("detect_s", pa.float64(), "seconds spent detecting and aligning"),
    _column("infer_s", pa.float64(), "seconds spent in the model"),
    _column("attempts", pa.int16(), "driver passes that this row took"),
    _RUN_ID,
    _column("node", pa.string(), "the machine that decoded it"),
    _column(
        "decoder",
        pa.string(),
        "what read it: `pyav`, `decord`, MODULE:CLASS or `pillow`; null if nothing did",
        null=True,
    ),
)

SOURCES = _table(
    "sources",
    _SOURCE_ID,
    _SOURCE_URI,
    _column("fingerprint", pa.string(), "`size:mtime_ns` locally, `size:etag` on S3, `missing` if it did not exist"),
    _column("size_bytes", pa.int64(), "size in bytes"),
    _column(
        "kind", pa.string(), "`video`, `picture` or `archive`; what its name promises if probing failed", null=True
    ),
    _column(
        "duration_s",
        pa.float64(),
        "duration by the container, or of a small video without a count of its frames by their times, seconds; "
        "videos only",
        null=True,
    ),
    _column(
        "container_frames",
        pa.int64(),
        "frames by the container (may be wrong) of a video; of an animated picture or a file of pages too, where only "
        "the first is read",
        null=True,
    ),
    _column("is_vfr", pa.bool_(), "whether the frame rate varies; videos only", null=True),
    _column("width", pa.int32(), "width, pixels", null=True),
    _column("height", pa.int32(), "height, pixels", null=True),
    _column("codec", pa.string(), "codec or picture format", null=True),
    _column(
        "index",
        pa.list_(_MEMBER),
        "pictures and videos of an archive in its order, with byte offsets; other files are left alone",
        null=True,
    ),
    _column("error_code", pa.string(), "why probing failed, a stable word", null=True),
    _column("error_message", pa.string(), "why probing failed, in words", null=True),
    _RUN_ID,
    _PIPELINE_VERSION,
)

CROPS = _table(
    "crops",
    _column("face_id", pa.string(), "as in `faces`"),
    _SEGMENT_ID,
    _SOURCE_ID,
    _column("png", pa.binary(), "the aligned face, 8-bit RGB PNG (lossless)"),
    _column(
        "template",
        pa.list_(pa.float32()),
        "alignment template: x, y of the five landmarks as fractions of the square, ten numbers",
    ),
    _column("size", pa.int32(), "side of the square, pixels"),
    _RUN_ID,
    _PIPELINE_VERSION,
)

TABLES: Mapping[str, pa.Schema] = {"faces": FACES, "segments": SEGMENTS, "sources": SOURCES, "crops": CROPS}

#: A row per sampled frame: the lists of `segments`, unnested.
FRAMES = pa.schema(
    [
        _SEGMENT_ID,
        _SOURCE_ID,
        _SOURCE_URI,
        _MODEL_ID,
        _column("frame", pa.int64(), "as in `faces`"),
        _column("timestamp", pa.float64(), "as in `faces`", null=True),
        _column("member", pa.string(), "as in `faces`", null=True),
        _column(
            "face_count",
            pa.int32(),
            "faces found in the frame, before `--max-faces`; null where it could not be read",
            null=True,
        ),
        _column("frame_error", pa.string(), "`code: message` of a frame that could not be read", null=True),
    ]
)

#: A row per segment that failed, wholly or in part.
ERRORS = pa.schema(
    [
        SEGMENTS.field(name)
        for name in (
            "source_uri", "source_id", "segment_id", "model_id", "kind", "status", "error_stage", "error_code",
            "error_message", "start_s", "end_s", "first_member", "attempts", "run_id", "node",
        )
    ]
)  # fmt: skip

#: What `query` offers besides the tables.
VIEWS: Mapping[str, pa.Schema] = {"frames": FRAMES, "errors": ERRORS}

_ABOUT_VIEWS = {
    "frames": """\
A view of `query`: a row per sampled frame, from the lists of `segments`. A window of a video that failed as a whole has
no frames, and the windows behind a break have no segment: `errors` says what is missing. Frames with their faces, or
without:

```sql
SELECT … FROM frames f LEFT JOIN faces a
  ON a.segment_id = f.segment_id AND a.frame = f.frame AND a.member IS NOT DISTINCT FROM f.member
```

All three are needed: every picture of an archive is frame 0, and a segment has up to 32 of them. Over `all_faces`,
which has several models, add `model_id`.""",
    "errors": """\
A view of `query`: the segments whose `status` is not `ok`; `segment_id` joins them with `frames` and `faces`. But the
row that tells of a file's new content (`source_changed`) has a `source_id` and `segment_id` of its own: join that by
`source_uri`. Where a video breaks, the row of that window stands for all windows behind it too, which have no row.""",
}


def table(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """`columns` as table `name`: declared order and types; nullable columns that are not given are null.

    Raises ValueError for a missing, unknown or wrongly typed column, or a null where none may be.
    """
    declared = TABLES[name]
    unknown = set(columns) - set(declared.names)
    if unknown:
        raise ValueError(f"table {name} has no column {', '.join(sorted(unknown))}")
    rows = len(next(iter(columns.values()))) if columns else 0
    arrays = []
    for field in declared:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(rows, field.type)
        elif not isinstance(values, (pa.Array, pa.ChunkedArray)):
            values = pa.array(values, field.type)
        arrays.append(values if values.type == field.type else values.cast(field.type))
    built = pa.Table.from_arrays(arrays, schema=declared)
    check(built, name)
    return built


def check(rows: pa.Table, name: str) -> None:
    """Raises ValueError unless `rows` has exactly the columns of table `name`, and no null where none may be."""
    declared = TABLES[name]
    if not rows.schema.equals(declared):
        ours, theirs = set(declared), set(rows.schema)
        wrong = sorted({field.name for field in ours ^ theirs}) or ["their order"]
        raise ValueError(f"rows for table {name} differ from its schema in: {', '.join(wrong)}")
    for field in declared:
        if not field.nullable and rows[field.name].null_count:
            raise ValueError(f"column {field.name} of table {name} has {rows[field.name].null_count} nulls")


def empty(name: str) -> pa.Table:
    """Table `name` without rows."""
    return TABLES[name].empty_table()


def write_table(rows: pa.Table, sink: Any, name: str) -> None:
    """Writes `rows` of table `name` as one Parquet file to a path or a writable binary file.

    Raises ValueError as `check` does.
    """
    check(rows, name)
    with writer(sink, name) as parquet:
        write_row_groups(parquet, rows, name)


def write_row_groups(parquet: pq.ParquetWriter, rows: pa.Table, name: str) -> None:
    """Writes `rows` of table `name` as row groups of even size, none much larger than `row_group_bytes`."""
    groups = max(1, round(rows.nbytes / row_group_bytes(name)))
    size = min(ROW_GROUP_ROWS, max(1, -(-rows.num_rows // groups)))
    parquet.write_table(rows.replace_schema_metadata(TABLES[name].metadata).cast(TABLES[name]), row_group_size=size)


def row_group_bytes(name: str) -> int:
    """About how large a row group of table `name` is, before compression."""
    return _CROPS_ROW_GROUP_BYTES if name == "crops" else _ROW_GROUP_BYTES


def writer(sink: Any, name: str) -> pq.ParquetWriter:
    """A Parquet writer for table `name`, closed by its context; for files that are written piece by piece."""
    return pq.ParquetWriter(sink, TABLES[name], compression=COMPRESSION, store_schema=True)


def file_version(metadata: pq.FileMetaData) -> int:
    """The schema version that a Parquet file was written with; 0 for a file that is not ours."""
    return int((metadata.metadata or {}).get(_VERSION_KEY, b"0"))


def markdown() -> str:
    """docs/columns.md."""
    lines = [
        "# Columns",
        "",
        "Generated from `pipeline/schema.py` by `python -m pipeline.schema > docs/columns.md`. "
        f"Schema version {SCHEMA_VERSION}.",
        "A column marked ? may be null: not known, or it does not apply. Nulls are never written as zeros.",
    ]
    for name, declared in {**TABLES, **VIEWS}.items():
        lines += ["", f"## {name}", *(["", _ABOUT_VIEWS[name]] if name in VIEWS else [])]
        lines += ["", "| column | type | meaning |", "|---|---|---|"]
        lines += [
            f"| {field.name}{'?' if field.nullable else ''} | {_type_name(field.type)} | "
            f"{(field.metadata or {})[b'description'].decode()} |"
            for field in declared
        ]
    lines += ["", "## error_code", "", "| code | meaning |", "|---|---|"]
    lines += [f"| `{code}` | {code.meaning} |" for code in ErrorCode]
    return "\n".join(lines) + "\n"


def _type_name(type_: pa.DataType) -> str:
    if pa.types.is_list(type_):
        return f"list<{_type_name(type_.value_type)}>"
    if pa.types.is_map(type_):
        return f"map<{_type_name(type_.key_type)}, {_type_name(type_.item_type)}>"
    if pa.types.is_struct(type_):
        return f"struct<{', '.join(f'{field.name} {_type_name(field.type)}' for field in type_)}>"
    return {"float": "float32", "double": "float64"}.get(str(type_), str(type_))


if __name__ == "__main__":
    print(markdown(), end="")
