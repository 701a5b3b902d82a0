"""dataset.json: what makes a folder a dataset. It is written once, if absent, and never changed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline import __version__
from pipeline.config import Extraction
from pipeline.errors import DamageError, NewerVersionError, StoreError, UsageError
from pipeline.ledger.log import LOG
from pipeline.ledger.seal import is_sealed, sealed, unsealed
from pipeline.schema import SCHEMA_VERSION, TABLES
from pipeline.storage.store import Store

DATASET_FILE = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A store that holds a dataset. root: what source uris are relative to; None: they are absolute."""

    store: Store
    extraction: Extraction
    root: str | None
    schema_version: int
    created_by: str

    @staticmethod
    def exists(store: Store) -> bool:
        """Whether the store holds a dataset. Raises DamageError if it holds one whose dataset.json is gone."""
        if store.exists(DATASET_FILE):
            return True
        # somebody may be making the dataset at this moment: dataset.json comes first, then the log
        if not store.list(LOG) or store.exists(DATASET_FILE):
            return store.exists(DATASET_FILE)
        raise DamageError(f"{store.url_of(DATASET_FILE)} is missing; `verify {store.url} --repair` restores it")

    @classmethod
    def open(cls, store: Store, extraction: Extraction | None = None, *, root: str | None = None) -> Dataset:
        """The dataset in `store`. Raises UsageError if there is none, or it was made with another extraction or root
        than those given, NewerVersionError, and DamageError if dataset.json is damaged or gone."""
        try:
            data = store.read_bytes(DATASET_FILE)
        except FileNotFoundError:
            if not cls.exists(store):
                raise UsageError(
                    f"{store.url} holds no dataset (no {DATASET_FILE}); `run … -o {store.url}` makes one"
                ) from None
            data = store.read_bytes(DATASET_FILE)  # made at this moment
        dataset = _parsed(store, data)
        if extraction is not None:
            dataset._require(extraction)
        if root is not None and root != dataset.root:
            raise UsageError(
                f"{store.url} was made with root {dataset.root!r}, not {root!r}; leave --root out or choose another -o"
            )
        return dataset

    @classmethod
    def open_or_create(cls, store: Store, extraction: Extraction, *, root: str | None = None) -> Dataset:
        """Opens the dataset, or makes one after probing the store. Two drivers may do so at once.

        Raises UsageError as `open` does, and if the store can't hold a dataset.
        """
        if not cls.exists(store):
            cls.check_place(store)
            store.probe()
            store.put_if_absent(DATASET_FILE, dataset_file(extraction, root))
        return cls.open(store, extraction, root=root)

    @classmethod
    def check_place(cls, store: Store) -> None:
        """Raises UsageError if `store`, which holds no dataset, can't become one beside what is there already."""
        cls._refuse_within_another(store)
        for table in TABLES:
            files = store.list(table)
            if files and not cls.exists(store):  # else it was made at this moment
                raise UsageError(
                    f"{store.url} is no dataset, but its folder {table} has files ({files[0]}), and rows would go "
                    "there: choose another -o"
                )

    @staticmethod
    def _refuse_within_another(store: Store) -> None:
        """A folder of a dataset holds that dataset's rows alone, or a glob over it would find two."""
        for above in store.above():
            with suppress(StoreError):  # who may write here may not be allowed to look there
                if above.exists(DATASET_FILE):
                    raise UsageError(f"{store.url} lies within the dataset {above.url}: choose another -o, beside it")

    def _require(self, wanted: Extraction) -> None:
        ours, theirs = asdict(wanted), asdict(self.extraction)
        del ours["grid_version"]  # nobody asks for it: what the dataset was begun with goes on
        differing = [name for name in ours if ours[name] != theirs[name]]
        if differing:
            listed = "; ".join(f"{name} is {theirs[name]!r} there and {ours[name]!r} now" for name in differing)
            raise UsageError(
                f"{self.store.url} was made with another extraction ({listed}); "
                "repeat the run with the old values, or choose another -o for the new ones"
            )


def dataset_file(extraction: Extraction, root: str | None) -> bytes:
    """The content of dataset.json."""
    values = {
        "schema_version": SCHEMA_VERSION,
        "extraction": extraction.to_json(),
        "root": root,
        "created_by": f"ran-pipeline {__version__}",
    }
    return sealed(values, indent=2) + b"\n"


def _parsed(store: Store, data: bytes) -> Dataset:
    where = store.url_of(DATASET_FILE)
    try:
        values: dict[str, Any] = unsealed(data)
        version = int(values["schema_version"])
        if version > SCHEMA_VERSION:
            raise NewerVersionError(
                f"{where} has schema version {version}, this program knows up to {SCHEMA_VERSION}: "
                f"upgrade ran-pipeline (it was made by {values.get('created_by', 'a newer version')})"
            )
        known = {field.name for field in fields(Extraction)}
        unknown = sorted(values["extraction"].keys() - known)
        if unknown:
            raise NewerVersionError(f"{where} has unknown extraction fields {', '.join(unknown)}: upgrade ran-pipeline")
        return Dataset(
            store=store,
            extraction=_extraction(where, values["extraction"], is_whole=is_sealed(data)),
            root=values["root"],
            schema_version=version,
            created_by=str(values["created_by"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(f"{where} is malformed ({error}); `verify --repair` restores it") from error


def _extraction(where: str, values: dict[str, Any], *, is_whole: bool) -> Extraction:
    """is_whole: no bit was changed since the file was written, so a value that is not allowed is a newer version's."""
    try:
        return Extraction.from_json(values)
    except UsageError as error:
        if is_whole:
            raise NewerVersionError(f"{where}: {error}: upgrade ran-pipeline") from error
        raise ValueError(str(error)) from error
