from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.dataset import opened
from pipeline import schema
from tests import staged_rows
from tests.two_models import write_dataset

ROOT = Path(__file__).parents[2]


def test_columns_page_is_current() -> None:
    page = ROOT / "docs" / "columns.md"
    assert page.read_text() == schema.markdown(), "run `python -m pipeline.schema > docs/columns.md`"


def test_the_views_have_the_columns_that_the_page_says(tmp_path: Path) -> None:
    write_dataset(tmp_path, [1])
    with opened(str(tmp_path), ()) as dataset:
        for name, declared in schema.VIEWS.items():
            described = dataset.query(f"DESCRIBE {name}")
            empty = dataset.connection.sql(f"SELECT * FROM {name} LIMIT 0").to_arrow_table().schema
            assert [row["column_name"] for row in described] == declared.names
            assert empty.types == declared.types


def test_the_join_of_the_page_gives_each_face_once_and_each_frame(tmp_path: Path) -> None:
    """Two pictures of an archive, the first with two faces, and a frame of a video without any: 2 + 1 + 1 rows."""
    frames = pa.table(
        {"segment_id": ["a", "a", "b"], "frame": [0, 0, 7], "member": ["x.jpg", "y.jpg", None], "n": [2, 1, 0]}
    )
    faces = pa.table(
        {"segment_id": ["a"] * 3, "frame": [0] * 3, "member": ["x.jpg", "x.jpg", "y.jpg"], "face": [0, 1, 0]}
    )
    page = (ROOT / "docs" / "columns.md").read_text()
    join = page.partition("```sql\n")[2].partition("```")[0].replace("…", "f.segment_id, f.member, a.face")
    with duckdb.connect() as connection:
        connection.register("frames", frames)
        connection.register("faces", faces)
        rows = connection.sql(join).fetchall()
    assert sorted(rows, key=str) == [("a", "x.jpg", 0), ("a", "x.jpg", 1), ("a", "y.jpg", 0), ("b", None, None)]


def test_faces_columns_are_the_published_ones_in_order() -> None:
    names = schema.FACES.names
    assert names[:11] == [
        "face_id", "source_id", "source_uri", "member", "segment_id", "model_id", "run_id", "pipeline_version", "frame",
        "timestamp", "face",
    ]  # fmt: skip
    assert names[11:16] == ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore"]
    assert names[16:18] == ["landmark_left_eye_x", "landmark_left_eye_y"]
    assert names[26:33] == ["frame_width", "frame_height", "Pitch", "Roll", "Yaw", "sharpness", "brightness"]
    assert names[33:41] == [f"prob_{name}" for name in schema.EXPRESSIONS]
    assert names[41:44] == ["expression", "confidence", "entropy"]
    assert names[44:58] == [f"attention_{name}" for name in schema.REGIONS]
    assert names[58:72] == [f"self_attention_{name}" for name in schema.REGIONS]
    assert names[72:] == ["attention_other"]
    nullable = {field.name for field in schema.FACES if field.nullable}
    assert nullable == {
        "member", "timestamp", "Pitch", "Roll", "Yaw", "attention_other", *names[33:41], *names[44:72]
    }  # fmt: skip


def test_left_and_right_columns_say_whose_left_it_is() -> None:
    said = {"left": "(left in the picture: the subject's right when facing the camera)",
            "right": "(right in the picture: the subject's left when facing the camera)"}  # fmt: skip
    sided = [field for field in schema.FACES if set(field.name.split("_")) & set(said)]
    assert len(sided) == 4 * 2 + 2 * 6
    for field in schema.FACES:
        description = field.metadata[b"description"].decode()
        for side, meaning in said.items():
            assert (meaning in description) == (side in field.name.split("_")), field.name


@pytest.mark.parametrize("name", schema.TABLES)
def test_every_table_has_only_plain_types_and_described_columns(name: str) -> None:
    def plain(type_: pa.DataType) -> bool:
        if pa.types.is_list(type_):
            return plain(type_.value_type)
        if pa.types.is_struct(type_):
            return all(plain(field.type) for field in type_)
        if pa.types.is_map(type_):
            return plain(type_.key_type) and plain(type_.item_type)
        return not (
            isinstance(type_, pa.BaseExtensionType)
            or pa.types.is_dictionary(type_)
            or pa.types.is_fixed_size_list(type_)
            or pa.types.is_large_list(type_)
            or pa.types.is_large_string(type_)
        )

    for field in schema.TABLES[name]:
        assert plain(field.type), field
        assert field.metadata[b"description"], field


@pytest.mark.parametrize("name", schema.TABLES)
def test_written_file_keeps_schema_version_and_descriptions(name: str, tmp_path: Path) -> None:
    schema.write_table(staged_rows.table(name, 2), tmp_path / "t.parquet", name)
    written = pq.ParquetFile(tmp_path / "t.parquet")
    assert written.schema_arrow.equals(schema.TABLES[name])
    for field in written.schema_arrow:
        assert field.metadata[b"description"] == schema.TABLES[name].field(field.name).metadata[b"description"]
    assert schema.file_version(written.metadata) == schema.SCHEMA_VERSION
    assert written.metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("name", schema.TABLES)
def test_readers_agree_on_an_empty_and_a_filled_file(name: str, tmp_path: Path) -> None:
    schema.write_table(schema.empty(name), tmp_path / "empty.parquet", name)
    schema.write_table(staged_rows.table(name, 3), tmp_path / "filled.parquet", name)
    glob = f"{tmp_path}/*.parquet"
    assert pl.read_parquet(glob).height == 3
    assert duckdb.sql(f"SELECT count(*) FROM '{glob}'").fetchall() == [(3,)]
    assert len(pd.read_parquet(tmp_path)) == 3
    names = [column[0] for column in duckdb.sql(f"DESCRIBE SELECT * FROM '{glob}'").fetchall()]
    assert names == pl.read_parquet(glob).columns == schema.TABLES[name].names


def test_missing_nullable_columns_become_null() -> None:
    rows = staged_rows.faces([staged_rows.segment_id(1)])
    assert rows["prob_contempt"].null_count == rows.num_rows


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows.drop_columns(["run_id"]), "run_id"),
        (lambda rows: rows.append_column("extra", pa.nulls(rows.num_rows)), "extra"),
        (lambda rows: rows.set_column(9, "timestamp", pa.nulls(rows.num_rows, pa.float32())), "timestamp"),
        (lambda rows: rows.select([1, 0, *range(2, rows.num_columns)]), "order"),
    ],
)
def test_rows_that_differ_from_the_schema_are_refused(change: object, complaint: str, tmp_path: Path) -> None:
    rows = staged_rows.faces([staged_rows.segment_id(1)])
    with pytest.raises(ValueError, match=complaint):
        schema.write_table(change(rows), tmp_path / "t.parquet", "faces")  # type: ignore[operator]


def test_null_in_a_required_column_is_refused() -> None:
    with pytest.raises(ValueError, match="column run_id of table sources has 1 nulls"):
        staged_rows.table("sources", 1, run_id=pa.array([None], pa.string()))
