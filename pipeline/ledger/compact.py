"""Many small files of a dataset become few large ones. The rows stay as they are; each step is one entry of the log.

A kill between two steps leaves a dataset that is whole: an entry has either replaced its files or not, and the next
start completes its publication. While an entry is published, a plain glob may miss rows for a moment, never see them
twice; `query` always sees all.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow.parquet as pq

from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.live import read_sound
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import commit_entry, publish_missing
from pipeline.ledger.rows_file import RowsFile
from pipeline.ledger.runs import STALE_AFTER_S, Run, refuse_while_at_work
from pipeline.ledger.staging import ERRORS_SUFFIX, to_commit
from pipeline.ledger.state import LogState
from pipeline.ledger.sweep import sweep
from pipeline.storage.store import Store

TARGET_BYTES = 256 << 20


@dataclass(kw_only=True)
class Compaction:
    """Live files and their bytes before and after."""

    files_before: int
    bytes_before: int
    files_after: int = 0
    bytes_after: int = 0


def compact(
    store: Store,
    *,
    target_bytes: int = TARGET_BYTES,
    stale_after_s: float = STALE_AFTER_S,
    wait: Callable[[str], bool] | None = None,
) -> Compaction:
    """Merges files that are smaller than half of `target_bytes`, table by table and model by model, oldest first.

    wait: as `refuse_while_at_work` takes it. Memory: one of them and a row group. Raises UsageError while another run
    is at work, StoreError if the store fails.
    """
    log = CommitLog(store)
    with Run.create(store, stale_after_s=stale_after_s) as run:  # before it looks: of two commands one sees the other
        log.refresh(write_checkpoints=True)
        refuse_while_at_work(store, log.state, stale_after_s, "compact", but=run.run_id, wait=wait)
        log.refresh(write_checkpoints=True)  # of a run that ended while it was waited for
        files = log.state.files()
        result = Compaction(files_before=len(files), bytes_before=sum(file.bytes for file in files))
        publish_missing(store, log)
        sweep(store, log, run)
        for group in list(_groups(log.state, target_bytes)):
            merged = _merge(store, run, group)

            def build(
                state: LogState, group: list[CommittedFile] = group, merged: CommittedFile = merged
            ) -> Entry | None:
                if any(file.path not in state.live for file in group):
                    return None  # somebody replaced one of them meanwhile: leave it at that
                return Entry(run_id=run.run_id, remove=[file.path for file in group], add=[merged])

            commit_entry(store, log, build)
        files = log.state.files()
        result.files_after, result.bytes_after = len(files), sum(file.bytes for file in files)
        run.save_summary({"status": "compacted", **asdict(result)})
    return result


def _groups(state: LogState, target_bytes: int) -> Iterator[list[CommittedFile]]:
    """Runs of small files that fit into one of `target_bytes` together, at least two each."""
    kinds: dict[tuple[str, str, bool], list[CommittedFile]] = {}
    for file in state.files():
        if file.bytes < target_bytes / 2:
            kinds.setdefault((file.table, file.model_id, file.path.endswith(ERRORS_SUFFIX)), []).append(file)
    for files in kinds.values():
        group: list[CommittedFile] = []
        size = 0
        for file in files:
            if group and size + file.bytes > target_bytes:
                if len(group) > 1:
                    yield group
                group, size = [], 0
            group.append(file)
            size += file.bytes
        if len(group) > 1:
            yield group


def _merge(store: Store, run: Run, group: Sequence[CommittedFile]) -> CommittedFile:
    first = group[0]
    with RowsFile(store, run.run_id, first.table, may_be_empty=True) as output:
        for file in group:
            parquet = pq.ParquetFile(io.BytesIO(read_sound(store, file)))
            for number in range(parquet.num_row_groups):
                output.add(parquet.read_row_group(number))
        (staged,) = output.finish()
    only_errors = first.path.endswith(ERRORS_SUFFIX)
    return to_commit(staged, run_id=run.run_id, model_id=first.model_id, only_errors=only_errors)
