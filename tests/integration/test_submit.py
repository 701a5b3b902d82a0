"""`submit` against a real head with its dashboard, nodes that come when the job waits for them, and a dataset on a real
S3 server."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from ray.job_submission import JobSubmissionClient
from ray.util.state import list_actors

from jobs.following import LostJobError, follow
from pipeline.ledger.log import CommitLog
from pipeline.ledger.verify import verify
from pipeline.storage.store import Store
from tests.conftest import DEMO_MEDIA, ROOT, run_cli, run_cli_here
from tests.faults.holding import held
from tests.faults.processes import wait_for
from tests.faults.stand_in_decoders import HELD
from tests.ray_nodes import RayNodes, ray_head

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def cluster(s3_server: str) -> Iterator[RayNodes]:
    """Only its processes have the store's address and credentials."""
    with ray_head(AWS_ENDPOINT_URL=s3_server, **CREDENTIALS) as started:
        yield started


@pytest.fixture(scope="module")
def bucket(s3_server: str) -> str:
    name = f"out-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", endpoint_url=s3_server, key="test", secret="test").mkdir(name)
    return f"s3://{name}"


def test_a_job_outlives_its_follower_waits_for_nodes_and_uses_them(
    cluster: RayNodes, bucket: str, s3_server: str, tiny_model: Path
) -> None:
    out = f"{bucket}/lively"
    run = ["run", str(DEMO_MEDIA / "portrait.mp4"), "-o", out, "--model", str(tiny_model), "--segment-frames", "4"]
    run += ["--wait-for-nodes-s", "600", "--decode-actors", "2", "--decode-cpus", ".1", "--ran-actors", "2"]
    command = [sys.executable, "-m", "jobs.cli", "submit", "--address", cluster.url, "--wait", "--", *run]
    follower = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert follower.stdout
    assert follower.stderr
    job_id = follower.stdout.readline().strip()
    while "probing" not in (line := follower.stderr.readline()):
        assert line, "the follower ended"
    follower.send_signal(signal.SIGINT)
    told = follower.communicate(timeout=60)[1]
    assert follower.returncode == 130, told
    come_back = f"submit --address {cluster.url} --follow {job_id}"
    assert f"ran-pipeline {come_back}" in told
    jobs = JobSubmissionClient(cluster.url)
    assert str(jobs.get_job_info(job_id).status) == "RUNNING"

    cluster.grow_to(2, cpus=1)
    done = run_cli(*come_back.split(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"job_id": job_id, "address": cluster.url, "status": "SUCCEEDED", "exit_code": 0}
    assert done.stderr.count("Running entrypoint") == 1
    checked = verify(Store(out, {"endpoint": s3_server, "key": "test", "secret": "test"}))
    assert checked.is_sound
    assert checked.segments == 11
    assert checked.faces > 20
    actors = [actor for actor in list_actors(address=cluster.url, limit=1000) if "RanActor" in actor.class_name]
    nodes = {actor.node_id for actor in actors}
    assert len(nodes) == 2, actors
    assert jobs.get_job_info(job_id).driver_node_id not in nodes


def test_the_exit_code_is_the_jobs_own(cluster: RayNodes, bucket: str, tiny_model: Path, tmp_path: Path) -> None:
    cluster.grow_to(2, cpus=1)
    (tmp_path / "broken.webm").write_bytes(b"not a video")
    run = ["run", "broken.webm", "-o", f"{bucket}/broken", "--model", str(tiny_model)]
    submit = ["submit", "--address", cluster.url, "--wait", "--working-dir", tmp_path, "--", *run]
    too_many = run_cli(*submit, "--decode-actors", "99")
    assert too_many.returncode == 4, too_many.stderr
    elsewhere = {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
    failed = run_cli(*submit, **elsewhere)  # what the command says wins over the environment
    assert failed.returncode == 3, failed.stderr
    assert "over --max-error-rate" in failed.stderr


def test_a_stopped_job_commits_what_is_staged_and_the_same_command_finishes(
    cluster: RayNodes, bucket: str, s3_server: str, tiny_model: Path, tmp_path: Path
) -> None:
    """One of two videos can't be decoded until the job is stopped; of the other nothing is due to be committed."""
    cluster.grow_to(2, cpus=1)
    videos = [shutil.copy(DEMO_MEDIA / "portrait.mp4", tmp_path / f"{name}.mp4") for name in "ab"]
    run = ["run", *map(str, videos), "-o", f"{bucket}/stopped", "--model", str(tiny_model), "--segment-frames", "4"]
    run += ["--decoder", HELD, "--commit-interval-s", "3600", "--decode-actors", "2", "--decode-cpus", ".1"]
    submit = ["submit", "--address", cluster.url, "--wait", "--", *run, "--ran-actors", "1"]
    store = Store(f"{bucket}/stopped", {"endpoint": s3_server, "key": "test", "secret": "test"})
    jobs = JobSubmissionClient(cluster.url)
    command = [sys.executable, "-m", "jobs.cli", *submit]
    with held(tmp_path):
        follower = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert follower.stdout
        job_id = follower.stdout.readline().strip()
        told = wait_for("segments", lambda: re.search(r" ([1-9]\d*)/22 segments", jobs.get_job_logs(job_id)))
        assert committed(store) == 0
        assert jobs.stop_job(job_id)
        log = follower.communicate(timeout=300)[1]
    assert follower.returncode == 130, log
    assert str(jobs.get_job_info(job_id).status) == "STOPPED"
    assert int(told[1]) <= committed(store) < 22, log
    again = run_cli(*submit)
    assert again.returncode == 0, again.stderr
    checked = verify(store)
    assert checked.is_sound
    assert (checked.segments, committed(store)) == (22, 22)


def committed(store: Store) -> int:
    """Segments by the log as it is now."""
    log = CommitLog(store)
    log.refresh()
    return sum(map(log.state.count, log.state.models))


def test_what_is_wrong_here_is_said_here() -> None:
    nobody = ["submit", "--address", "http://127.0.0.1:9"]
    assert run_cli_here(*nobody, "--", "run", "in", "-o", "out", "--fsp", "5").returncode == 2
    assert run_cli_here(*nobody, "--", "rnu", "in").returncode == 2
    assert run_cli_here("submit", "--address", "auto", "--", "run", "in", "-o", "out").returncode == 2
    assert run_cli_here(*nobody, "--", "run", "in", "-o", "out").returncode == 5


def test_a_job_that_the_cluster_does_not_know_is_told_by_rays_own_words(cluster: RayNodes) -> None:
    unknown = run_cli_here("submit", "--address", cluster.url, "--follow", "run-nobody")
    assert unknown.returncode == 2, unknown.stderr
    assert f"the cluster at {cluster.url} has no such job" in unknown.stderr
    with pytest.raises(LostJobError, match="lost job run-nobody"):
        follow(JobSubmissionClient(cluster.url), "run-nobody")
