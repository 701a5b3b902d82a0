"""The end of a command whose Ray has lost its head.

Ray's own code ends a process whose GCS stays away: `_exit(1)` from native code, without a word. Nothing in Python can
hinder that, so this comes before it, with the line and the exit code of a cluster that failed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from pipeline.errors import StoreError
from pipeline.terminal import error_line

INTERVAL_S = 5.0
#: Ray's own patience with a GCS, and the variable that changes it; clusters whose GCS is started again have more.
RAY_PATIENCE_S, RAY_PATIENCE = 60.0, "RAY_gcs_rpc_server_reconnect_timeout_s"


@contextlib.contextmanager
def head_watched(address: str) -> Iterator[None]:
    """Ends this process inside when the GCS at `address` stays away for half of the time that Ray would wait."""
    patience_s = float(os.environ.get(RAY_PATIENCE, RAY_PATIENCE_S)) / 2
    ended = threading.Event()

    def watch() -> None:
        if is_gone(lambda: _takes_connections(address), patience_s, ended):
            _leave(StoreError(f"Ray's head at {address} is gone for {patience_s:g} s; run the same command again"))

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def is_gone(answers: Callable[[], bool], patience_s: float, ended: threading.Event) -> bool:
    """Waits until `answers`, asked at most every few seconds, has said no so often in a row that it took `patience_s`.
    False once `ended` is set.

    Only questions count and no clock does: a process that was asleep has asked nothing meanwhile.
    """
    failures = 0
    while not ended.is_set():
        asked = time.monotonic()
        failures = 0 if answers() else failures + 1
        if failures * INTERVAL_S >= patience_s:
            return not ended.is_set()
        ended.wait(INTERVAL_S - (time.monotonic() - asked))
    return False


def _takes_connections(address: str) -> bool:
    """It is the kernel that takes them: a GCS that is only busy takes them too, as one that Ray has patience with."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=INTERVAL_S).close()
    except OSError:
        return False
    return True


def _leave(error: StoreError) -> None:
    """As the command line ends with this error, past a main thread that may wait inside Ray for ever."""
    line = error_line(error) + "\n"
    if os.isatty(2):
        line = "\n\x1b[?25h" + line  # a progress bar has the line, and has hidden the cursor
    with contextlib.suppress(OSError):
        os.write(2, line.encode())  # not sys.stderr, whose lock a thread that writes may hold
    os._exit(error.exit_code)
