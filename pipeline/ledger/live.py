"""Live files for readers that go by the log: a file that is committed but not public yet is read where it is staged."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DamageError
from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store

T = TypeVar("T")

_READERS = 16  # files fetched at once; an object store answers in tens of milliseconds

#: What Arrow raises about content that is damaged. An error of the store, which comes through Arrow as it is, is none.
UNREADABLE = (OSError, ValueError, LookupError, pa.ArrowException)


def live_paths(store: Store, state: LogState, table: str, model_id: str | None = None) -> list[str]:
    """Paths where the live files of a table lie now, oldest first; of one model if given."""
    files = state.files(table, model_id)
    if not files:
        return []
    public = set(store.list(table))
    return [
        file.staged if file.path not in public and store.exists(file.staged) else file.path  # published while we looked
        for file in files
    ]


def read_each(files: Iterable[CommittedFile], read: Callable[[CommittedFile], T]) -> list[T]:
    """What `read` gives for each file, in their order; several are fetched at once."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, files))


def read_in_turn(
    files: Iterable[CommittedFile], read: Callable[[CommittedFile], T], *, ahead_bytes: int | None = None
) -> Iterator[T]:
    """As `read_each`, one after the other, for what does not fit into memory together.

    ahead_bytes: how large the files may be together that are in hand at once, if there is more than one of them.
    """
    in_hand: deque[tuple[int, Future[T]]] = deque()
    with ThreadPoolExecutor(_READERS) as pool:
        for file in files:
            while in_hand and (len(in_hand) == _READERS or _is_over(ahead_bytes, in_hand, file)):
                yield in_hand.popleft()[1].result()
            in_hand.append((file.bytes, pool.submit(read, file)))
        while in_hand:
            yield in_hand.popleft()[1].result()


def _is_over(most_bytes: int | None, in_hand: Iterable[tuple[int, object]], file: CommittedFile) -> bool:
    return most_bytes is not None and sum(size for size, _ in in_hand) + file.bytes > most_bytes


def read_live(store: Store, file: CommittedFile) -> bytes:
    """The bytes of a live file, public yet or not, whatever became of them. Raises DamageError if it is gone, and
    another StoreError if the store fails."""
    return _where_it_is(store, file, store.read_bytes)


def read_sound(store: Store, file: CommittedFile) -> bytes:
    """The bytes of a live file as they were committed. Raises DamageError if it is gone or damaged, and
    another StoreError if the store fails.

    For everybody who decides by what is in it, or writes it again: under a new sha256 nobody would find the damage.
    """
    data = read_live(store, file)
    problem = difference(file, data)
    if problem is not None:
        raise _damaged(store, file.path, problem)
    return data


def sound_rows(store: Store, file: CommittedFile, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a live file, of these columns if given, as they were committed; errors as `read_sound`."""
    names = None if columns is None else list(columns)
    rows: pa.Table = pq.read_table(pa.BufferReader(read_sound(store, file)), columns=names)
    return rows


def read_live_columns(store: Store, file: CommittedFile, columns: Sequence[str]) -> pa.Table:
    """These columns of a live file, of which no others are fetched; errors as `read_sound`.

    Its size is looked at, its sha256 is not: what is to be written again has to come from `read_sound`.
    """

    def read(path: str) -> pa.Table:
        with _named_damage(store, file.path):
            ranges = store.open_ranges(path)
            if ranges.size != file.bytes:
                raise ValueError(f"{ranges.size} bytes; {file.bytes} were committed")
            return pq.ParquetFile(ranges, pre_buffer=True).read(list(columns)).select(list(columns))

    return _where_it_is(store, file, read)


def difference(file: CommittedFile, data: bytes) -> str | None:
    """What tells the bytes from those that were committed; None if they are the same."""
    if len(data) != file.bytes:
        return f"has {len(data)} bytes; {file.bytes} were committed"
    if hashlib.sha256(data).hexdigest() != file.sha256:
        return "is not what was committed: its sha256 differs"
    return None


@contextmanager
def _named_damage(store: Store, path: str) -> Iterator[None]:
    """What Arrow raises about a damaged file, under many names, becomes a DamageError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()
        raise _damaged(store, path, f"can't be read ({reason[0] if reason else type(error).__name__})") from error


def _damaged(store: Store, path: str, problem: str) -> DamageError:
    return DamageError(f"{store.url_of(path)} {problem}; `verify {store.url} --repair` mends the dataset")


def _where_it_is(store: Store, file: CommittedFile, read: Callable[[str], T]) -> T:
    for path in (file.path, file.staged, file.path):  # again: it may be published between the first two looks
        try:
            return read(path)
        except FileNotFoundError:
            continue
    raise DamageError(
        f"{store.url_of(file.path)} is gone: another run replaced it meanwhile (run again), or it was deleted by hand "
        f"(`verify {store.url} --repair`)"
    )
