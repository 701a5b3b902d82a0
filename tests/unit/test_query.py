"""`query` writes where it is told to, adds to what is there if told so, and loses no byte of a picture."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs import dataset as dataset_module
from jobs import query as query_module
from jobs.query import query_command
from pipeline import views
from pipeline.errors import StoreError, UsageError
from pipeline.ledger.commit import Committer
from pipeline.ledger.compact import compact
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import publish_missing
from pipeline.ledger.runs import Run
from pipeline.storage.store import Store
from tests.conftest import ROOT
from tests.staged_rows import MODEL, stage
from tests.two_models import write_dataset

COUNT = "SELECT count(*) AS n FROM segments"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query") / "out"
    write_dataset(folder, [2, 3, 1], crops=b"\x89PNG of nothing")
    return folder


def query(*arguments: str | Path) -> bytes:
    """What it prints, as this process runs it."""
    done = CliRunner().invoke(query_command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout_bytes


def refused(*arguments: str | Path) -> str:
    with pytest.raises(UsageError) as refusal:
        query(*arguments)
    return str(refusal.value)


@pytest.mark.parametrize("to", [(), ("--to", "/dev/stdout")])
def test_standard_output_is_added_to(dataset: Path, tmp_path: Path, to: tuple[str, ...]) -> None:
    file = tmp_path / "all.csv"
    file.write_text("before\n")
    with file.open("ab") as stdout:
        command = [sys.executable, "-m", "jobs.cli", "query", str(dataset), COUNT, "--format", "csv", *to]
        subprocess.run(command, stdout=stdout, check=True, cwd=ROOT)
    assert file.read_text() == "before\nn\n3\n"


def test_every_format_goes_to_standard_output(dataset: Path) -> None:
    assert query(dataset, COUNT).decode().split() == ["n", "─", "3"]
    assert query(dataset, COUNT, "--format", "csv") == b"n\n3\n"
    assert (
        query(dataset, COUNT, "--json") == query(dataset, COUNT, "--format", "json") == b'[\n  {\n    "n": 3\n  }\n]\n'
    )
    assert pq.read_table(io.BytesIO(query(dataset, COUNT, "--format", "parquet"))).to_pylist() == [{"n": 3}]


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet"])
def test_every_format_goes_to_a_file_or_says_why_not(dataset: Path, tmp_path: Path, form: str) -> None:
    query(dataset, COUNT, "--format", form, "--to", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == query(dataset, COUNT, "--format", form)
    nowhere = refused(dataset, COUNT, "--format", form, "--to", tmp_path / "nodir" / "x")
    assert f"there is no folder {tmp_path / 'nodir'}" in nowhere
    assert "is a folder" in refused(dataset, COUNT, "--format", form, "--to", tmp_path)
    assert os.listdir(tmp_path) == ["x"], "nothing half-written is left"


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_a_files_suffix_is_its_format(dataset: Path, tmp_path: Path, form: str) -> None:
    query(dataset, COUNT, "--to", tmp_path / f"x.{form.upper()}")
    assert (tmp_path / f"x.{form.upper()}").read_bytes() == query(dataset, COUNT, "--format", form)
    query(dataset, COUNT, "--to", tmp_path / f"y.{form}", "--format", "table")
    assert (tmp_path / f"y.{form}").read_bytes() == query(dataset, COUNT)


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet"])
def test_every_format_goes_to_a_store(
    dataset: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    client.create_bucket(Bucket="answers")
    store = ("--storage-option", f"endpoint={s3_server}")
    query(dataset, COUNT, "--format", form, "--to", f"s3://answers/{form}", *store)
    stored = client.get_object(Bucket="answers", Key=form)["Body"].read()
    assert stored == query(dataset, COUNT, "--format", form)
    assert "names no file" in refused(dataset, COUNT, "--format", form, "--to", "s3://answers", *store)
    nowhere = refused(dataset, COUNT, "--format", form, "--to", "s3://no-such-bucket/x", *store)
    assert "there is no bucket no-such-bucket" in nowhere


def test_bytes_are_base64_in_json(dataset: Path) -> None:
    rows = json.loads(query(dataset, "SELECT png, [png] AS pngs FROM crops ORDER BY png DESC LIMIT 1", "--json"))
    assert base64.b64decode(rows[0]["png"]) == base64.b64decode(rows[0]["pngs"][0]) == b"\x89PNG of nothing"


@pytest.mark.parametrize("sql", ["", " ", "/* all */", ";", "; -- all"])
def test_no_sql_is_a_slip(dataset: Path, sql: str) -> None:
    assert "no SQL was given" in refused(dataset, sql)


@pytest.mark.parametrize("form", ["table", "csv", "json"])
@pytest.mark.parametrize(
    "sql", ["SELECT 'é;' AS a; -- all; of it", "SELECT 1; SELECT 'é;' AS a /* one */; ;", "SELECT 'é;' AS a -- one"]
)
def test_sql_may_end_in_semicolons_and_comments(dataset: Path, sql: str, form: str) -> None:
    assert ";" in query(dataset, sql, "--format", form).decode()


def test_times_and_decimals(dataset: Path) -> None:
    sql = "SELECT TIMESTAMPTZ '2026-01-02 03:04:05+00' AS at, 0.25 AS share, 'nan'::DOUBLE AS none"
    assert json.loads(query(dataset, f"{sql}", "--json"))[0]["share"] == 0.25
    assert "2026-01-02" in query(dataset, sql).decode()


def test_who_reads_only_the_beginning_is_no_error(dataset: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "query", str(dataset), "SELECT range FROM range(2000000)"]
    process = subprocess.Popen([*command, "--format", "csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"range\n"
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr.read() == b""


def test_one_format_at_a_time(dataset: Path) -> None:
    assert "--format csv" in refused(dataset, COUNT, "--json", "--format", "csv")


@pytest.mark.parametrize("sql", ["SELEC", "SELECT nothing FROM faces", "FROM read_parquet('nowhere.parquet')"])
def test_a_mistake_in_the_sql_is_the_users(dataset: Path, sql: str) -> None:
    assert "views: faces" in refused(dataset, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT expresion FROM faces) TO '{here}/x.parquet'",
        "COPY (FROM faces) TO '{here}/nowhere/x.parquet' (COMPRESSION zstd)",
        "SELECT parquet FROM faces",
        "FROM faces JOIN '{here}/labels.parquet' USING (face_id)",
        "SELECT nothing FROM '{live}'",
        "SELECT expression::INT AS zstd FROM faces",
        "SELECT expression::INT FROM '{live}'",
    ],
)
def test_a_mistake_that_has_to_do_with_parquet_is_the_users_too(dataset: Path, tmp_path: Path, sql: str) -> None:
    (tmp_path / "labels.parquet").write_text("face_id,expression\n")
    (live, *_) = sorted((dataset / "faces").rglob("*.parquet"))
    assert "views: faces" in refused(dataset, sql.format(here=tmp_path, live=live))


def test_a_damaged_file_that_the_sql_names_is_damage(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "out")
    (live, *_) = sorted((tmp_path / "out" / "faces").rglob("*.parquet"))
    live.write_bytes(live.read_bytes()[:-9])
    for sql in ("FROM all_faces", f"FROM '{live}'"):
        with pytest.raises(StoreError, match="verify OUT --repair"):
            query(tmp_path / "out", sql)


def test_json_has_every_column_by_its_name_in_the_other_formats(dataset: Path) -> None:
    sql = 'SELECT 1 AS a, 2 AS a, 3 AS "A", 4 AS a_1, 5 AS b, 6 AS a, 7 AS b, 8 AS a_2'
    (row,) = json.loads(query(dataset, sql, "--json"))
    assert list(row.values()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(row) == query(dataset, sql, "--format", "csv").decode().splitlines()[0].split(",")
    assert list(row) == pq.read_table(io.BytesIO(query(dataset, sql, "--format", "parquet"))).column_names
    joined = "SELECT a.frame, b.frame FROM faces a JOIN faces b USING (face_id) LIMIT 1"
    (row,) = json.loads(query(dataset, joined, "--json"))
    assert list(row) == ["frame", "frame_1"]


def test_numbers_that_json_lacks_are_null(dataset: Path) -> None:
    sql = "SELECT 'nan'::DOUBLE a, [1.5, 'inf'::DOUBLE] b, {'x': '-inf'::FLOAT, 'y': true} c, MAP {1: 'nan'::DOUBLE} d"
    answer = query(dataset, sql, "--json").decode()
    assert json.loads(answer, parse_constant=pytest.fail) == [
        {"a": None, "b": [1.5, None], "c": {"x": None, "y": True}, "d": {"1": None}}
    ]


@pytest.fixture(params=["folder", "S3"])
def moving(
    dataset: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Store, tuple[str, ...]]:
    """The dataset with all of its files still staged, and the command line that names it."""
    url, options = str(tmp_path / "out"), ()
    if request.param == "S3":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
        endpoint = request.getfixturevalue("s3_server")
        bucket = f"moving-{uuid.uuid4().hex}"
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
        url, options = f"s3://{bucket}/out", ("--storage-option", f"endpoint={endpoint}")
    store = Store(url, {"endpoint": options[1].partition("=")[2]} if options else {})
    made = Store(str(dataset))
    for path in made.list(""):
        store.write_bytes(path, made.read_bytes(path))
    for file in log_of(store).state.files():
        store.publish(file.path, file.staged)
    return store, options


def log_of(store: Store) -> CommitLog:
    log = CommitLog(store)
    log.refresh()
    return log


def publish(store: Store) -> None:
    """What a run does after its entry."""
    publish_missing(store, CommitLog(store))


@pytest.mark.parametrize("when", ["before the views", "after the views", "after the SQL is understood"])
def test_a_file_that_a_run_publishes_meanwhile_is_read_where_it_lies_then(
    moving: tuple[Store, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    store, options = moving
    meanwhile(monkeypatch, when, lambda: publish(store))
    assert query(store.url, COUNT, "--format", "csv", *options) == b"n\n3\n"
    assert store.list("_ran/staging") == []


@pytest.mark.parametrize("when", ["before the views", "after the views", "after the SQL is understood"])
def test_a_file_that_a_compaction_replaces_meanwhile_is_not_missed(
    moving: tuple[Store, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    store, options = moving
    publish(store)
    with Run.create(store) as run:
        committer = Committer(Dataset.open(store), log_of(store), run, MODEL)
        committer.add(stage(store, run.run_id, [1, 2]))
        committer.commit()
    meanwhile(monkeypatch, when, lambda: compact(store))
    rows = json.loads(query(store.url, "SELECT count(*) AS n FROM all_segments", "--json", *options))
    assert rows == [{"n": 8}]
    assert len(store.list(f"segments/{MODEL}")) == 1


def test_a_file_that_is_gone_for_good_is_damage(
    moving: tuple[Store, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, options = moving
    publish(store)
    meanwhile(monkeypatch, "after the views", lambda: store.delete_many(store.list("segments")))
    with pytest.raises(StoreError, match="verify OUT --repair"):
        query(store.url, COUNT, *options)


def meanwhile(monkeypatch: pytest.MonkeyPatch, when: str, act: Callable[[], object]) -> None:
    """Something happens once, while a query is at work."""
    done: list[str] = []

    def once() -> None:
        if not done:
            done.append(when)
            act()

    if when == "before the views":
        paths = views.live_paths
        monkeypatch.setattr(views, "live_paths", lambda *a: (paths(*a), once())[0])
    elif when == "after the views":
        make = dataset_module.create_views
        monkeypatch.setattr(dataset_module, "create_views", lambda *a: (make(*a), once())[0])
    else:
        deliver = query_module.deliver_to_stdout
        monkeypatch.setattr(query_module, "deliver_to_stdout", lambda write: (once(), deliver(write))[1])


def test_a_damaged_file_is_no_mistake_in_the_sql(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "out")
    (file, *_) = sorted((tmp_path / "out" / "faces").rglob("*.parquet"))
    whole = file.read_bytes()
    told = []
    for offset in range(4, len(whole) - 8, 499):
        file.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0xFF]) + whole[offset + 1 :])
        try:
            query(tmp_path / "out", "FROM faces", "--json")  # not every byte is looked at
        except StoreError as error:
            told.append(str(error))
    assert len(told) > 5
    assert all("verify OUT --repair" in line for line in told)
