"""Faces that the pipeline kept, with labels from a CSV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from ran_model.datasets import DataError, Listing, kept_crops, read_listing
from ran_model.labels import EXPRESSIONS

HAPPY = EXPRESSIONS.index("happiness")


def write_crops(folder: Path, name: str, faces: list[str]) -> None:
    """A file of crops as the pipeline writes it; a face's source is what its id starts with."""
    _, png = cv2.imencode(".png", np.full((16, 16, 3), 9, np.uint8))
    (folder / "crops" / "model").mkdir(parents=True, exist_ok=True)
    columns = {
        "face_id": faces,
        "segment_id": ["s"] * len(faces),
        "source_id": [face.split("-")[0] for face in faces],
        "png": [png.tobytes()] * len(faces),
        "template": [[0.5] * 10] * len(faces),
        "size": [16] * len(faces),
        "run_id": ["r"] * len(faces),
        "pipeline_version": ["1"] * len(faces),
    }
    schema.write_table(schema.table("crops", columns), str(folder / "crops" / "model" / name), "crops")


def read(folder: Path, labels: str) -> Listing:
    (folder / "labels.csv").write_text(labels)
    return read_listing(folder, labels=folder / "labels.csv")


def test_crops_join_their_labels(tmp_path: Path) -> None:
    write_crops(tmp_path, "a.parquet", ["v1-0-0-0", "v1-0-5-0"])
    write_crops(tmp_path, "b.parquet", ["v2-0-0-0"])
    listing = read(
        tmp_path, "face_id,expression,split\nv1-0-0-0,Happy,train\nv2-0-0-0,fear,test\nv1-0-5-0,contempt,validation\n"
    )
    assert (listing.name, listing.layout) == (tmp_path.name, "kept-crops")
    assert {item.template for item in listing.items} == {(0.5,) * 10}
    assert {item.key: item.group for item in listing.items} == {
        "v1-0-0-0": "v1", "v1-0-5-0": "v1", "v2-0-0-0": "v2",
    }  # fmt: skip
    assert {item.key: (item.split, EXPRESSIONS[item.label]) for item in listing.items} == {
        "v1-0-0-0": ("train", "happiness"), "v1-0-5-0": ("validation", "contempt"), "v2-0-0-0": ("test", "fear"),
    }  # fmt: skip
    assert listing.lists == {"full": {"v2-0-0-0": EXPRESSIONS.index("fear")}}
    picture = listing.items[0].picture
    assert isinstance(picture, bytes)
    assert (cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) == 9).all()
    assert listing.notes == ["sources with faces in several splits, as the labels have it: 1 (v1)"]


def test_faces_of_a_source_stay_together_and_more_sources_do_not_move_them(tmp_path: Path) -> None:
    faces = [f"v{source}-0-{frame}-0" for source in range(40) for frame in range(3)]
    write_crops(tmp_path, "a.parquet", faces)
    labels = [f"{face},happy" for face in faces]
    few = {item.key: item.split for item in read(tmp_path, "\n".join(["face_id,expression", *labels[:60]])).items}
    many = {item.key: item.split for item in read(tmp_path, "\n".join(["face_id,expression", *labels])).items}
    assert len(many) == 120
    assert {face: many[face] for face in few} == few
    for source in range(40):
        assert len({many[f"v{source}-0-{frame}-0"] for frame in range(3)}) == 1
    assert set(many.values()) == {"train", "validation", "test"}


def test_a_given_split_holds_for_the_whole_source(tmp_path: Path) -> None:
    faces = [f"v{source}-0-{frame}-0" for source in range(12) for frame in range(2)]
    write_crops(tmp_path, "a.parquet", faces)
    rows = [f"{face},happy,{'test' if face.endswith('-0-0-0') else ''}" for face in faces]
    listing = read(tmp_path, "\n".join(["face_id,expression,split", *rows]))
    assert {item.split for item in listing.items} == {"test"}
    assert listing.notes == []


def test_what_does_not_join_is_noted(tmp_path: Path) -> None:
    write_crops(tmp_path, "a.parquet", ["v1-0-0-0", "v1-0-1-0", "v1-0-2-0", "v1-0-3-0"])
    write_crops(tmp_path, "b.parquet", ["v1-0-0-0", "v1-0-1-0"])
    listing = read(tmp_path, "face_id,expression\nv1-0-0-0,happy\nv1-0-0-0,Happiness\nv1-0-2-0,\nv9-0-0-0,sad\n")
    assert [(item.key, item.label) for item in listing.items] == [("v1-0-0-0", HAPPY)]
    assert listing.notes == [
        "rows that repeat a face_id: 1 (v1-0-0-0)",
        "rows without a label: 1 (v1-0-2-0)",
        "crops that repeat a face_id, of which the first counts: 1 (v1-0-0-0)",
        "crops without a label: 3 (v1-0-1-0, v1-0-2-0, v1-0-3-0)",
        "labels without a crop: 1 (v9-0-0-0)",
    ]


def test_labels_that_are_wrong_are_named(tmp_path: Path) -> None:
    write_crops(tmp_path, "a.parquet", ["v1-0-0-0"])
    for labels, says in {
        "face_id,expression\nv1-0-0-0,bored\n": r"labels\.csv, line 2: 'bored' is no known expression; known are",
        "face_id,label\nv1-0-0-0,happy\n": r"labels\.csv has no column expression: it has face_id, label",
        "face_id;expression\nv1-0-0-0;happy\n": r"it has face_id;expression; fields must be separated by commas",
        "face_id,expression,split\nv1-0-0-0,happy,val\n": r"line 2: split is 'val': it must be empty or one of train",
        "face_id,expression\nv1-0-0-0,happy\nv1-0-0-0,sad\n": r"line 3: v1-0-0-0 has another label or split",
        "face_id,expression\nv1-0-0-0\n": r"labels\.csv, line 2: 1 fields",
        "face_id,expression\nv2-0-0-0,happy\n": r"no face_id of .*labels\.csv has a crop",
        "": r"labels\.csv has no column face_id, expression: it has no columns",
    }.items():
        with pytest.raises(DataError, match=says):
            read(tmp_path, labels)


def test_crops_that_are_wrong_are_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("face_id,expression\nv1-0-0-0,happy\n")
    with pytest.raises(DataError, match="crops has no Parquet file"):
        read_listing(tmp_path, layout="kept-crops", labels=tmp_path / "labels.csv")
    write_crops(tmp_path, "a.parquet", ["v1-0-0-0"])
    with pytest.raises(DataError, match="has crops but no labels"):
        read_listing(tmp_path)
    with pytest.raises(DataError, match=r"gone\.csv is missing: it must be a CSV file with the columns face_id"):
        read_listing(tmp_path, labels=tmp_path / "gone.csv")
    file = tmp_path / "crops" / "model" / "a.parquet"
    pq.write_table(pq.read_table(file).drop(["png"]), file)
    with pytest.raises(DataError, match=r"a\.parquet has no column png"):
        read_listing(tmp_path, labels=tmp_path / "labels.csv")
    file.write_bytes(b"no Parquet")
    with pytest.raises(DataError, match=r"a\.parquet is no Parquet file"):
        read_listing(tmp_path, labels=tmp_path / "labels.csv")


@pytest.mark.parametrize("table", ["crops", "faces"])
@pytest.mark.parametrize("column", [0, -1])
def test_a_damaged_page_is_named(tmp_path: Path, table: str, column: int) -> None:
    """The footer is whole, so that only reading the column tells."""
    write_crops(tmp_path, "a.parquet", ["v1-0-0-0"])
    file = tmp_path / "crops" / "model" / "a.parquet"
    names = list(kept_crops.COLUMNS)
    if table == "faces":
        file, names = tmp_path / "faces" / "b.parquet", ["face_id", *kept_crops.LANDMARK_COLUMNS]
        file.parent.mkdir()
        pq.write_table(pa.table({name: ["v1-0-0-0"] if name == "face_id" else [0.5] for name in names}), file)
    metadata, data = pq.read_metadata(file), bytearray(file.read_bytes())
    (chunk, *_) = [
        chunk for chunk in map(metadata.row_group(0).column, range(metadata.num_columns))
        if chunk.path_in_schema.split(".")[0] == names[column]
    ]  # fmt: skip
    at = chunk.dictionary_page_offset or chunk.data_page_offset
    data[at : at + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    file.write_bytes(data)
    with pytest.raises(DataError, match=rf"{file.name} is no Parquet file that can be read"):
        read(tmp_path, "face_id,expression\nv1-0-0-0,happy\n")


def test_a_csv_that_is_none_is_named(tmp_path: Path) -> None:
    write_crops(tmp_path, "a.parquet", ["v1-0-0-0"])
    rest = "v1-0-0-0,happy\n" * 20_000
    with pytest.raises(DataError, match=r"labels\.csv, line \d+: field larger than .*is a quote .* closed\?"):
        read(tmp_path, f'face_id,expression\nv1-0-0-0,"happy\n{rest}')
    (tmp_path / "labels.csv").write_bytes("face_id,expression\nv1-0-0-0,fröhlich\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.csv, after line \d+: it must be text in UTF-8"):
        read_listing(tmp_path, labels=tmp_path / "labels.csv")


@pytest.mark.parametrize("column", ["spilt", "Split", "splits"])
def test_a_misspelt_split_is_no_column_to_pass_over(tmp_path: Path, column: str) -> None:
    write_crops(tmp_path, "a.parquet", ["v1-0-0-0"])
    with pytest.raises(DataError, match=rf"labels\.csv has a column '{column}': is it meant to be 'split'"):
        read(tmp_path, f"face_id,expression,{column}\nv1-0-0-0,happy,test\n")


def test_sources_that_were_drawn_are_told_with_what_came_of_it(tmp_path: Path) -> None:
    write_crops(tmp_path, "a.parquet", ["v1-0-0-0", "v1-0-1-0", "v2-0-0-0"])
    rows = "v1-0-0-0,happy,test\nv1-0-1-0,sad,\nv2-0-0-0,sad,"
    listing = read(tmp_path, f"face_id,expression,split\n{rows}\n")
    assert "(80, 10 and 10 %): 1; by that there are" in listing.parts_note
    assert "test 2 faces of 1" in listing.parts_note
    assert listing.parts_note in listing.told
    assert read(tmp_path, f"face_id,expression,split\n{rows}train\n").told == []
