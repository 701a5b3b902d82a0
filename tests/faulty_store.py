"""A Store in which something happens at the nth operation: the driver dies, the network fails, somebody else acts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from pipeline.storage.store import Store


class Died(BaseException):
    """The process is gone; nothing catches it."""


class FaultyStore(Store):
    """Counts attempts. `at(n, …)` arms one fault; `changed` is called after every attempt that changed something."""

    def __init__(self, url: str) -> None:
        super().__init__(url, attempts=3, backoff_s=0.0)
        self.count = 0
        self.changed: Callable[[], None] = lambda: None
        self._faults: dict[tuple[int, str], Callable[[], None]] = {}

    def at(self, number: int, when: str, act: Callable[[], None]) -> None:
        """Does `act` `when` ("before" or "after") the number-th attempt from now."""
        self._faults[(self.count + number, when)] = act

    def disarm(self) -> None:
        """Forgets what has not happened yet."""
        self._faults = {}

    def _attempt(self, operation: str, path: str, act: Callable[[], Any]) -> Any:
        self.count += 1
        number = self.count
        self._faults.pop((number, "before"), lambda: None)()
        result = act()
        if operation in ("publish", "delete", "put_if_absent", "write", "upload"):
            self.changed()
        self._faults.pop((number, "after"), lambda: None)()
        return result


def die() -> None:
    """kill -9, as far as one process can play it."""
    raise Died


def lose_connection() -> None:
    """A transient error; after a successful attempt, a lost answer."""
    raise ConnectionResetError("connection reset by peer")


def memory_url() -> str:
    """A fresh folder of fsspec's in-memory file system, which copies and deletes like an object store."""
    return f"memory://{uuid.uuid4().hex}"


def every_act(store: Store) -> list[Callable[[], object]]:
    """What meets a place that can't hold a dataset: probing, reading, looking, listing, writing."""
    return [
        store.probe,
        lambda: store.read_bytes("dataset.json"),
        lambda: store.exists("dataset.json"),
        lambda: store.list("_ran/log"),
        lambda: store.write_bytes("_ran/log/0", b""),
        lambda: store.put_if_absent("_ran/log/0", b""),
    ]
