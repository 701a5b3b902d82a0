"""Secrets stay inside: whichever way they are given, they are nowhere in what a run writes, prints or tells Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import DEMO_MEDIA, ROOT

#: As long and as odd as real ones: an AWS secret may hold `/` and `+`.
KEY, SECRET = "AKIAMARKEDKEY1234567", "marked/secret+Wq8xYb2ZpL0vRt5nKj3mHd7sGc1f"
TOKEN, SIGNATURE = "marked-token-9d2f6c0b7a41", "5f1c9a-marked-signature-77e0"
NEEDLES = (KEY, SECRET, quote(SECRET, safe=""), "Wq8xYb2ZpL0vRt5nKj3mHd7sGc1f", TOKEN, SIGNATURE)


class Way:
    """One way to give secrets: arguments and environment of `run`, and where its output lies."""

    def __init__(self, arguments: list[str], output: str, environment: dict[str, str]) -> None:
        self.arguments, self.output, self.environment = arguments, output, environment


def in_options(endpoint: str, bucket: str, _: Path) -> Way:
    options = [f"endpoint={endpoint}", f"key={KEY}", f"secret={SECRET}", f"token={TOKEN}"]
    flags = [part for option in options for part in ("--storage-option", option)]
    return Way([f"s3://{bucket}/in", *flags], f"s3://{bucket}/by-option", {})


def in_yaml(endpoint: str, bucket: str, folder: Path) -> Way:
    file = folder / "run.yaml"
    file.write_text(
        f"storage-option:\n  endpoint: {endpoint}\n  key: {KEY}\n  secret: {SECRET}\n  token: {TOKEN}\nfps: 1\n"
    )
    return Way([f"s3://{bucket}/in", "--config", str(file)], f"s3://{bucket}/by-yaml", {})


def in_environment_and_urls(endpoint: str, bucket: str, _: Path) -> Way:
    """User info, raw and quoted, of inputs, output and root; the environment has the keys that count."""
    environment = {"AWS_ENDPOINT_URL": endpoint} | _as_variables()
    raw, quoted = f"{KEY}:{SECRET}@{bucket}", f"{KEY}:{quote(SECRET, safe='')}@{bucket}"
    inputs = [f"s3://{raw}/in/one.png", f"s3://{quoted}/in", f"s3://{raw}/in/gone.mp4"]
    return Way([*inputs, "--root", f"s3://{quoted}"], f"s3://{raw}/by-url", environment)


def in_signed_urls(endpoint: str, bucket: str, folder: Path) -> Way:
    """Presigned addresses: one of a picture, one of a video, one that is refused, one of a host that is not there."""
    signed = f"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2F20261123&X-Amz-Signature={SIGNATURE}"
    inputs = [f"{endpoint}/{bucket}/in/{name}{signed}" for name in ("one.png", "short.mp4", "gone.png")]
    return Way([*inputs, f"http://u:{TOKEN}@127.0.0.1:9/x.png{signed}"], str(folder / "by-signed-url"), {})


WAYS: list[Callable[[str, str, Path], Way]] = [in_options, in_yaml, in_environment_and_urls, in_signed_urls]


@pytest.fixture(scope="module")
def bucket(s3_server: str) -> str:
    import s3fs

    filesystem = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=s3_server)
    filesystem.mkdir("with-secrets")
    filesystem.put_file(str(DEMO_MEDIA / "astronaut.png"), "with-secrets/in/one.png")
    filesystem.put_file(str(DEMO_MEDIA / "portrait.mp4"), "with-secrets/in/short.mp4")
    filesystem.pipe_file("with-secrets/in/broken.mp4", b"no video")
    filesystem.chmod("with-secrets", "public-read")
    return "with-secrets"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For a Ray of one's own: the paths of its sockets may not be long."""
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_written_printed_or_told_to_ray(
    way: Callable[[str, str, Path], Way],
    bucket: str,
    s3_server: str,
    tiny_model: Path,
    ray_address: str,
    tmp_path: Path,
    short_folder: Path,
) -> None:
    chosen = way(s3_server, bucket, tmp_path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)} | chosen.environment
    if chosen.environment:  # workers of a cluster that runs already don't have it: this run starts its own
        environment["RAY_TMPDIR"] = str(short_folder)
    else:
        environment["RAY_ADDRESS"] = ray_address
    cheap = ["--model", str(tiny_model), "--fps", "1", "--decode-actors", "1"]
    run = ["run", *chosen.arguments, "-o", chosen.output, *cheap]
    done = _cli(run, environment)
    assert done.returncode == 3, done.stderr  # broken.mp4 is no video, gone.png is not there
    flags = [part for part in chosen.arguments if part == "--storage-option" or part.split("=")[0] in _OPTIONS]
    places = {"stdout and stderr of run": (done.stdout + done.stderr).encode()}
    for command in ("inspect", "errors"):
        looked = _cli([command, chosen.output, *flags, *_endpoint(s3_server, flags)], environment | _as_variables())
        places[f"stdout and stderr of {command}"] = (looked.stdout + looked.stderr).encode()
        assert looked.returncode == 0, looked.stderr
    session = short_folder if chosen.environment else _session()
    places |= _output(chosen.output, s3_server) | _files(temporary) | _files(session) | _jobs()
    assert [name for name in places if name.endswith("raylet.out")], "Ray's logs are elsewhere"
    assert [name for name in places if name.endswith(".parquet")], "the run wrote no table"
    needles = (*NEEDLES, os.environ["RAY_AUTH_TOKEN"])  # of the suite's Ray, and of the one that the run starts
    leaks = {name: needle for name, data in places.items() for needle in needles if needle.encode() in data}
    assert not leaks


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", f"s3://{KEY}:{SECRET}@nowhere-at-all/in", "-o", "{}/out"],
        ["run", "{}/x.png", "-o", f"s3://{KEY}:{SECRET}@nowhere-at-all/out"],
        ["plan", f"http://{KEY}:{TOKEN}@127.0.0.1:9/x.mp4?X-Amz-Signature={SIGNATURE}", "-o", "{}/out"],
        ["run", f"nothing://{KEY}:{quote(SECRET, safe='')}@host/x?sig={SIGNATURE}", "-o", "{}/out"],
        ["inspect", f"s3://{KEY}:{SECRET}@nowhere-at-all/out"],
        ["query", f"s3://{KEY}:{SECRET}@nowhere-at-all/out", "SELECT 1"],
        ["run", "{}/x.png", "-o", "{}/out", "--storage-option", SECRET],
        ["run", "s3://b/x", "-o", "{}/out", "--storage-option", f"secret_access={SECRET}"],
        ["run", "s3://b/x", "-o", "{}/out", "--storage-option", f"anonymous={SECRET}"],
        ["run", "{}/x.png", "-o", "{}/out", "--config", "{}/broken.yaml"],
        ["run", "{}/x.png", "-o", "{}/out", "--config", "{}/list.yaml"],
        ["run", "{}/x.png", "-o", f"s3://{KEY}:{SECRET}@nowhere-at-all/out", "--root", f"s3://{KEY}:{SECRET}@b/c"],
    ],
)
def test_no_secret_is_in_what_a_command_says(arguments: list[str], s3_server: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(f"storage-option: {{secret: {SECRET}: what, {TOKEN}\n")
    (tmp_path / "list.yaml").write_text(f"storage-option:\n  - {SECRET}\n")
    (tmp_path / "x.png").write_bytes(b"")
    environment = {"AWS_ENDPOINT_URL": s3_server} | _as_variables()
    done = _cli([argument.format(tmp_path) for argument in arguments], environment)
    assert done.returncode != 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not [needle for needle in NEEDLES if needle in done.stdout + done.stderr], done.stderr


_OPTIONS = ("endpoint", "key", "secret", "token")


def _as_variables() -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}


def _endpoint(endpoint: str, flags: list[str]) -> list[str]:
    return [] if flags else ["--storage-option", f"endpoint={endpoint}"]


def _cli(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd=ROOT,
        timeout=280,
        check=False,
    )


def _output(output: str, endpoint: str) -> dict[str, bytes]:
    if not output.startswith("s3://"):
        return _files(Path(output))
    import s3fs

    filesystem = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=endpoint)
    folder = f"with-secrets/{output.rpartition('/')[2]}"
    return {path: _readable(path, filesystem.cat_file(path)) for path in filesystem.find(folder)}


def _files(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): _readable(str(path), path.read_bytes()) for path in files}


def _readable(path: str, data: bytes) -> bytes:
    """The bytes, and what a compressed table says."""
    if not path.endswith(".parquet"):
        return data
    rows: pa.Table = pq.read_table(pa.BufferReader(data))
    return data + str(rows.to_pylist()).encode() + str(rows.schema.metadata).encode()


def _session() -> Path:
    import ray

    return Path(ray._private.worker._global_node.get_session_dir_path())


def _jobs() -> dict[str, bytes]:
    """What the cluster knows of each job that ran: its entry point, configuration and metadata."""
    import ray

    jobs: list[dict[str, Any]] = ray._private.state.state.job_table()
    return {f"Ray's job {job['JobID']}": str(job).encode() for job in jobs}
