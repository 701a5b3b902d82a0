"""What must never be opened: files and a server that a playlist may name, and that notice a visit."""

from __future__ import annotations

import ctypes
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.hostile.originals import encoded, face_frame, saved

#: No other file of the corpus has this size, so a row with it comes from a canary.
WIDTH, HEIGHT = 208, 144
_IN_ACCESS, _IN_OPEN = 0x1, 0x20


class Canaries:
    """A folder with a video, a transport stream and a picture of a face, watched by inotify; the same stream at `url`.

    visits: what was opened or asked for since `watch`. Linux only.
    """

    def __init__(self, folder: Path) -> None:
        from PIL import Image

        self.folder = folder
        folder.mkdir(parents=True)
        self.video, self.stream, self.picture = folder / "canary.mov", folder / "canary.ts", folder / "canary.png"
        self.video.write_bytes(encoded(".mov", width=WIDTH, height=HEIGHT, picture=_face))
        self.stream.write_bytes(encoded(".ts", width=WIDTH, height=HEIGHT, picture=_face))
        self.picture.write_bytes(saved(Image.fromarray(_face(0)), "PNG"))
        (folder / "frame001.png").write_bytes(self.picture.read_bytes())
        self._requests: list[str] = []
        self._server = _serve(self.stream.read_bytes(), self._requests)
        self._inotify = -1

    @property
    def url(self) -> str:
        """Where the server has the stream, under any name."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/canary.ts"

    def watch(self) -> None:
        """Forgets earlier visits and notes those from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        if self._inotify >= 0:
            os.close(self._inotify)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK)
        watch = libc.inotify_add_watch(self._inotify, os.fsencode(self.folder), _IN_OPEN | _IN_ACCESS)
        assert self._inotify >= 0, os.strerror(ctypes.get_errno())
        assert watch >= 0, os.strerror(ctypes.get_errno())
        self._requests.clear()

    @property
    def visits(self) -> list[str]:
        """Names of files that were opened, and requests that came."""
        opened = []
        try:
            events = os.read(self._inotify, 1 << 20)
        except BlockingIOError:
            events = b""
        at = 0
        while at < len(events):  # struct inotify_event: wd, mask, cookie, len, name
            length = int.from_bytes(events[at + 12 : at + 16], "little")
            opened.append(events[at + 16 : at + 16 + length].rstrip(b"\0").decode() or str(self.folder))
            at += 16 + length
        return opened + self._requests

    def close(self) -> None:
        """Stops the server and the watch."""
        self._server.shutdown()
        self._server.server_close()
        if self._inotify >= 0:
            os.close(self._inotify)


def _face(index: int) -> object:
    return face_frame(index, WIDTH, HEIGHT)


def _serve(data: bytes, requests: list[str]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
