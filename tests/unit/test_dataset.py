from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from pipeline.config import Extraction
from pipeline.errors import StoreError, UsageError
from pipeline.ledger.dataset import Dataset, dataset_file
from pipeline.ledger.log import entry_path
from pipeline.ledger.seal import sealed
from pipeline.schema import SCHEMA_VERSION
from pipeline.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_same_command_opens_what_the_first_created(store: Store) -> None:
    made = Dataset.open_or_create(store, Extraction(fps="5"), root="/data")
    again = Dataset.open_or_create(store, Extraction(fps="5.0"), root="/data")
    assert again == made
    assert Dataset.open(store).extraction == Extraction()
    assert Dataset.open(store).root == "/data"
    assert Dataset.open(store).created_by.startswith("ran-pipeline ")


def test_a_dataset_with_the_grid_of_before_goes_on_with_it(store: Store) -> None:
    """Windows of two grids would share frames, or lose some between them."""
    older = Extraction(grid_version=1)
    store.put_if_absent("dataset.json", dataset_file(older, None))
    assert "grid_version" not in json.loads(store.read_bytes("dataset.json"))["extraction"]
    assert Dataset.open_or_create(store, Extraction()).extraction == older
    assert older.id == "63eb11dbbf91bbe8", "segments keep their ids"
    assert Extraction().id != older.id


def test_another_extraction_is_refused_with_every_difference_and_the_mend(store: Store) -> None:
    Dataset.open_or_create(store, Extraction(fps="5", max_faces=64))
    with pytest.raises(UsageError) as raised:
        Dataset.open_or_create(store, Extraction(fps="10", max_faces=3))
    message = str(raised.value)
    assert "fps is '5' there and '10' now" in message
    assert "max_faces is 64 there and 3 now" in message
    assert "min_score" not in message
    assert "another -o" in message
    assert raised.value.exit_code == 2


def test_another_root_is_refused_and_none_takes_the_stored_one(store: Store) -> None:
    Dataset.open_or_create(store, Extraction(), root="/data")
    assert Dataset.open_or_create(store, Extraction()).root == "/data"
    with pytest.raises(UsageError, match="made with root '/data', not '/elsewhere'"):
        Dataset.open_or_create(store, Extraction(), root="/elsewhere")


def test_a_dataset_does_not_lie_in_another(store: Store, tmp_path: Path) -> None:
    Dataset.open_or_create(store, Extraction())
    with pytest.raises(UsageError, match=f"lies within the dataset {store.url}:"):
        Dataset.open_or_create(Store(str(tmp_path / "faces" / "new")), Extraction())
    assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize("folder", ["faces", "sources", "segments", "crops"])
def test_a_folder_of_somebodys_files_where_rows_would_go_is_refused(store: Store, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    Dataset.check_place(store)  # nothing is in it
    (tmp_path / folder / "portrait.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=f"its folder {folder} has files .*portrait.png.*: choose another -o"):
        Dataset.open_or_create(store, Extraction())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["portrait.png"]


def test_a_dataset_made_at_this_moment_is_no_folder_of_somebodys_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver may make it, and write rows, between the first look and the second."""
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "part-1.parquet").write_bytes(b"")
    refuse = Dataset._refuse_within_another

    def made_meanwhile(store: Store) -> None:
        refuse(store)
        store.put_if_absent("dataset.json", dataset_file(Extraction(), None))

    monkeypatch.setattr(Dataset, "_refuse_within_another", staticmethod(made_meanwhile))
    assert Dataset.open_or_create(store, Extraction()).extraction == Extraction()


def test_newer_schema_is_refused(store: Store) -> None:
    Dataset.open_or_create(store, Extraction())
    values = json.loads(store.read_bytes("dataset.json"))
    values["schema_version"] = SCHEMA_VERSION + 1
    store.write_bytes("dataset.json", sealed({name: value for name, value in values.items() if name != "sha256"}))
    with pytest.raises(UsageError, match=f"schema version {SCHEMA_VERSION + 1}.*upgrade"):
        Dataset.open(store)


def test_unknown_extraction_field_is_refused(store: Store) -> None:
    Dataset.open_or_create(store, Extraction())
    values = json.loads(store.read_bytes("dataset.json"))
    values["extraction"]["colour"] = "blue"
    store.write_bytes("dataset.json", sealed({name: value for name, value in values.items() if name != "sha256"}))
    with pytest.raises(UsageError, match="unknown extraction fields colour"):
        Dataset.open(store)


def test_a_changed_digit_is_no_other_extraction(store: Store) -> None:
    Dataset.open_or_create(store, Extraction(fps="5"))
    store.write_bytes("dataset.json", store.read_bytes("dataset.json").replace(b'"fps": "5"', b'"fps": "7"'))
    with pytest.raises(StoreError, match=r"dataset\.json is malformed \(its sha256 does not fit"):
        Dataset.open(store)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"schema_version": 1}'])
def test_malformed_file_is_named(store: Store, data: bytes) -> None:
    store.write_bytes("dataset.json", data)
    with pytest.raises(StoreError, match=r"dataset\.json is malformed"):
        Dataset.open(store)


def test_folder_without_dataset_says_how_to_make_one(store: Store) -> None:
    assert not Dataset.exists(store)
    with pytest.raises(UsageError, match="holds no dataset"):
        Dataset.open(store)


@pytest.mark.parametrize("entry", [0, 3])
def test_a_log_without_its_dataset_file_is_damage_and_gets_no_new_one(store: Store, entry: int) -> None:
    """A new one may have another extraction or root, and the old rows would be taken for its own."""
    Dataset.open_or_create(store, Extraction(), root="/data")
    store.write_bytes(entry_path(entry), b"{}")
    store.delete("dataset.json")
    for act in (
        lambda: Dataset.open(store),
        lambda: Dataset.exists(store),
        lambda: Dataset.open_or_create(store, Extraction(fps="1"), root="/elsewhere"),
    ):
        with pytest.raises(StoreError, match=rf"{store.url}/dataset.json is missing.*verify {store.url} --repair"):
            act()
    assert not store.exists("dataset.json")


def test_who_comes_while_another_makes_the_dataset_opens_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    list_files = Store.list

    def made_meanwhile(self: Store, folder: str) -> list[str]:
        store.put_if_absent("dataset.json", dataset_file(Extraction(), None))
        store.put_if_absent(entry_path(0), b"{}")
        return list_files(self, folder)

    monkeypatch.setattr(Store, "list", made_meanwhile)
    assert Dataset.open_or_create(store, Extraction()).extraction == Extraction()


def test_two_drivers_may_create_at_once(tmp_path: Path) -> None:
    barrier, made = threading.Barrier(4), []

    def create() -> None:
        barrier.wait()
        made.append(Dataset.open_or_create(Store(str(tmp_path)), Extraction()).extraction)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [Extraction()] * 4
