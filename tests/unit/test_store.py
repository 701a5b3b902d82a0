from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from pipeline.errors import StoreError, UsageError
from pipeline.storage.options import fsspec_options
from pipeline.storage.remote import RemoteBackend
from pipeline.storage.store import Store
from tests.faulty_store import FaultyStore, every_act, lose_connection, memory_url


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "folder" else memory_url()


@pytest.fixture
def store(url: str) -> Store:
    return Store(url)


def test_files_come_and_go(store: Store) -> None:
    store.write_bytes("a/b.txt", b"one")
    store.write_bytes("a/b.txt", b"second")
    assert store.read_bytes("a/b.txt") == b"second"
    assert store.exists("a/b.txt")
    assert store.size("a/b.txt") == 6
    assert not store.exists("a")  # a folder is not a file
    assert store.list("a") == ["a/b.txt"]
    store.delete("a/b.txt")
    store.delete("a/b.txt")
    assert store.list("a") == []
    with pytest.raises(FileNotFoundError):
        store.read_bytes("a/b.txt")
    with pytest.raises(FileNotFoundError):
        store.size("a/b.txt")


def test_ranges_are_read_and_no_more(store: Store) -> None:
    store.write_bytes("a", bytes(range(100)))
    file = store.open_ranges("a")
    assert (file.seek(-10, os.SEEK_END), file.read(4), file.tell()) == (90, bytes(range(90, 94)), 94)
    assert (file.seek(-4, os.SEEK_CUR), file.read()) == (90, bytes(range(90, 100)))
    assert file.read(5) == b""
    assert (file.seek(3), file.read(2)) == (3, b"\3\4")
    store.delete("a")
    file.seek(0)
    with pytest.raises(FileNotFoundError):
        file.read(1)
    with pytest.raises(FileNotFoundError):
        store.open_ranges("a")


def test_a_range_is_retried_and_a_lasting_error_named(url: str) -> None:
    store = FaultyStore(url)
    store.write_bytes("a", b"abc")
    file = store.open_ranges("a")
    store.at(1, "before", lose_connection)
    assert file.read(2) == b"ab"
    for attempt in (1, 2, 3):
        store.at(attempt, "before", lose_connection)
    with pytest.raises(StoreError, match=r"read .*/a: connection reset by peer"):
        file.read(1)


def test_list_is_recursive_sorted_and_relative_and_of_nothing_is_empty(store: Store) -> None:
    assert store.list("faces") == []
    for path in ("faces/m/2", "faces/m/1", "faces/n/deep/3", "facesnot/4"):
        store.write_bytes(path, b"")
    assert store.list("faces") == ["faces/m/1", "faces/m/2", "faces/n/deep/3"]


def test_delete_many_ignores_what_is_not_there(store: Store) -> None:
    store.write_bytes("a/1", b"")
    store.write_bytes("a/2", b"")
    store.delete_many(["a/1", "a/absent", "b/absent"])
    assert store.list("a") == ["a/2"]


def test_put_if_absent_never_replaces(store: Store) -> None:
    assert store.put_if_absent("log/0", b"first")
    assert not store.put_if_absent("log/0", b"second")
    assert store.read_bytes("log/0") == b"first"


def test_publish_moves_and_may_be_repeated(store: Store) -> None:
    store.write_bytes("staging/x", b"rows")
    assert store.publish("staging/x", "faces/x")
    assert store.publish("staging/x", "faces/x")
    assert store.read_bytes("faces/x") == b"rows"
    assert not store.exists("staging/x")
    assert not store.publish("staging/never", "faces/never")


def test_upload_copies_a_local_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"x" * 100)
    store.upload(tmp_path / "local", "a/remote")
    assert store.read_bytes("a/remote") == b"x" * 100


def test_clock_goes_with_the_files_and_leaves_nothing(store: Store) -> None:
    before = store.now()
    store.write_bytes("a", b"")
    info = store.info("a")
    assert info is not None
    assert before <= info.modified <= store.now()
    assert store.list("_ran") == []


def test_probe_is_not_misled_by_a_lost_answer() -> None:
    store = FaultyStore(memory_url())
    store.at(1, "after", lose_connection)
    store.probe()
    assert store.list("") == []


def test_probe_passes_and_leaves_nothing(store: Store) -> None:
    store.probe()
    assert store.list("") == []


def test_file_url_and_relative_path_are_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = str(tmp_path / "my out")
    assert Store("my out").url == Store(f"file://{tmp_path}/my%20out").url == Store(f"{expected}/").url == expected


def test_store_pickles_and_shows_no_secret() -> None:
    store = Store("s3://key:word@bucket/out/", {"secret": "hush", "key": "AKIA"})
    assert store.url == "s3://bucket/out"
    again = pickle.loads(pickle.dumps(store))
    assert "hush" not in repr(again) + str(again)
    assert again._options == {"secret": "hush", "key": "AKIA"}


def test_friendly_storage_options() -> None:
    given = {"endpoint": "http://h:1", "anonymous": "true", "requester_pays": "no", "region": "eu-1", "profile": "p"}
    assert fsspec_options(given) == {
        "endpoint_url": "http://h:1",
        "anon": True,
        "requester_pays": False,
        "client_kwargs": {"region_name": "eu-1"},
        "profile": "p",
    }
    with pytest.raises(UsageError, match="anonymous must be true or false"):
        fsspec_options({"anonymous": "maybe"})


@pytest.mark.parametrize("url", ["s3://", "s3:///", "gs://"])
def test_a_url_without_a_bucket_is_no_local_folder(url: str) -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        Store(url)


def test_unknown_protocol_and_option_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="nosuch://"):
        Store("nosuch://x").probe()
    with pytest.raises(UsageError, match="colour") as raised:
        Store("s3://bucket/x", {"colour": "hush"}).exists("a")
    assert "hush" not in str(raised.value)


def test_filesystem_with_a_racy_create_is_refused(tmp_path: Path) -> None:
    backend = RemoteBackend(DirFileSystem(str(tmp_path), fsspec.filesystem("file")), "dir://x")
    assert backend.why_unsafe() is not None


@pytest.mark.parametrize("below", ["", "out", "out/deeper"])
def test_a_file_in_the_place_of_the_folder_is_a_usage_error(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    store = Store(str(file / below))
    for act in every_act(store):
        with pytest.raises(UsageError, match=f"{file} is a file; name a folder") as raised:
            act()
        assert "again" not in str(raised.value)
        assert raised.value.exit_code == 2


def test_a_file_in_the_place_of_a_folder_of_the_dataset_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("_ran/log", b"")
    with pytest.raises(UsageError, match=f"{tmp_path}/_ran/log is a file"):
        store.put_if_absent("_ran/log/0", b"x")


def test_transient_error_is_retried_and_a_lasting_one_named(url: str) -> None:
    store = FaultyStore(url)
    store.at(1, "before", lose_connection)
    store.at(2, "before", lose_connection)
    store.write_bytes("a", b"x")
    for attempt in (1, 2, 3):
        store.at(attempt, "before", lose_connection)
    with pytest.raises(StoreError, match=r"read .*/a: connection reset by peer") as raised:
        store.read_bytes("a")
    assert raised.value.exit_code == 5


def test_full_disk_is_not_retried(url: str) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = FaultyStore(url)
    store.at(1, "before", full)
    with pytest.raises(StoreError, match="No space left"):
        store.write_bytes("a", b"x")
    assert store.count == 1


def test_bug_is_not_taken_for_a_storage_error(url: str) -> None:
    def bug() -> None:
        raise TypeError("ours")

    store = FaultyStore(url)
    store.at(1, "before", bug)
    with pytest.raises(TypeError, match="ours"):
        store.write_bytes("a", b"x")


def test_lost_answer_of_put_if_absent_looks_like_a_refusal(url: str) -> None:
    store = FaultyStore(url)
    store.at(1, "after", lose_connection)
    assert not store.put_if_absent("log/0", b"mine")
    assert store.read_bytes("log/0") == b"mine"


def test_of_eight_racing_writers_one_wins(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    results: list[bool] = []

    def race(number: int) -> None:
        store = Store(str(tmp_path))
        barrier.wait()
        results.append(store.put_if_absent("log/0", bytes([number]) * 1000))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    assert len(set(Store(str(tmp_path)).read_bytes("log/0"))) == 1
    assert Store(str(tmp_path)).list("") == ["log/0"]
