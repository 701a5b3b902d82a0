"""One entry of the log: what a commit added and removed. Its JSON is public; `ls` and `cat` are the debugger.

An entry ends with the sha256 of the rest, so that a changed bit is found instead of believed.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pipeline.errors import DamageError, NewerVersionError
from pipeline.ledger.seal import is_sealed, sealed, unsealed

ENTRY_VERSION = 2  # 1 had no sha256


@dataclass(frozen=True, kw_only=True)
class CommittedFile:
    """A file of the dataset. `path` is where readers find it, `staged` where its bytes lie until it is published.

    model_id is "" for tables that belong to no model. sha256 (hex) is over the file's bytes.
    """

    table: str
    path: str
    staged: str
    rows: int
    bytes: int
    sha256: str
    model_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One commit, whole or not at all.

    nonce: unique; how a driver whose answer was lost knows its own entry.
    segments: ids that are committed for model_id from here on; covered: those of them without a row.
    sources, crops: source ids with a row in `sources`, and segment ids with their crops, from here on.
    tails: source_id -> number of windows that the source is now known to have.
    add, remove: files that become live, and paths that stop being live.
    segments_removed (of model_id), sources_removed, crops_removed: ids whose rows were in removed files and are gone.
    close: a run that may commit nothing more.
    lost: this entry stands for one that was damaged, see `pipeline.ledger.repair`.
    """

    run_id: str
    model_id: str = ""
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)
    segments: list[str] = field(default_factory=list)
    covered: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    crops: list[str] = field(default_factory=list)
    tails: dict[str, int] = field(default_factory=dict)
    add: list[CommittedFile] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    segments_removed: list[str] = field(default_factory=list)
    sources_removed: list[str] = field(default_factory=list)
    crops_removed: list[str] = field(default_factory=list)
    close: str | None = None
    lost: bool = False
    version: int = ENTRY_VERSION

    def to_bytes(self) -> bytes:
        """The entry as it is stored."""
        return sealed({name: value for name, value in asdict(self).items() if value not in ([], {}, None, False)})


def parse_entry(data: bytes, name: str) -> Entry:
    """The entry stored as file `name`. Raises DamageError, naming it, if it is malformed, or NewerVersionError."""
    try:
        values = unsealed(data)
        if values["version"] > ENTRY_VERSION:
            raise NewerVersionError(
                f"log entry {name} was written by a newer version of ran-pipeline; upgrade this one"
            )
        if values["version"] > 1 and not is_sealed(data):
            raise ValueError("its sha256 is missing")
        unknown = values.keys() - {f.name for f in fields(Entry)}
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        values["add"] = [CommittedFile(**file) for file in values.get("add", ())]
        entry = Entry(**values)
        _check_types(entry)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamageError(
            f"log entry {name} is malformed ({error}); the dataset can't be read past it; see `verify`"
        ) from error
    return entry


_LISTS = ("segments", "covered", "sources", "crops", "remove", "segments_removed", "sources_removed", "crops_removed")


def _check_types(entry: Entry) -> None:
    def require(name: str, good: bool) -> None:
        if not good:
            raise ValueError(f"{name} has the wrong type")

    for name in ("nonce", "run_id", "model_id"):
        require(name, isinstance(getattr(entry, name), str))
    for name in _LISTS:
        value: Any = getattr(entry, name)
        require(name, isinstance(value, list) and all(isinstance(item, str) for item in value))
    require("tails", isinstance(entry.tails, dict) and all(isinstance(n, int) for n in entry.tails.values()))
    require("lost", isinstance(entry.lost, bool))
    require("close", entry.close is None or isinstance(entry.close, str))
    for file in entry.add:
        require("add", all(isinstance(getattr(file, f.name), int if f.type == "int" else str) for f in fields(file)))
