"""A job's log and its end, followed from outside. The job neither knows nor needs its follower."""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import Future
from threading import Thread

import aiohttp
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.errors import StoreError

INTERRUPTED = 130
POLL_S = 1.0
SILENT_S = 300.0  # a head that restarts is back by then


def follow(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Copies the job's log to standard error until the job has ended, through interruptions of the connection.

    Raises StoreError when the cluster says nothing for SILENT_S.
    """
    shown = 0
    heard_at = time.monotonic()
    while True:
        try:
            job = client.get_job_info(job_id)
            shown = _copied(client, job_id, shown)
            heard_at = time.monotonic()
            if job.status.is_terminal():
                return job
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            if time.monotonic() - heard_at > SILENT_S:
                raise StoreError(f"the cluster has not answered for {SILENT_S:g} s ({error})") from error
        time.sleep(POLL_S)


def _copied(client: JobSubmissionClient, job_id: str, shown: int) -> int:
    """`_copy_log` in a thread. In the main one asyncio would turn Ctrl-C into a cancellation, which can get lost on its
    way through the connection; so it interrupts the waiting here, always."""
    copied: Future[int] = Future()

    def copy() -> None:
        try:
            copied.set_result(asyncio.run(_copy_log(client, job_id, shown)))
        except BaseException as error:
            copied.set_exception(error)

    Thread(target=copy, name="job log", daemon=True).start()
    return copied.result()


async def _copy_log(client: JobSubmissionClient, job_id: str, shown: int) -> int:
    """Writes what comes after the first `shown` characters, until the job ends. Returns how many there are now."""
    at = 0
    async for text in client.tail_job_logs(job_id):
        sys.stderr.write(text[max(0, shown - at) :])
        sys.stderr.flush()
        at += len(text)
        shown = max(shown, at)
    return shown


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
