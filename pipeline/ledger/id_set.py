"""Sets and numberings of fixed-width hex ids in a tenth of the memory of Python's own: 10 bytes for a segment id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_MOST_RECENT = 65_536


class IdSet:
    """Ids of `digits` lower-case hex digits. Most lie in a sorted array; recent additions in a small set beside it, and
    in another one those ids of the array that were removed recently. So many small changes cost what they name, and the
    array is made anew only now and then."""

    def __init__(self, digits: int) -> None:
        self.digits = digits
        self._sorted: NDArray[np.bytes_] = np.empty(0, f"S{digits // 2}")
        self._recent: set[bytes] = set()
        self._gone: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted) - len(self._gone) + len(self._recent)

    def __contains__(self, value: str) -> bool:
        return bool(self.contains([value])[0])

    def add(self, values: Iterable[str]) -> None:
        """Adds ids; those already there change nothing."""
        listed = list(values)
        if not listed:
            return
        packed = self._pack(listed)
        is_in_array = self._in_array(packed)
        self._recent.update(_items(packed[~is_in_array]))
        if self._gone:
            self._gone.difference_update(_items(packed[is_in_array]))
        self._settle_if_large()

    def remove(self, values: Iterable[str]) -> None:
        """Removes ids; those that are not there change nothing."""
        listed = list(values)
        if not listed:
            return
        packed = self._pack(listed)
        self._gone.update(_items(packed[self._in_array(packed)]))
        if self._recent:
            self._recent.difference_update(_items(packed))
        self._settle_if_large()

    def contains(self, values: Sequence[str] | pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Which of the ids are in the set, in their order."""
        packed = self._pack(values)
        found = self._in_array(packed)
        found &= ~_among(packed, self._gone)
        found |= _among(packed, self._recent)
        return found

    def common(self, values: Iterable[str]) -> set[str]:
        """Those of the ids that are in the set; many at once are looked up much faster than one by one."""
        listed = list(values)
        return {one for one, is_there in zip(listed, self.contains(listed).tolist(), strict=True) if is_there}

    def packed(self) -> pa.Array:
        """All ids, sorted, as an Arrow array of fixed-size binary (`digits` / 2 bytes each)."""
        self._settle()
        width = self.digits // 2
        buffers = [None, pa.py_buffer(np.ascontiguousarray(self._sorted))]
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(self._sorted), buffers)

    @classmethod
    def from_packed(cls, digits: int, packed: pa.Array) -> IdSet:
        """The set whose `packed` this is. Raises ValueError for an id of another length."""
        made = cls(digits)
        items = fixed_bytes(packed, digits // 2)
        made._sorted = items if bool(np.all(items[1:] > items[:-1])) else np.unique(items)
        return made

    def less(self, values: Sequence[str] | pa.Array | pa.ChunkedArray) -> list[str]:
        """The set's ids that are not among `values`, sorted."""
        self._settle()
        stays = np.ones(len(self._sorted), bool)
        found = _found(self._sorted, self._pack(values))
        stays[found[found >= 0]] = False
        return self._texts(self._sorted[stays])

    def count_beyond(self, *others: IdSet) -> int:
        """How many of the ids none of the other sets has."""
        self._settle()
        stays = np.ones(len(self._sorted), bool)
        for other in others:
            other._settle()
            stays &= ~other._in_array(self._sorted)
        return int(stays.sum())

    def __iter__(self) -> Iterator[str]:
        self._settle()
        return iter(self._texts(self._sorted))

    def _in_array(self, packed: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Which of the ids are in the sorted array, removed or not."""
        return _found(self._sorted, packed) >= 0

    def _texts(self, packed: NDArray[np.bytes_]) -> list[str]:
        return [item.ljust(self.digits // 2, b"\0").hex() for item in packed.tolist()]

    def _settle_if_large(self) -> None:
        if max(len(self._recent), len(self._gone)) > max(_MOST_RECENT, len(self._sorted) // 8):
            self._settle()

    def _settle(self) -> None:
        if self._gone:
            gone = np.array(list(self._gone), self._sorted.dtype)
            self._sorted = np.delete(self._sorted, _search(self._sorted, gone))
            self._gone = set()
        if self._recent:
            recent = np.array(list(self._recent), self._sorted.dtype)
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent = set()

    def _pack(self, values: Sequence[str] | pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
        return _packed(values, self.digits)


class WantedIds:
    """Ids of any kind that are looked for in one column after another: what a look needs of them is made once."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(ids)
        self._array = pa.array(list(self._ids), pa.string())

    def among(self, column: pa.ChunkedArray) -> frozenset[str]:
        """Those that the column has."""
        if len(column) > len(self._ids):  # each such look makes a table of all the ids, which takes less time then
            column = column.filter(pc.is_in(column, self._array))
        return self._ids.intersection(column.to_pylist())


class IdNumbers:
    """Which of several lists each id is in, the first if there are more. Lists are numbered as they come. Takes four
    bytes more for an id than `IdSet`."""

    def __init__(self, digits: int, lists: Iterable[pa.Array | pa.ChunkedArray] = ()) -> None:
        """lists: taken one by one. Raises ValueError for an id of another length."""
        self._digits = digits
        self._ids: NDArray[np.bytes_] = np.empty(0, f"S{digits // 2}")
        self._numbers: NDArray[np.int32] = np.empty(0, np.int32)
        self._added: list[NDArray[np.bytes_]] = []
        self._count = 0
        for one in lists:
            self.add(one)

    def add(self, ids: pa.Array | pa.ChunkedArray) -> None:
        """The next list. Raises ValueError for an id of another length."""
        self._added.append(_packed(ids, self._digits))

    def of(self, values: Sequence[str] | pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """The numbers of the lists that have any of the ids, ascending."""
        numbers = np.unique(self.each(values))
        return numbers[numbers >= 0]

    def each(self, values: Sequence[str] | pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """The number of each id's list, in their order; -1 for one that is in none."""
        self._settle()
        found = _found(self._ids, _packed(values, self._digits))
        numbers = np.full(len(found), -1, np.int32)
        numbers[found >= 0] = self._numbers[found[found >= 0]]
        return numbers

    def _settle(self) -> None:
        if self._added:
            ids = np.concatenate([self._ids, *self._added])
            numbers = np.arange(self._count, self._count + len(self._added), dtype=np.int32)
            numbers = np.concatenate([self._numbers, np.repeat(numbers, [len(one) for one in self._added])])
            self._count, self._added = self._count + len(self._added), []
            order = np.argsort(ids, kind="stable")
            self._ids, self._numbers = ids[order], numbers[order]


def _found(ordered: NDArray[np.bytes_], items: NDArray[np.bytes_]) -> NDArray[np.intp]:
    """Where each item is among the ordered ones, the first of several; -1 where it is not."""
    if not len(ordered):
        return np.full(len(items), -1, np.intp)
    at = _search(ordered, items)
    return np.where(ordered[np.minimum(at, len(ordered) - 1)] == items, at, -1)


def _search(ordered: NDArray[np.bytes_], items: NDArray[np.bytes_]) -> NDArray[np.intp]:
    """`np.searchsorted`, three to seven times as fast: neighbours among the ordered items of a large array share what
    the processor's cache holds."""
    width = items.dtype.itemsize
    heads = np.zeros((len(items), 8), np.uint8)
    heads[:, : min(width, 8)] = items.view(np.uint8).reshape(-1, width)[:, :8]
    order = np.argsort(heads.view(">u8").ravel().astype(np.uint64))
    at = np.empty(len(items), np.intp)
    at[order] = np.searchsorted(ordered, items[order])
    return at


def _packed(values: Sequence[str] | pa.Array | pa.ChunkedArray, digits: int) -> NDArray[np.bytes_]:
    """Hex ids as bytes. Raises ValueError for an id of another length or alphabet."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    texts = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    try:
        hexes = fixed_bytes(texts.cast(pa.binary()), digits)
        packed = bytes.fromhex(hexes.tobytes().decode("ascii"))
    except ValueError:
        packed = b""
    if len(packed) * 2 != digits * len(texts) or texts.null_count:
        wrong = next((text for text in texts.to_pylist() if not _is_id(text, digits)), None)
        raise ValueError(f"{wrong!r} is not an id of {digits} hex digits")
    return np.frombuffer(packed, f"S{digits // 2}")


def fixed_bytes(column: pa.Array, width: int) -> NDArray[np.bytes_]:
    """A binary Arrow array whose values are all `width` bytes long, as numpy. Raises ValueError for another length."""
    fixed = column.cast(pa.binary(width))
    if not len(fixed):
        return np.empty(0, f"S{width}")
    return np.frombuffer(fixed.buffers()[1], f"S{width}")[fixed.offset : fixed.offset + len(fixed)]


def _among(packed: NDArray[np.bytes_], items: set[bytes]) -> NDArray[np.bool_]:
    """Which of the ids are in the set."""
    if not items or not len(packed):
        return np.zeros(len(packed), bool)
    if len(packed) > len(items):
        return np.isin(packed, np.array(list(items), packed.dtype))
    return np.fromiter((item in items for item in _items(packed)), bool, len(packed))


def _items(packed: NDArray[np.bytes_]) -> list[bytes]:
    """numpy drops trailing zero bytes when it hands out items; within one set that is unambiguous."""
    items: list[bytes] = packed.tolist()
    return items


def _is_id(value: object, digits: int) -> bool:
    return isinstance(value, str) and len(value) == digits and not set(value) - set("0123456789abcdef")
