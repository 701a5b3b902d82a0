"""A network between us and an S3 server that fails: answers 503, drops connections before or after the server acted,
cuts answers short, keeps silent, or does not delete what it was asked to. A real HTTP proxy on a real socket; what it
breaks is chosen by a seed or by a rule.
"""

from __future__ import annotations

import itertools
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: What may happen to a request; None: nothing. Rules may also choose what no network does: "not deleted", of a
#: deletion of many objects; "condition ignored", of a conditional put.
FAULTS = ("503", "drop before", "drop after", "cut", "silence")
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
SILENCE_S = 3.0  # longer than the patience in `storage_options`
NOT_DELETED = "<Error><Key>{}</Key><Code>InternalError</Code><Message>Please try again.</Message></Error>"
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}

Rule = Callable[["Request"], str | None]


class Request:
    """A request as rules see it. headers: lower case."""

    def __init__(self, method: str, path: str, headers: dict[str, str]) -> None:
        self.method, self.path, self.headers = method, path, headers

    @property
    def is_conditional_put(self) -> bool:
        """A put that creates an object only if it is absent."""
        return self.method == "PUT" and self.headers.get("if-none-match") == "*"

    @property
    def is_deletion_of_many(self) -> bool:
        """One request that names several objects."""
        return self.method == "POST" and urlsplit(self.path).query.partition("=")[0] == "delete"


class FaultyProxy:
    """Forwards to `endpoint`. rule: names the fault of each request. fired: how often each kind happened."""

    def __init__(self, endpoint: str, rule: Rule = lambda request: None) -> None:
        self.rule = rule
        self.fired: Counter[str] = Counter()
        self.forwarded = 0
        self._target = urlsplit(endpoint).netloc
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def storage_options(self) -> dict[str, object]:
        """Of a client that loses patience soon, so that the tests need not wait for it."""
        quick = {"connect_timeout": 1, "read_timeout": 1, "retries": {"max_attempts": 1}}
        return {"endpoint": self.url, "key": "test", "secret": "test", "config_kwargs": quick}

    @property
    def faults(self) -> int:
        return sum(self.fired.values())

    def decide(self, request: Request) -> str | None:
        with self._lock:
            fault = self.rule(request)
            self.forwarded += fault is None
            if fault is not None:
                self.fired[fault] += 1
            return fault

    def forward(self, request: Request, body: bytes) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(self._target, timeout=60)
        try:
            connection.request(request.method, request.path, body or None, request.headers)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def between(endpoint: str, rule: Rule = lambda request: None) -> Iterator[FaultyProxy]:
    """A running proxy before `endpoint`."""
    proxy = FaultyProxy(endpoint, rule)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def at_random(seed: int, share: float, *, kinds: tuple[str, ...] = FAULTS) -> Rule:
    """Breaks that share of all requests, and the third in any case, each in one of the ways; the same seed makes the
    same choices in the same order."""
    choices, number = random.Random(seed), itertools.count(1)

    def rule(request: Request) -> str | None:
        broken = choices.random() < share
        return choices.choice(kinds) if next(number) == 3 or broken else None

    return rule


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultyProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that went away are what this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_any(self) -> None:
        body = self._body()
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        proxy = self.server.proxy
        fault = proxy.decide(request)
        if fault == "503":
            self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
            return
        if fault == "drop before":
            self._drop()
            return
        if fault == "not deleted":  # the answer is a 200 all the same
            told = "".join(map(NOT_DELETED.format, re.findall(r"<Key>(.*?)</Key>", body.decode())))
            answer = f"<?xml version='1.0'?><DeleteResult>{told}</DeleteResult>"
            self._answer(200, {"Content-Type": "application/xml"}, answer.encode())
            return
        if fault == "condition ignored":
            del request.headers["if-none-match"]
        response, forwarded = proxy.forward(request, body)
        if fault == "drop after":
            self._drop()
            return
        if fault == "silence":
            time.sleep(SILENCE_S)
            self._drop()
            return
        headers = {name: value for name, value in response.getheaders() if name.lower() not in HOP}
        if request.method == "HEAD":
            headers["Content-Length"] = response.headers.get("Content-Length", "0")
        self._answer(response.status, headers, forwarded, cut=fault == "cut")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do_any

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
