"""A follower ends with what the job ended with, also when nothing or a signal ended it, or when nobody answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from aiohttp import web
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from jobs import following
from jobs.following import exit_code, follow
from jobs.submit import submit_command
from pipeline.errors import StoreError, UsageError


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


class Dashboard:
    """The part of Ray's job API that a follower needs, as a real server. When silent it does as a lost machine does: it
    keeps all connections and says nothing.

    logs: what happens on each connection to the log, on the last one for all that follow: words, seconds of waiting, a
    new status of the job, BREAK, SILENCE of the whole server, FORGET (like a head that was started anew),
    END of the log. Without the last the connection stays.
    """

    BREAK, SILENCE, FORGET, END = object(), object(), object(), object()

    def __init__(self, *logs: list[object], status: JobStatus = JobStatus.RUNNING) -> None:
        self.status = status
        self.is_silent = self.has_forgotten = False
        self.connections = 0
        self._logs = logs

    @contextmanager
    def serving(self) -> Iterator[JobSubmissionClient]:
        started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def serve() -> None:
            app = web.Application()
            app.router.add_get("/api/version", self._version)
            app.router.add_get("/api/jobs/{job}", self._info)
            app.router.add_get("/api/jobs/{job}/logs/tail", self._tail)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            ended = asyncio.Event()
            started.set_result((runner.addresses[0][1], asyncio.get_running_loop(), ended))
            await ended.wait()
            await runner.cleanup()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        port, loop, ended = started.result(30)
        try:
            yield JobSubmissionClient(f"http://127.0.0.1:{port}")
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})

    async def _info(self, request: web.Request) -> web.Response:
        while self.is_silent:
            await asyncio.sleep(0.05)
        if self.has_forgotten:  # in the words of Ray's own dashboard
            return web.Response(text=f"Job {request.match_info['job']} does not exist", status=404)
        return web.json_response(vars(job(self.status, None)) | {"type": "SUBMISSION", "status": self.status.value})

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        events = self._logs[min(self.connections, len(self._logs) - 1)]
        self.connections += 1
        for event in events:
            if isinstance(event, JobStatus):
                self.status = event
            elif isinstance(event, str):
                await socket.send_str(event)
            elif isinstance(event, float):
                await asyncio.sleep(event)
            elif event is self.SILENCE:
                self.is_silent = True
            elif event is self.FORGET:
                self.has_forgotten = True
            elif event is self.END:
                await socket.close()
                return socket
            elif event is self.BREAK:
                assert request.transport
                request.transport.abort()
                return socket
        while True:
            await asyncio.sleep(0.05)


def followed(dashboard: Dashboard, *, seconds: float = 60.0) -> JobDetails | BaseException:
    """What `follow` came to; fails the test if that takes longer."""
    ended: list[JobDetails | BaseException] = []

    def work(client: JobSubmissionClient) -> None:
        try:
            ended.append(follow(client, "run-1"))
        except BaseException as error:
            ended.append(error)

    with dashboard.serving() as client:
        thread = threading.Thread(target=work, args=(client,), daemon=True)
        thread.start()
        thread.join(seconds)
        assert ended, "still following"
    return ended[0]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"POLL_S": 0.05, "QUIET_S": 0.3, "END_S": 2.0, "ANSWER_S": 1.0, "SILENT_S": 2.0}.items():
        monkeypatch.setattr(following, name, seconds)


@pytest.mark.usefixtures("hurried")
def test_a_log_that_lost_its_other_end_does_not_outlive_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway has forgotten the connection: nothing more comes of it, neither words nor an end."""
    ended = followed(Dashboard(["one\n", 0.5, JobStatus.SUCCEEDED], ["one\ntwo\n", Dashboard.END]))
    assert isinstance(ended, JobDetails), ended
    assert ended.status == JobStatus.SUCCEEDED
    assert capsys.readouterr().err == "one\ntwo\n"


@pytest.mark.usefixtures("hurried")
def test_an_ended_job_whose_log_never_ends_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    ended = followed(Dashboard(["one\n"], status=JobStatus.FAILED))
    assert isinstance(ended, JobDetails), ended
    assert ended.status == JobStatus.FAILED
    assert capsys.readouterr().err == "one\n"


@pytest.mark.usefixtures("hurried")
def test_a_cluster_that_keeps_the_connections_and_says_nothing_is_given_up() -> None:
    ended = followed(Dashboard(["one\n", Dashboard.SILENCE]))
    assert isinstance(ended, StoreError), ended
    assert "has not answered for 2 s (it takes connections" in str(ended)


@pytest.mark.usefixtures("hurried")
def test_a_log_that_breaks_late_is_taken_up_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """Late: after more than the patience, which counts from the last word and not from the first."""
    rest = ["one\ntwo\n", "three\n", JobStatus.SUCCEEDED, Dashboard.END]
    ended = followed(Dashboard(["one\n", 1.5, "two\n", 1.5, Dashboard.BREAK], rest))
    assert isinstance(ended, JobDetails), ended
    assert capsys.readouterr().err == "one\ntwo\nthree\n"


@pytest.mark.usefixtures("hurried")
def test_a_job_that_is_long_silent_is_followed_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody knows whether it is the job or the connection that is silent, so now and then there is a new one."""
    dashboard = Dashboard(["one\n"], ["one\n"], ["one\ntwo\n", JobStatus.SUCCEEDED, Dashboard.END])
    ended = followed(dashboard)
    assert isinstance(ended, JobDetails), ended
    assert dashboard.connections >= 3
    assert capsys.readouterr().err == "one\ntwo\n"


LOST = "the cluster has lost job run-1 (its head was started anew): submit the same command again to resume"


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("then", [[Dashboard.BREAK], []])
def test_a_job_that_the_cluster_has_forgotten_is_lost_and_the_cluster_is_not_silent(then: list[object]) -> None:
    """Whether the connection to the log broke with the old head, or nobody told."""
    ended = followed(Dashboard(["one\n", Dashboard.FORGET, *then]))
    assert isinstance(ended, StoreError), ended
    assert (str(ended), ended.exit_code) == (LOST, 5)


@pytest.mark.usefixtures("hurried")
def test_a_lost_job_is_nothing_to_come_back_to() -> None:
    dashboard = Dashboard(["one\n", Dashboard.FORGET, Dashboard.BREAK])
    with dashboard.serving() as client, pytest.raises(StoreError) as caught:
        submit_command.main(["--address", client.get_address(), "--follow", "run-1"], standalone_mode=False)
    assert str(caught.value) == LOST


@pytest.mark.usefixtures("hurried")
def test_a_job_that_the_cluster_never_had_is_a_mistake_in_the_command() -> None:
    dashboard = Dashboard()
    dashboard.has_forgotten = True
    told = r"--follow run-1: the cluster at http://.* has no such job"
    with dashboard.serving() as client, pytest.raises(UsageError, match=told):
        submit_command.main(["--address", client.get_address(), "--follow", "run-1"], standalone_mode=False)
