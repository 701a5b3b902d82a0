"""The actor's side of the decode child: start it, hand it segments, kill it when it hangs, start another."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import ErrorCode, MediaError, StartError, StoreError
from pipeline.extraction import ExtractedSegment, StoredDetections
from pipeline.media.locations import local_path
from pipeline.media.sniff import suffix
from pipeline.media.sources import Source
from pipeline.segments import Segment
from pipeline.worker import WorkerConfig

T = TypeVar("T")

DEADLINE = "--deadline-s"
START_DEADLINE_S = 180.0  # imports and detector weights, on a machine under load
SLOW_DISK_BYTES_PER_S = 20_000_000
STDERR_TAIL_BYTES = 2000
EXIT_DEADLINE_S = 10.0  # between closing its pipe, or being killed, and being gone
#: What C++, Python, OpenCV and onnxruntime say last when they get no memory.
NO_MEMORY = ("bad_alloc", "MemoryError", "Insufficient memory", "Failed to allocate memory")


class Patience(NamedTuple):
    """How long an answer may take, and the option that changes it, if one does."""

    seconds: float
    option: str = ""


class DeathError(MediaError):
    """The child is gone, or must be: it crashed, was killed, or ran out of memory."""


class AbandonedError(Exception):
    """Nobody wants to know any more; it says nothing of the source."""


class DecodeChild:
    """One killable decode process. Not thread-safe but for `abandon`; one per actor.

    deadline_s: from the moment a segment's bytes are local until its faces are back; a large file may first be read
    from a slow disk.
    fetch_deadline_s: until its bytes are local, or reached in a tar.gz. warm: start at once, with the detector
    loaded, so that the first segment does not pay for it.
    """

    def __init__(
        self, config: WorkerConfig, *, deadline_s: float = 300.0, fetch_deadline_s: float = 3600.0, warm: bool = False
    ) -> None:
        self._config = config
        self._deadline_s = deadline_s
        self._fetch_deadline_s = fetch_deadline_s
        self._warm = warm
        self._process: subprocess.Popen[bytes] | None = None
        self._is_abandoned = False
        self._launching = threading.Lock()
        if warm:
            self._start()

    def extract(self, segment: Segment, stored: StoredDetections | None = None) -> tuple[ExtractedSegment, bytearray]:
        """The segment's faces and their aligned pixels, N·S·S·3. Whatever the decoder does, it comes back as a row.

        stored: faces that were found before; then nothing is detected.
        Raises StoreError when a remote source can't be had because its whole store is silent, and StartError.
        """
        try:
            return self._twice(lambda: self._extract(segment, stored))
        except MediaError as error:
            result = ExtractedSegment(segment_id=segment.segment_id)
            result.fail(error, partial=False)
            return result, bytearray()

    def probe(self, source: Source) -> dict[str, Any]:
        """The source's row of the `sources` table, without run columns. A header that hangs or kills is an error.

        Raises StoreError and StartError as `extract` does.
        """
        try:
            return self._twice(lambda: self._probe(source))
        except MediaError as error:
            from pipeline.media.probe import failed_probe  # loads FFmpeg, which actors don't need otherwise

            return failed_probe(source, error)

    def abandon(self) -> None:
        """From any thread: what is asked now, and all that follows, ends with AbandonedError instead of an answer."""
        with self._launching:  # so that no process is overlooked that is just being started
            self._is_abandoned = True
            process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        """Kills the child, if there is one. It is waited for a while only: it can't die while its disk is silent."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_DEADLINE_S)
            self._pipe.close()
            self._stderr.close()
            self._process = None

    def _twice(self, ask: Callable[[], T]) -> T:
        """`ask`; once more, in a fresh process, if its own died: it may have been killed from outside, or have died of
        what an earlier file left behind. A process that hangs is killed, and its file gets no second deadline."""
        try:
            return ask()
        except DeathError:
            return ask()

    def _extract(self, segment: Segment, stored: StoredDetections | None) -> tuple[ExtractedSegment, bytearray]:
        with self._asked((segment, stored)):
            self._receive("started", within=self._patience(segment))
            end = time.monotonic() + self._deadline_s
            pixels = bytearray()
            while True:
                kind, payload = self._receive("faces", "done", within=Patience(self._deadline_s, DEADLINE), end=end)
                if kind == "done":
                    return payload, pixels
                pixels += payload

    def _probe(self, source: Source) -> dict[str, Any]:
        with self._asked(source):
            row: dict[str, Any] = self._receive("done", within=self._patience(source))[1]
            return row

    @contextlib.contextmanager
    def _asked(self, request: Source | tuple[Segment, StoredDetections | None]) -> Iterator[None]:
        """Sends a request; a child that failed it does not live on."""
        self._ensure_started()
        try:
            self._send(request)
            yield
        except MediaError:
            self.stop()
            raise

    def _patience(self, source: Segment | Source) -> Patience:
        is_at_hand = local_path(source.location) is not None and suffix(source.location) != ".tgz"
        if not is_at_hand:
            return Patience(self._fetch_deadline_s)
        # a video's packets are all looked at
        return Patience(self._deadline_s + source.size_bytes // SLOW_DISK_BYTES_PER_S, DEADLINE)

    def _ensure_started(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()

    def _start(self) -> None:
        """Raises StartError if the process does not come up, not even at the second attempt when the first died."""
        told, node = "the decode process did not start", socket.gethostname()
        try:
            try:
                self._launch()
            except DeathError:
                self._launch()
        except MediaError as error:
            if error.code == ErrorCode.TIMEOUT:
                why = f"within {START_DEADLINE_S:g} s on {node}, which may have too much to do"
                raise StartError(f"{told} {why}") from None
            raise StartError(f"{told} on {node}: {error.message}") from None
        except OSError as error:  # no process, pipe or file to be had
            raise StartError(f"{told} on {node}: {error}") from None

    def _launch(self) -> None:
        self.stop()
        with self._launching:
            if self._is_abandoned:
                raise AbandonedError
            self._process = self._spawn()
        try:
            self._send((self._config, self._warm))
            self._receive("ready", within=Patience(START_DEADLINE_S))
        except MediaError:
            self.stop()
            raise

    def _spawn(self) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._pipe = Connection(ours.detach())
        command = [sys.executable, "-m", "pipeline.worker", str(theirs.fileno())]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[variable] = str(self._config.threads)
        with theirs:
            return subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                env=environment,
            )

    def _send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._death() from None

    def _receive(self, *expected: str, within: Patience, end: float | None = None) -> tuple[str, Any]:
        """The next message, whose kind must be one of `expected`. end: when the time is over, if it runs already."""
        left_s = within.seconds if end is None else max(0.0, end - time.monotonic())
        if not self._pipe.poll(left_s):
            see = f" (see {within.option})" if within.option else ""
            raise MediaError(
                ErrorCode.TIMEOUT, f"no answer from the decoder within {within.seconds:g} s{see}; it was killed"
            )
        try:
            kind, payload = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if kind == "out_of_memory":
            raise self._out_of_memory()
        if kind == "store_failed":
            raise StoreError(payload)
        assert kind in expected, f"the decode process said {kind} instead of {' or '.join(expected)}"
        return kind, payload

    def _death(self) -> DeathError:
        """What the process died of. Raises AbandonedError if it may have been by `abandon`."""
        assert self._process is not None
        if self._is_abandoned:
            raise AbandonedError
        try:
            code = self._process.wait(EXIT_DEADLINE_S)
        except subprocess.TimeoutExpired:  # it closed the pipe and lives on
            return DeathError(ErrorCode.DECODER_CRASH, "the decode process fell silent; it was killed")
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - STDERR_TAIL_BYTES))
        tail = self._stderr.read().decode(errors="replace").strip()
        if any(words in tail for words in NO_MEMORY):
            return self._out_of_memory()
        if code == 1 and "Traceback" in tail:
            return DeathError(ErrorCode.INTERNAL, f"the decode process failed: {tail.splitlines()[-1]}")
        if code == -signal.SIGKILL:
            return DeathError(
                ErrorCode.OUT_OF_MEMORY, "the decode process was killed, as the system does when memory runs out"
            )
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last = tail.splitlines()[-1] if tail else "it printed nothing"
        return DeathError(ErrorCode.DECODER_CRASH, f"the decode process died ({how}): {last}")

    def _out_of_memory(self) -> DeathError:
        limit = self._config.memory_limit_bytes / 2**30
        return DeathError(
            ErrorCode.OUT_OF_MEMORY, f"decoding needed more than its {limit:.1f} GiB; see --decode-memory"
        )
