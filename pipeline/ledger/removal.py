"""Rows leave the dataset: files that hold some of them are replaced by files with the rest, in one entry of the log."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.live import read_live
from pipeline.ledger.staging import ERRORS_SUFFIX, stage_table, to_commit
from pipeline.storage.store import Store


@dataclass(kw_only=True)
class Replacement:
    """remove: paths of files that had some of the rows. add: files with what stays of them, staged."""

    remove: list[str] = field(default_factory=list)
    add: list[CommittedFile] = field(default_factory=list)


def without(
    store: Store, run_id: str, files: Iterable[CommittedFile], gone: Collection[str], *, column: str = "segment_id"
) -> Replacement:
    """The files without the rows whose `column` is in `gone`. Files that have none of them are left alone.

    Memory: one file. Raises StoreError, also for a file that another run removed meanwhile.
    """
    result, ids = Replacement(), pa.array(sorted(gone), pa.string())
    for file in files if gone else ():
        data = read_live(store, file)
        has = pc.is_in(pq.read_table(pa.BufferReader(data), columns=[column])[column], ids)
        if not pc.any(has).as_py():
            continue
        result.remove.append(file.path)
        rest = pq.read_table(pa.BufferReader(data)).filter(pc.invert(has))
        if rest.num_rows:
            staged = stage_table(store, run_id, file.table, rest)
            only_errors = file.path.endswith(ERRORS_SUFFIX)
            result.add.append(to_commit(staged, run_id=run_id, model_id=file.model_id, only_errors=only_errors))
    return result
