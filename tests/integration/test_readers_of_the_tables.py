"""A plain glob over a dataset with two models: DuckDB, Polars, pandas and pyarrow read the same rows."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, OTHER_MODEL, face_count, is_error, segment_id, stage

NUMBERS = list(range(12))
KEYS = {"faces": "face_id", "segments": "segment_id", "sources": "source_id", "crops": "face_id"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    store = Store(str(folder))
    for model_id in (MODEL, OTHER_MODEL):
        with Run.create(store) as run:
            committer = Committer(Dataset.open_or_create(store, Extraction()), CommitLog(store), run, model_id)
            for unit in (NUMBERS[:5], NUMBERS[5:]):
                staged = stage(store, run.run_id, unit, model_id=model_id, keep_crops=True, source_numbers=unit)
                committer.add(staged)
                committer.commit()
            committer.finish()
    return folder


@pytest.mark.parametrize("table", schema.TABLES)
def test_readers_agree(dataset: Path, table: str) -> None:
    glob, key = f"{dataset}/{table}/**/*.parquet", KEYS[table]
    by_arrow = pq.read_table(dataset / table)
    assert by_arrow.schema.equals(schema.TABLES[table])
    expected = sorted(by_arrow[key].to_pylist())
    assert expected
    assert pl.read_parquet(glob)[key].sort().to_list() == expected
    assert [row[0] for row in duckdb.sql(f"SELECT {key} FROM '{glob}' ORDER BY 1").fetchall()] == expected
    assert sorted(pd.read_parquet(dataset / table)[key]) == expected
    assert pl.read_parquet(glob).columns == list(pd.read_parquet(dataset / table).columns) == by_arrow.column_names


def test_two_models_lie_side_by_side_and_nothing_doubles(dataset: Path) -> None:
    faces = sum(face_count(segment_id(number)) for number in NUMBERS)
    glob = f"{dataset}/faces/**/*.parquet"
    counts = duckdb.sql(f"SELECT model_id, count(*), count(DISTINCT face_id) FROM '{glob}' GROUP BY 1 ORDER BY 1")
    assert counts.fetchall() == [(MODEL, faces, faces), (OTHER_MODEL, faces, faces)]
    by_polars = pl.scan_parquet(glob).group_by("model_id").len().sort("model_id").collect()
    assert by_polars.rows() == [(MODEL, faces), (OTHER_MODEL, faces)]
    assert pd.read_parquet(dataset / "faces")["model_id"].value_counts().to_dict() == {MODEL: faces, OTHER_MODEL: faces}
    assert pl.read_parquet(f"{dataset}/crops/*.parquet").height == faces


def test_error_rows_can_be_told_by_file_and_by_status(dataset: Path) -> None:
    failed = sum(is_error(segment_id(number)) for number in NUMBERS)
    glob = f"{dataset}/segments/{MODEL}/*.parquet"
    by_status = duckdb.sql(f"SELECT count(*) FROM '{glob}' WHERE status = 'error'").fetchall()
    by_file = duckdb.sql(f"SELECT count(*) FROM '{dataset}/segments/{MODEL}/*-errors.parquet'").fetchall()
    assert by_status == by_file == [(failed,)]
