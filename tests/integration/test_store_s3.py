"""The core on a real S3 server: conditional puts, server-side copies, and two drivers at once."""

from __future__ import annotations

import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from pipeline.config import Extraction
from pipeline.errors import StoreError, UsageError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run, other_runs
from pipeline.storage.store import Store
from tests.faults.faulty_proxy import Request, between
from tests.faulty_store import every_act
from tests.staged_rows import MODEL, face_ids, segment_id, stage

CREDENTIALS = {"key": "testing", "secret": "testing-secret"}


@pytest.fixture
def store(s3_server: str) -> Store:
    """An empty prefix of a bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["key"],
        aws_secret_access_key=CREDENTIALS["secret"],
    )
    client.create_bucket(Bucket="datasets")
    return Store(f"s3://datasets/{uuid.uuid4().hex}/out", {"endpoint": s3_server, **CREDENTIALS}, backoff_s=0.01)


def values(store: Store, table: str, column: str) -> list[str]:
    """A column as pyarrow reads it from the public files."""
    import pyarrow.dataset as ds

    paths = [store.path_of(path) for path in store.list(table)]
    return sorted(ds.dataset(paths, filesystem=store.arrow_filesystem).to_table()[column].to_pylist())


def test_probe_passes_and_leaves_nothing(store: Store) -> None:
    store.probe()
    assert store.list("") == []


def test_missing_bucket_is_a_usage_error(s3_server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = Store("s3://no-such-bucket/out", {"endpoint": s3_server, **CREDENTIALS})
    for act in (*every_act(store), lambda: store.upload(tmp_path / "file", "faces/0")):
        with pytest.raises(UsageError, match="there is no bucket no-such-bucket; correct the name") as raised:
            act()
        assert "again" not in str(raised.value)
        assert raised.value.exit_code == 2


def test_endpoint_and_credentials_from_the_environment(
    store: Store, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    Store(store.url).write_bytes("a", b"x")
    assert store.read_bytes("a") == b"x"


def test_files_come_and_go(store: Store) -> None:
    store = pickle.loads(pickle.dumps(store))
    assert store.list("faces") == []
    for name in ("1", "2", "3"):
        store.write_bytes(f"staging/{name}", name.encode())
    assert store.publish("staging/1", "faces/1")
    assert store.publish("staging/1", "faces/1")
    assert not store.publish("staging/never", "faces/never")
    assert store.list("") == ["faces/1", "staging/2", "staging/3"]
    ranged = store.open_ranges("staging/2")
    assert (ranged.read(5), ranged.read(5)) == (b"2", b"")
    store.delete_many(["staging/2", "staging/3", "staging/never"])
    store.delete("staging/never")
    assert store.list("") == ["faces/1"]
    info = store.info("faces/1")
    assert info is not None
    assert info.size == 1
    assert abs(store.now() - info.modified) < 600
    assert store.info("faces") is None


def test_what_s3_says_it_did_not_delete_is_deleted_again(store: Store, s3_server: str) -> None:
    """It says so in an answer that counts as a success: the rest may be gone."""
    paths = [f"faces/{number}" for number in range(1002)]
    left: list[str] = []

    def first(request: Request) -> str | None:
        return "not deleted" if request.is_deletion_of_many and proxy.fired["not deleted"] < 2 else None

    for path in paths[:3]:
        store.write_bytes(path, b"x")
    with between(s3_server, first) as proxy:
        Store(store.url, {"endpoint": proxy.url, **CREDENTIALS}, backoff_s=0.01).delete_many(paths)
        left = store.list("faces")
        proxy.rule = lambda request: "not deleted" if request.is_deletion_of_many else None
        with pytest.raises(StoreError, match=r"delete .*/faces/0.*InternalError: Please try again"):
            Store(store.url, {"endpoint": proxy.url, **CREDENTIALS}, attempts=2, backoff_s=0.01).delete_many(paths)
    assert left == []
    assert proxy.fired["not deleted"] >= 3


def test_of_eight_racing_writers_of_one_entry_one_wins(store: Store) -> None:
    barrier = threading.Barrier(8)

    def race(number: int) -> bool:
        barrier.wait()
        return store.put_if_absent("_ran/log/000000000000.json", bytes([number]) * 5000)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(race, range(8)))
    assert sum(results) == 1
    assert store.read_bytes("_ran/log/000000000000.json") == bytes([results.index(True)]) * 5000


def test_drivers_that_commit_overlapping_sets_at_once_commit_each_segment_once(store: Store) -> None:
    Dataset.open_or_create(store, Extraction())
    barrier = threading.Barrier(3)

    def drive(number: int) -> None:
        mine = pickle.loads(pickle.dumps(store))
        log = CommitLog(mine, checkpoint_every=2)
        with Run.create(mine) as run:
            committer = Committer(Dataset.open(mine), log, run, MODEL)
            barrier.wait()
            for first in range(0, 12, number + 2):
                committer.add(stage(mine, run.run_id, list(range(first, min(12, first + number + 2))), keep_crops=True))
                committer.commit()
            committer.finish()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(drive, range(3)))
    ids = [segment_id(number) for number in range(12)]
    assert values(store, "segments", "segment_id") == ids
    assert values(store, "faces", "face_id") == sorted(face_ids(ids))
    assert values(store, "crops", "face_id") == sorted(face_ids(ids))
    assert store.list("_ran/staging") == []
    fresh = CommitLog(store, checkpoint_every=2)
    fresh.refresh()
    assert fresh.state.count(MODEL) == 12


def test_dead_run_is_swept_and_its_commits_completed(store: Store) -> None:
    dataset = Dataset.open_or_create(store, Extraction())
    dead = Run.create(store)
    committer = Committer(dataset, CommitLog(store), dead, MODEL)
    committer.add(stage(store, dead.run_id, [1, 2]))
    committer._publish = lambda: None  # type: ignore[method-assign]  # it dies after its entry
    committer.commit()
    stage(store, dead.run_id, [5])
    assert store.list("segments") == []

    log = CommitLog(store)
    run = Run.create(store, stale_after_s=-1.0)
    live, stale = other_runs(store, log.state, run.run_id, 60.0)
    assert (live, stale) == ([dead.run_id], [])
    successor = Committer(dataset, log, run, MODEL)
    successor.publish_missing()
    assert values(store, "segments", "segment_id") == [segment_id(1), segment_id(2)]
    successor.sweep()
    assert store.list("_ran/staging") == []
    assert log.state.closed_runs == {dead.run_id}
