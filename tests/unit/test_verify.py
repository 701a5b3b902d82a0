"""`verify` names whatever is damaged, and `--repair` leaves a dataset that is exactly what its log says."""

from __future__ import annotations

import errno
import json
import random
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.verify import verify_command
from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import DamageError, NewerVersionError, StoreError, UsageError
from pipeline.ledger import checkpoint
from pipeline.ledger import verify as verification
from pipeline.ledger.commit import Committer
from pipeline.ledger.compact import compact
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.log import CommitLog, checkpoint_path, entry_path
from pipeline.ledger.repair import repair
from pipeline.ledger.replay import replay
from pipeline.ledger.runs import Run
from pipeline.ledger.seal import sealed, unsealed
from pipeline.ledger.verify import verify
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, OTHER_MODEL, segment_id, source_id, stage
from tests.unit.test_inspect import commit

CHECKPOINT_EVERY = 3
SEGMENTS = range(40)
COVERED = [7]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, errors, kept crops, a covered segment, six entries and two checkpoints."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    store = Store(str(folder))
    dataset = Dataset.open_or_create(store, Extraction())
    log = CommitLog(store, checkpoint_every=CHECKPOINT_EVERY)
    with Run.create(store) as run:
        run.save_config({"run": {"root": None}, "extraction": Extraction().to_json()})
        committer = Committer(dataset, log, run, MODEL)
        for start in range(0, 40, 10):
            numbers, covered = range(start, start + 10), [n for n in COVERED if start <= n < start + 10]
            committer.add(
                stage(store, run.run_id, numbers, covered=covered, keep_crops=start == 10, source_numbers=[start])
            )
            committer.commit()
        other = Committer(dataset, log, run, OTHER_MODEL)
        for start in (0, 20):
            other.add(stage(store, run.run_id, range(start, start + 20), model_id=OTHER_MODEL))
            other.commit()
        committer.finish()
    assert verify(store).is_sound
    return folder


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


def _files(folder: Path) -> list[str]:
    """Everything whose damage must be found: tables, log, checkpoints, dataset.json."""
    kept = [path for path in folder.rglob("*") if path.is_file() and "_ran/runs" not in path.as_posix()]
    return sorted(path.relative_to(folder).as_posix() for path in kept)


def _one_of_each_kind(folder: Path, chance: random.Random) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for path in _files(folder):
        kind = "checkpoint" if "checkpoint" in path else "errors" if "-errors" in path else path.split("/")[0]
        kinds.setdefault(kind, []).append(path)
    return [chance.choice(paths) for paths in kinds.values()]


def log_of(folder: Path) -> CommitLog:
    log = CommitLog(Store(str(folder)))
    log.refresh()
    return log


def _rows(folder: Path, table: str) -> dict[tuple[str, str], dict[str, object]]:
    """Public rows by key, as a plain glob reads them; each key once."""
    key = {"faces": "face_id", "segments": "segment_id", "sources": "source_id", "crops": "face_id"}[table]
    files = sorted((folder / table).rglob("*.parquet"))
    parts = [pq.ParquetFile(file).read() for file in files]
    rows = pa.concat_tables(parts).to_pylist() if parts else []
    keyed = {(row[key], row.get("model_id", "")): row for row in rows}
    assert len(keyed) == len(rows), f"{table} has rows twice"
    for row in keyed.values():
        row.pop("run_id", None)
    return keyed


def _check_repaired(output: Path, whole: Path) -> int:
    """Sound; public is exactly what is committed; every row that is there is as it was. Returns lost segments."""
    store = Store(str(output))
    assert verify(store, checkpoint_every=CHECKPOINT_EVERY).is_sound
    log = CommitLog(store, checkpoint_every=CHECKPOINT_EVERY)
    log.refresh()
    lost = 0
    for model in (MODEL, OTHER_MODEL):
        committed = set(log.state.committed(model)) - set(log.state.covered(model))
        rows = {segment for segment, model_id in _rows(output, "segments") if model_id == model}
        assert rows == committed
        lost += len(SEGMENTS) - len(log.state.committed(model))
    for table in schema.TABLES:
        before, after = _rows(whole, table), _rows(output, table)
        assert after.items() <= before.items()
    faces = {row["segment_id"] for row in _rows(output, "faces").values()}
    assert faces <= {segment for segment, _ in _rows(output, "segments")}
    return lost


def test_a_sound_dataset_is_called_sound_and_left_alone(output: Path, whole: Path) -> None:
    before = {path: (output / path).read_bytes() for path in _files(output)}
    report = repair(Store(str(output)))
    assert report.before.is_sound
    assert (report.before.replayed.entries, report.before.segments) == (6, 79)
    assert {path: (output / path).read_bytes() for path in _files(output)} == before


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_any_damaged_file_is_named_and_mended(output: Path, whole: Path, damage: str, seed: int) -> None:
    chance = random.Random(f"{damage} {seed}")
    for path in _one_of_each_kind(whole, chance):
        file = output / path
        shutil.rmtree(output)
        shutil.copytree(whole, output)
        data = file.read_bytes()
        if damage == "flip":
            at = chance.randrange(len(data))
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        elif damage == "cut":
            file.write_bytes(data[: chance.randrange(1, len(data))])
        elif damage == "empty":
            file.write_bytes(b"")
        else:
            file.unlink()
        store = Store(str(output))
        if damage == "gone" and (path == entry_path(5) or path.startswith("_ran/log/checkpoint")):
            continue  # nobody can tell from the log that its end is missing: see the test of the last entry
        found = verify(store)
        if damage == "flip" and "checkpoint" in path and found.is_sound:
            continue  # a bit of Parquet that says nothing; what the checkpoint says was compared with the entries
        assert path in {finding.path for finding in found.findings}, (path, damage)
        if path == "dataset.json":
            continue  # these segments' ids are made up; a real run's are tested with a real run
        report = repair(store, checkpoint_every=CHECKPOINT_EVERY)
        assert report.after.is_sound, (path, report.after.findings)
        lost = _check_repaired(output, whole)
        table = path.split("/")[0]
        assert lost <= (40 if table in ("faces", "segments") else 0 if table != "_ran" else 1), path
        assert lost == 0 or report.lost > 0 or table == "_ran"


def test_the_last_entry_is_gone_and_its_rows_are_recovered(output: Path, whole: Path) -> None:
    (output / entry_path(5)).unlink()
    (output / checkpoint_path(6)).unlink()
    found = verify(Store(str(output)))
    assert {finding.kind for finding in found.findings} == {"stray_file"}
    report = repair(Store(str(output)), checkpoint_every=CHECKPOINT_EVERY)
    assert (report.recovered, report.lost, report.after.is_sound) == (20, 0, True)
    assert _check_repaired(output, whole) == 0


def test_a_lost_entry_whose_effect_no_checkpoint_has_is_rebuilt_from_its_files(output: Path, whole: Path) -> None:
    for number in (3, 6):
        (output / checkpoint_path(number)).unlink()
    (output / entry_path(1)).write_bytes(b"{")
    with pytest.raises(StoreError, match="malformed"):
        CommitLog(Store(str(output))).refresh()
    report = repair(Store(str(output)), checkpoint_every=CHECKPOINT_EVERY)
    assert (report.recovered, report.lost) == (10, 0)
    assert _check_repaired(output, whole) == 0
    assert any("000000000001.json" in path for path in report.moved)


@pytest.mark.parametrize("number", [3, 6])
def test_a_lost_entry_is_not_told_by_a_checkpoint_that_readers_do_not_start_from(
    output: Path, whole: Path, number: int
) -> None:
    """They start from the newest before which none is missing, so they would go by what stands for the lost entry."""
    lost = {3: 1, 6: 4}[number]
    if number == 3:
        (output / checkpoint_path(number)).unlink()
    else:
        (output / checkpoint_path(3)).write_bytes(b"PAR1")
    (output / entry_path(lost)).write_bytes(b"{")
    report = repair(Store(str(output)), checkpoint_every=CHECKPOINT_EVERY)
    assert report.after.is_sound, report.after.findings
    assert _check_repaired(output, whole) == report.lost


def test_a_copied_file_doubles_no_row_after_repair(output: Path, whole: Path) -> None:
    file = next((output / "faces" / MODEL).glob("*.parquet"))
    shutil.copy(file, file.with_name("copy.parquet"))
    found = verify(Store(str(output)))
    assert [(one.kind, one.path) for one in found.findings] == [("stray_file", f"faces/{MODEL}/copy.parquet")]
    report = repair(Store(str(output)))
    assert (report.recovered, report.lost, len(report.moved)) == (0, 0, 1)
    assert _check_repaired(output, whole) == 0


def test_what_is_no_parquet_is_somebody_elses(output: Path) -> None:
    """A project's own folder may be called `sources`."""
    picture = output / "sources" / "holiday.jpg"
    picture.write_bytes(b"dear to somebody")
    assert verify(Store(str(output))).findings == []
    assert repair(Store(str(output))).moved == []
    assert picture.read_bytes() == b"dear to somebody"


def test_a_lost_source_row_is_planned_again(output: Path) -> None:
    for file in (output / "sources").glob("*.parquet"):
        file.unlink()
    report = repair(Store(str(output)), checkpoint_every=CHECKPOINT_EVERY)
    assert report.after.is_sound
    log = CommitLog(Store(str(output)))
    log.refresh()
    assert source_id(0) not in log.state.sources
    assert segment_id(0) in log.state.committed(MODEL)


def test_nothing_is_repaired_while_a_run_is_at_work(output: Path) -> None:
    (output / entry_path(2)).unlink()
    with Run.create(Store(str(output))), pytest.raises(UsageError, match="is at work"):
        repair(Store(str(output)))


def test_a_compaction_that_ends_while_verify_looks_is_no_damage(
    output: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_file, looked = verification._check_file, []

    def check(*arguments: Any) -> Any:
        if not looked:  # the log is read, the files are not
            looked.append(compact(Store(str(output))))
        return check_file(*arguments)

    monkeypatch.setattr(verification, "_check_file", check)
    mended = repair(Store(str(output)))
    assert not mended.before.lost
    assert (mended.lost, mended.moved) == (0, [])
    for table in ("segments", "faces", "crops", "sources"):
        assert _rows(output, table) == _rows(whole, table)


def test_verify_holds_one_model_at_a_time(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_file, read = verification._check_file, list[tuple[str, weakref.ref[Any]]]()
    together: set[frozenset[str]] = set()

    def check(store: Store, file: CommittedFile, *rest: Any) -> Any:
        together.add(frozenset({file.model_id or file.table} | {owner for owner, rows in read if rows() is not None}))
        rows = check_file(store, file, *rest)
        read.append((file.model_id or file.table, weakref.ref(rows)))
        return rows

    monkeypatch.setattr(verification, "_check_file", check)
    assert verify(Store(str(output))).is_sound
    assert together == {frozenset({owner}) for owner in (MODEL, OTHER_MODEL, "sources", "crops")}
    assert len(read) == len(log_of(output).state.live)


def test_a_replay_holds_one_checkpoint_at_a_time(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, parsed, most = checkpoint.from_parquet, list[weakref.ref[Any]](), 0

    def counting(data: bytes, name: str) -> Any:
        nonlocal most
        most = max(most, sum(one() is not None for one in parsed))
        state = read(data, name)
        parsed.append(weakref.ref(state))
        return state

    monkeypatch.setattr(checkpoint, "from_parquet", counting)
    store = Store(str(output))
    CommitLog(store, checkpoint_every=1).refresh(write_checkpoints=True)
    assert not replay(store, checkpoint_every=1).problems
    assert len(parsed) == 6
    for number in (1, 4):  # it goes on from the checkpoints that follow these
        (output / entry_path(number)).write_bytes(b"{")
    (output / checkpoint_path(6)).write_bytes(b"PAR1")
    found = replay(store, checkpoint_every=1)
    problems = {entry_path(1), entry_path(4), checkpoint_path(6)}
    assert set(found.problems) == problems
    assert found.lost_checkpoints == [checkpoint_path(6)]
    assert len(parsed) == 11
    assert (found.state.next_entry, found.state.count(MODEL)) == (6, 40)
    del found
    (output / entry_path(5)).unlink()
    assert set(replay(store, checkpoint_every=1).problems) == problems
    assert len(parsed) == 16, "also what follows the last entry is looked at"
    assert most <= 1, "the one that the replay goes on from"


class StoreThatFailsAt(Store):
    """Reading one file fails, after the first `sound` times."""

    def __init__(self, url: str, path: str, error: Exception, sound: int = 0) -> None:
        super().__init__(url, attempts=2, backoff_s=0.0)
        self._path, self._error, self._sound = path, error, sound

    def _attempt(self, operation: str, path: str, act: Callable[[], Any]) -> Any:
        if operation == "read" and path == self._path:
            self._sound -= 1
            if self._sound < 0:
                raise self._error
        return super()._attempt(operation, path, act)


STORE_FAILURES = [OSError(errno.EIO, "Input/output error"), TimeoutError("timed out"), PermissionError("403 Forbidden")]


def _one_of_each(folder: Path) -> list[str]:
    tables = [sorted((folder / table).rglob("*.parquet"))[0].relative_to(folder).as_posix() for table in schema.TABLES]
    return [*tables, "dataset.json", entry_path(1), entry_path(5), checkpoint_path(3)]


@pytest.mark.parametrize("error", STORE_FAILURES, ids=["EIO", "timeout", "403"])
def test_what_the_store_does_not_give_is_not_called_damaged(output: Path, whole: Path, error: Exception) -> None:
    for path in _one_of_each(output):
        store = StoreThatFailsAt(str(output), path, error)
        for act in (verify, repair):
            with pytest.raises(StoreError, match=path) as told:
                act(store)
            assert not isinstance(told.value, DamageError), path
    assert {path: (output / path).read_bytes() for path in _files(output)} == {
        path: (whole / path).read_bytes() for path in _files(whole)
    }


def test_nothing_is_repaired_when_the_store_fails_after_the_first_look(output: Path) -> None:
    for path in _one_of_each(output):
        file = sorted((output / "faces" / OTHER_MODEL).glob("*.parquet"))[-1]
        file.write_bytes(file.read_bytes()[:-9])  # something to repair
        before = {path: (output / path).read_bytes() for path in _files(output)}
        with pytest.raises(StoreError, match=path):
            repair(
                StoreThatFailsAt(str(output), path, OSError(errno.EIO, "Input/output error"), sound=1), stale_after_s=0
            )
        assert {path: (output / path).read_bytes() for path in _files(output)} == before


def _newer_entry(data: bytes) -> bytes:
    return json.dumps({"version": 99, "and": "more"}).encode()


def _newer_checkpoint(data: bytes) -> bytes:
    rows = pq.read_table(pa.BufferReader(data))
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata(rows.schema.metadata | {b"ran_checkpoint": b"99"}), sink)
    return bytes(sink.getvalue())


def _newer_dataset(data: bytes) -> bytes:
    return sealed(unsealed(data) | {"schema_version": 99})


def _newer_extraction(data: bytes) -> bytes:
    values = unsealed(data)
    return sealed(values | {"extraction": values["extraction"] | {"grid_version": 99}})


@pytest.mark.parametrize(
    ("path", "newer"),
    [(entry_path(1), _newer_entry), (checkpoint_path(3), _newer_checkpoint), ("dataset.json", _newer_dataset),
     ("dataset.json", _newer_extraction)],
)  # fmt: skip
def test_what_a_newer_version_wrote_is_no_damage(output: Path, path: str, newer: Callable[[bytes], bytes]) -> None:
    file = output / path
    file.write_bytes(newer(file.read_bytes()))
    before = file.read_bytes()
    for act in (verify, repair):
        with pytest.raises(NewerVersionError, match="upgrade"):
            act(Store(str(output)))
    assert file.read_bytes() == before


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no dataset"):
        verify(Store(str(tmp_path)))


def test_one_of_each_is_singular(tmp_path: Path) -> None:
    commit(Store(str(tmp_path)), MODEL, 1)
    said = CliRunner().invoke(verify_command, [str(tmp_path)], catch_exceptions=False).stdout
    assert said.startswith(f"{tmp_path}: 1 log entry, 2 files (")
    assert said.partition(")")[2].startswith(", 1 segment, 1 face\n")
