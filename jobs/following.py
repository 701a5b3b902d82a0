"""A job's log and its end, followed from outside. The job neither knows nor needs its follower."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from threading import Thread
from typing import TypeVar

import aiohttp
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.errors import StoreError

T = TypeVar("T")

INTERRUPTED = 130
POLL_S = 1.0
SILENT_S = 300.0  # a head that restarts is back by then
ANSWER_S = 30.0
QUIET_S = 30.0  # without a word in the log, until the job's status is asked for
END_S = 10.0  # for the last words of a job that has ended


class LostJobError(StoreError):
    """The cluster does not know a job that it has, or had, taken."""


@dataclass
class _Log:
    """What has been copied of a job's log over all connections. shown: characters. heard_at: when the cluster last said
    anything; quiet_since: when the log, or a new connection to it, last did."""

    shown: int = 0
    heard_at: float = field(default_factory=time.monotonic)
    quiet_since: float = 0.0


def follow(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Copies the job's log to standard error until the job has ended, through interruptions of the connection.

    Raises LostJobError as soon as the cluster does not know the job, StoreError when it says nothing for SILENT_S.
    """
    log = _Log()
    with _loop() as loop:
        while True:
            try:
                job = _status(client, job_id, log)
                _copy(client, job_id, log, loop)
                if job.status.is_terminal():
                    return job
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                if time.monotonic() - log.heard_at > SILENT_S:
                    raise StoreError(f"the cluster has not answered for {SILENT_S:g} s ({error})") from error
            time.sleep(POLL_S)


def exists(client: JobSubmissionClient, job_id: str) -> bool:
    """Whether the cluster knows the job; taken for granted while it does not answer: `follow` has the patience."""
    try:
        _details(client, job_id)
    except LostJobError:
        return False
    except (OSError, RuntimeError):
        return True
    return True


def answer(call: Callable[[], T]) -> T:
    """What `call` returns or raises; Ray's client would wait for it without end.

    Raises TimeoutError: behind a tunnel or a proxy that takes connections there may be nobody.
    """
    answered: Future[T] = Future()

    def ask() -> None:
        try:
            answered.set_result(call())
        except BaseException as error:
            answered.set_exception(error)

    Thread(target=ask, name="dashboard", daemon=True).start()
    if not wait([answered], timeout=ANSWER_S).done:
        raise TimeoutError(f"it takes connections and has not answered in {ANSWER_S:g} s")
    return answered.result()


@contextlib.contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Runs in a thread. In the main one asyncio would turn Ctrl-C into a cancellation, which can get lost on its way
    through the connection; so it interrupts the waiting there, always."""
    loop = asyncio.new_event_loop()

    def run() -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    Thread(target=run, name="job log", daemon=True).start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(
            loop.call_later, POLL_S, loop.stop
        )  # a connection that was given up is closed by then


def _status(client: JobSubmissionClient, job_id: str, log: _Log) -> JobDetails:
    job = _details(client, job_id)
    log.heard_at = time.monotonic()
    return job


def _details(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Raises LostJobError for a job that the cluster does not know, which Ray only tells by its words."""
    try:
        return answer(lambda: client.get_job_info(job_id))
    except RuntimeError as error:
        if f"Job {job_id} does not exist" not in str(error):
            raise
        raise LostJobError(
            f"the cluster has lost job {job_id} (its head was started anew): submit the same command again to resume"
        ) from None


def _copy(client: JobSubmissionClient, job_id: str, log: _Log, loop: asyncio.AbstractEventLoop) -> None:
    """Copies what is new until the log ends. A connection that has lost its other end says nothing, like a job that is
    busy: so this also returns when the job has ended without the log's end, or after SILENT_S without a word, and the
    next connection tells the rest."""
    log.quiet_since = time.monotonic()
    copied = asyncio.run_coroutine_threadsafe(_copy_log(client, job_id, log), loop)
    try:
        while not wait([copied], timeout=QUIET_S).done:
            if time.monotonic() - log.quiet_since < QUIET_S:
                continue
            if _status(client, job_id, log).status.is_terminal():
                wait([copied], timeout=END_S)
                break
            if time.monotonic() - log.quiet_since > SILENT_S:
                break
        if copied.done():
            copied.result()
    finally:
        copied.cancel()


async def _copy_log(client: JobSubmissionClient, job_id: str, log: _Log) -> None:
    """Writes what comes after the first `log.shown` characters, until the log ends."""
    at = 0
    async for text in client.tail_job_logs(job_id):
        sys.stderr.write(text[max(0, log.shown - at) :])
        sys.stderr.flush()
        at += len(text)
        log.shown = max(log.shown, at)
        log.heard_at = log.quiet_since = time.monotonic()


def exit_code(job: JobDetails) -> int:
    """What an ended job's own process ended with. A job that was stopped counts as interrupted.

    Raises StoreError for a job that the cluster lost before it could end.
    """
    if job.status == JobStatus.STOPPED:
        return INTERRUPTED
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.driver_exit_code is None:
        reason = (job.message or "no reason given").strip().splitlines()[0]
        raise StoreError(f"the cluster lost job {job.submission_id}: {reason}; submit the same command again to resume")
    code: int = job.driver_exit_code
    return code if code >= 0 else 128 - code  # killed by a signal; as a shell says it
