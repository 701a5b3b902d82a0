"""A follower ends with what the job ended with, also when nothing or a signal ended it."""

from __future__ import annotations

import pytest
from ray.job_submission import JobDetails, JobStatus

from jobs.following import exit_code
from pipeline.errors import StoreError


def job(status: JobStatus, code: int | None, message: str | None = None) -> JobDetails:
    return JobDetails(
        type="SUBMISSION",
        entrypoint="ran-pipeline run",
        submission_id="run-1",
        status=status,
        driver_exit_code=code,
        message=message,
    )


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 3, 3),
        (JobStatus.FAILED, 130, 130),
        (JobStatus.FAILED, -9, 137),  # killed, for example for memory
        (JobStatus.STOPPED, None, 130),
    ],
)
def test_the_exit_code(status: JobStatus, code: int | None, expected: int) -> None:
    assert exit_code(job(status, code)) == expected


def test_a_job_that_the_cluster_lost_is_no_bug_and_no_success() -> None:
    with pytest.raises(StoreError, match=r"lost job run-1: the node died; submit") as caught:
        exit_code(job(JobStatus.FAILED, None, "the node died\nTraceback"))
    assert caught.value.exit_code == 5
