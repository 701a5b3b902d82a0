"""A server that says nothing: whoever reads from it hangs."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from pipeline.media.sources import Source

RELEASED_S = 30.0  # a test that is not let go of fails, instead of hanging as well


class SilentServer:
    """Takes connections and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(120)
        self._reader: socket.socket | None = None

    def source(self) -> Source:
        """A picture that it promises."""
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/silent.png"
        return Source(source_id="5" * 16, uri=url, location=url, fingerprint="9:1", size_bytes=9)

    def wait_for_reader(self) -> None:
        """Until somebody waits for an answer."""
        self._reader = self._listener.accept()[0]

    def close(self) -> None:
        """Its readers see it die."""
        self._listener.close()
        if self._reader is not None:
            self._reader.close()


@contextlib.contextmanager
def silent_server() -> Iterator[SilentServer]:
    """It dies at the end, or after RELEASED_S."""
    server = SilentServer()
    release = threading.Timer(RELEASED_S, server.close)
    release.start()
    try:
        yield server
    finally:
        release.cancel()
        server.close()
