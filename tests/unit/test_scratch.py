"""The scratch cache: fetched once, under a cap, never pulled from under a reader."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import ErrorCode, MediaError, StoreError
from pipeline.media.fetch import classify, retried
from pipeline.media.scratch import Scratch
from pipeline.media.sources import list_sources


def write(scratch: Scratch, name: str, size: int) -> Path:
    with scratch.derived(name, size, lambda target: target.write_bytes(bytes(size)) and None) as file:
        return file.path


def _derive(directory: str, log: str, together: Barrier) -> None:
    def make(target: Path) -> None:
        with Path(log).open("a") as file:
            file.write("made\n")
        time.sleep(0.2)
        target.write_bytes(b"data")

    together.wait(240)  # so that none comes when the file is there already
    with Scratch(directory).derived("x", 4, make) as file:
        assert file.path.read_bytes() == b"data"


def test_processes_that_want_the_same_file_fetch_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    arguments = (str(tmp_path / "scratch"), str(log), context.Barrier(3))
    processes = [context.Process(target=_derive, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "made\n"


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path), capacity_bytes=1000)
    for name in ("a", "b", "c"):
        write(scratch, name, 300)
        time.sleep(0.01)
    write(scratch, "a", 300)  # used again
    write(scratch, "d", 300)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["a", "c", "d"]


def test_a_file_in_use_is_never_evicted(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path), capacity_bytes=1000)
    with scratch.derived("a", 600, lambda target: target.write_bytes(bytes(600)) and None) as file:
        write(scratch, "b", 600)
        assert file.path.read_bytes() == bytes(600)
    write(scratch, "c", 600)
    assert not (tmp_path / "a").exists()


def test_more_than_the_cap_or_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="may hold 100") as caught:
        write(Scratch(str(tmp_path), capacity_bytes=100), "a", 101)
    assert caught.value.code == ErrorCode.TOO_LARGE
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StoreError, match="give another --scratch"):  # other files are in the way, so no source is bad
        write(Scratch(str(tmp_path)), "a", 101)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000, total=1000))
    with pytest.raises(MediaError, match=r"of which 100 stay free.*give another --scratch"):
        write(Scratch(str(tmp_path)), "a", 901)


@pytest.mark.parametrize(("total", "kept"), [(100 << 30, 10 << 30), (300 << 30, 20 << 30), (4 << 40, 20 << 30)])
def test_the_cache_leaves_room_on_the_disk_for_everything_else(
    total: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray moves no objects to a disk that is 95 % full, and whatever else writes there fails on a full one."""
    usage = shutil.disk_usage(tmp_path)
    others = 5 << 30

    def disk(_: object) -> object:
        cached = sum(path.stat().st_size for path in tmp_path.glob("[!.]*")) * (1 << 30)  # a byte here is a GiB there
        return usage._replace(total=total, free=total - others - cached)

    monkeypatch.setattr(shutil, "disk_usage", disk)
    scratch = Scratch(str(tmp_path))
    assert scratch.room_bytes() == total - others - kept
    first = write(scratch, "a", 50)
    room = total - others - kept - (50 << 30)
    with pytest.raises(StoreError, match=f"of which {kept} stay free"):
        scratch.derived("c", total - kept, lambda target: target.touch())
    assert first.exists()  # without it, there would not have been room either
    with scratch.derived("b", room + 1, lambda target: target.touch()):
        assert not first.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=total, free=kept - 1))
    assert scratch.room_bytes() == 0


def test_what_is_small_takes_of_what_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    scratch = Scratch(str(tmp_path))
    other = write(scratch, "a", 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=500 << 30, free=18 << 30))  # 20 are kept
    assert write(scratch, "small", 0).exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=500 << 30, free=9 << 30))
    with pytest.raises(StoreError, match="don't fit"):
        write(scratch, "small too", 0)
    assert other.exists()


def test_room_is_what_can_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(total=5000, free=1500)
    scratch = Scratch(str(tmp_path / "scratch"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert scratch.room_bytes() == 1000
    assert not scratch.directory.exists()
    (tmp_path / "scratch").mkdir()
    write(scratch, "a", 300)
    killed = tmp_path / "scratch" / ".incoming" / "x"
    killed.write_bytes(bytes(200))  # its writer was killed
    (tmp_path / "scratch" / ".x.lock").touch()
    (tmp_path / "scratch" / "photo.jpg").write_bytes(bytes(100))  # somebody's own
    with scratch.derived("in use", 50, lambda target: target.write_bytes(bytes(50)) and None):
        killed.write_bytes(bytes(200))
        assert scratch.room_bytes() == 1500
    assert scratch.room_bytes() == 1550
    assert Scratch(str(scratch.directory), capacity_bytes=700).room_bytes() == 700


def test_what_a_fetch_costs_does_not_grow_with_what_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is looked through when something has to go, and then a twentieth goes with it, lock files too."""
    looked = 0
    scandir = os.scandir

    def counting(path: str | Path) -> object:
        nonlocal looked
        looked += Path(path) == tmp_path
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    scratch = Scratch(str(tmp_path), capacity_bytes=200 * 10)
    for number in range(200):
        write(scratch, f"{number:03}", 10)
    assert looked == 1  # nobody had counted yet
    for number in range(200, 211):
        write(scratch, f"{number:03}", 10)
    assert looked == 2
    other = Scratch(str(tmp_path), capacity_bytes=200 * 10)  # another process goes by the same tally
    for number in range(211, 222):
        write(other, f"{number:03}", 10)
    assert looked == 3
    there = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert there == [f"{number:03}" for number in range(22, 222)]
    assert sorted(path.name for path in tmp_path.glob(".*.lock")) == [f".{name}.lock" for name in there]


def test_a_tally_that_is_wrong_is_set_right_by_who_has_to_evict(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path), capacity_bytes=1000)
    for name in ("a", "b", "c"):
        write(scratch, name, 300)
    (tmp_path / "a").unlink()  # somebody makes room by hand
    write(scratch, "d", 300)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["b", "c", "d"]
    assert (tmp_path / ".tally").read_bytes() == b"%020d" % 900


def test_files_on_their_way_count_against_the_cap(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path), capacity_bytes=1000)
    for name in ("a", "b"):
        write(scratch, name, 300)
        time.sleep(0.01)

    def fetch(target: Path) -> None:
        write(scratch, "d", 300)  # another process, meanwhile
        target.write_bytes(bytes(300))

    scratch.derived("c", 300, fetch).close()
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["b", "c", "d"]


def test_files_on_their_way_count_against_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But only for what is evicted: who finds the room there takes it."""
    usage = shutil.disk_usage(tmp_path)

    def disk(_: object) -> object:
        return usage._replace(total=1000, free=950 - sum(path.stat().st_size for path in present()))

    def present() -> list[Path]:
        return [*tmp_path.glob("[!.]*"), *tmp_path.glob(".incoming/*")]

    monkeypatch.setattr(shutil, "disk_usage", disk)
    scratch = Scratch(str(tmp_path))
    write(scratch, "a", 300)

    def fetch(target: Path) -> None:
        target.write_bytes(bytes(100))
        with scratch.derived("d", 300, lambda other: other.write_bytes(bytes(300)) and None):
            assert not (tmp_path / "a").exists()
            write(scratch, "e", 300)
        target.write_bytes(bytes(300))

    scratch.derived("c", 300, fetch).close()
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["c", "d", "e"]


def test_what_a_killed_process_left_is_removed_and_what_is_not_ours_is_not(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path), capacity_bytes=1000)
    (tmp_path / ".incoming").mkdir()
    for name in (".incoming/x", "photo.jpg", "download.part"):
        (tmp_path / name).write_bytes(bytes(900))
    with (tmp_path / ".x.lock").open("wb") as lock:
        lock.truncate(900)
    write(scratch, "a", 500)
    write(scratch, "b", 500)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["a", "b", "download.part", "photo.jpg"]
    assert not list(tmp_path.glob(".incoming/*"))


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        target.write_bytes(b"half")
        raise MediaError(ErrorCode.UNREACHABLE, "gone")

    scratch = Scratch(str(tmp_path))
    with pytest.raises(MediaError):
        scratch.derived("a", 0, fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_file() and path.stat().st_size] == [".tally"]
    assert not list(tmp_path.glob(".incoming/*"))
    write(scratch, "a", 1)


def test_a_remote_object_is_fetched_once_and_checked(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/remote/a.mp4": b"first"})
    (source,) = list_sources(["memory://remote/a.mp4"]).sources
    scratch = Scratch(str(tmp_path))

    def fetch() -> bytes:
        with scratch.open(
            source_id=source.source_id,
            location=source.location,
            fingerprint=source.fingerprint,
            size_bytes=source.size_bytes,
            storage_options={},
        ) as file:
            return file.path.read_bytes()

    assert fetch() == b"first"
    memory.pipe({"/remote/a.mp4": b"other contents"})
    assert fetch() == b"first"  # what was planned is still here
    (tmp_path / source.source_id).unlink()
    with pytest.raises(MediaError) as caught:
        fetch()
    assert caught.value.code == ErrorCode.SOURCE_CHANGED
    memory.rm("/remote/a.mp4")
    with pytest.raises(MediaError) as caught:
        fetch()
    assert caught.value.code == ErrorCode.NOT_FOUND


def test_transient_errors_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    outcomes: list[Exception | int] = [TimeoutError(), ConnectionResetError(), 7]

    def call() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert retried(call, "x") == 7
    outcomes[:] = [TimeoutError()] * 4
    with pytest.raises(MediaError) as caught:
        retried(call, "x")
    assert caught.value.code == ErrorCode.UNREACHABLE
    outcomes[:] = [PermissionError(13, "no"), 7]
    with pytest.raises(MediaError) as caught:
        retried(call, "x")
    assert caught.value.code == ErrorCode.PERMISSION
    assert outcomes == [7]


def test_messages_name_no_address() -> None:
    error = classify(OSError("https://key:secret@host/x"), "s3://bucket/x")
    assert "secret" not in error.message
    assert "host" not in error.message


def test_threads_share_the_cache(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path), capacity_bytes=10_000)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(30):
                name = f"f{(seed + turn) % 6}"
                with scratch.derived(name, 3000, lambda t: t.write_bytes(bytes(3000)) and None) as file:
                    assert len(file.path.read_bytes()) == 3000
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
