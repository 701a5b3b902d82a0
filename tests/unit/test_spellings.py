"""A dataset has composed names only; files and objects whose names are decomposed, as a Mac makes them, are found."""

from __future__ import annotations

import os
import socket
import threading
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media import probe
from pipeline.media.probe import probe_source
from pipeline.media.scratch import Scratch
from pipeline.media.sources import Source, list_sources, location_of
from pipeline.media.spellings import other_keys
from tests.conftest import DEMO_MEDIA

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))


def of_the_dataset(source: Source, root: str | None = None) -> Source:
    """As `reprocess` and `retry` know it."""
    return Source(
        source_id=source.source_id,
        uri=source.uri,
        location=location_of(source.uri, root),
        fingerprint=source.fingerprint,
        size_bytes=source.size_bytes,
    )


def content(scratch: Path, source: Source, **options: Any) -> bytes:
    with Scratch(str(scratch)).open(
        source_id=source.source_id,
        location=source.location,
        fingerprint=source.fingerprint,
        size_bytes=source.size_bytes,
        storage_options=options,
    ) as file:
        return file.path.read_bytes()


def code_of(scratch: Path, source: Source) -> ErrorCode:
    with pytest.raises(MediaError) as caught:
        content(scratch, source)
    return caught.value.code


@pytest.mark.parametrize("folder", [COMPOSED, DECOMPOSED, "plain"])
@pytest.mark.parametrize("is_relative", [False, True])
def test_a_decomposed_name_is_found_by_its_uri(folder: str, is_relative: bool, tmp_path: Path) -> None:
    file = tmp_path / folder / f"{DECOMPOSED} und {COMPOSED}.mp4"
    file.parent.mkdir()
    file.write_bytes(b"film")
    root = str(tmp_path) if is_relative else None
    (source,) = list_sources([str(tmp_path)], root=root).sources
    known = of_the_dataset(source, root)
    assert unicodedata.is_normalized("NFC", known.location)
    assert known.location != str(file)
    assert content(tmp_path, known) == b"film"
    os.utime(file, (1, 1))
    assert code_of(tmp_path, known) == ErrorCode.NOT_FOUND
    file.unlink()
    assert code_of(tmp_path, known) == ErrorCode.NOT_FOUND
    file.write_bytes(b"film")
    os.utime(file, ns=(1, int(known.fingerprint.partition(":")[2])))  # restored, where nothing was at the last look
    assert content(tmp_path, known) == b"film"


def test_of_two_forms_of_a_name_the_planned_content_is_opened(tmp_path: Path) -> None:
    (tmp_path / f"{DECOMPOSED}.mp4").write_bytes(b"planned")
    (source,) = list_sources([str(tmp_path)]).sources
    known = of_the_dataset(source)
    (tmp_path / f"{COMPOSED}.mp4").write_bytes(b"another")
    assert content(tmp_path, known) == b"planned"
    (tmp_path / f"{DECOMPOSED}.mp4").unlink()
    assert code_of(tmp_path, known) == ErrorCode.SOURCE_CHANGED


@pytest.mark.parametrize("folder", [COMPOSED, DECOMPOSED, "plain"])
@pytest.mark.parametrize("is_relative", [False, True])
def test_two_forms_that_are_two_sources_stay_apart(folder: str, is_relative: bool, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / folder / f"{name}.mp4").write_bytes(name.encode())
    root = str(tmp_path) if is_relative else None
    sources = list_sources([str(tmp_path)], root=root).sources
    known = [of_the_dataset(source, root) for source in sources]
    assert {content(tmp_path, one) for one in known} == {COMPOSED.encode(), DECOMPOSED.encode()}
    reverse = [str(tmp_path / folder / f"{name}.mp4") for name in (DECOMPOSED, COMPOSED)]
    for order in (reverse, reverse[::-1], reverse * 2):
        assert list_sources(order, root=root).sources == sources


def test_two_forms_of_a_folder_keep_their_files_apart(tmp_path: Path) -> None:
    names = [f"{folder}/{file}" for folder in (COMPOSED, DECOMPOSED) for file in (COMPOSED, DECOMPOSED, "plain")]
    names = [f"{name}.mp4" for name in names]
    for count in range(1, len(names) + 1):  # one file more each time: of the first ones none has the composed name
        for name in names[-count:]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
        sources = list_sources([str(tmp_path)], root=str(tmp_path)).sources
        assert len({source.uri for source in sources}) == count
        known = [of_the_dataset(source, str(tmp_path)) for source in sources]
        assert {content(tmp_path / "cache", one).decode() for one in known} == set(names[-count:])


@pytest.mark.parametrize("folder", [COMPOSED, DECOMPOSED])
def test_a_decomposed_key_in_a_bucket(
    folder: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setattr(probe, "FETCH_BYTES", 0)  # this video counts as large
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    bucket = f"spelled-{'composed' if folder == COMPOSED else 'decomposed'}"
    client.create_bucket(Bucket=bucket)
    film = (DEMO_MEDIA / "portrait.mp4").read_bytes()
    client.put_object(Bucket=bucket, Key=f"{folder}/{DECOMPOSED}.mp4", Body=film)
    options = {"endpoint_url": s3_server}
    (source,) = list_sources([f"s3://{bucket}"], storage_options=options).sources
    known = of_the_dataset(source)
    scratch = Scratch(str(tmp_path / "scratch"))
    row = probe_source(known, scratch=scratch, extraction=Extraction(), storage_options=options)
    assert (row["kind"], row["error_code"]) == ("video", None)
    assert not scratch.directory.exists(), "its header was enough"
    assert content(tmp_path, known, **options) == film
    client.put_object(Bucket=bucket, Key=f"{COMPOSED}/{COMPOSED}.mp4", Body=b"another")
    (tmp_path / source.source_id).unlink()
    assert content(tmp_path, known, **options) == film


def test_few_requests_are_made_for_an_object_that_is_gone() -> None:
    path = "/".join([COMPOSED] * 20)
    tried = list(other_keys(path))
    assert len(tried) < 50
    assert tried[0] == unicodedata.normalize("NFD", path)
    assert path not in tried
    assert list(other_keys("bucket/plain.mp4")) == []


class Signed(BaseHTTPRequestHandler):
    """Gives a film to whoever has the signature."""

    def do_GET(self) -> None:
        status = 200 if self.path.endswith("?signature=f00") else int(self.path[1:4])
        self.send_response(status)
        self.send_header("Content-Length", "4")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"film")

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def website() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Signed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("status", [401, 403])
def test_a_signature_that_is_missing_is_named(website: str, status: int, tmp_path: Path) -> None:
    (source,) = list_sources([], listed=[f"{website}/{status}.mp4?signature=f00"]).sources
    assert content(tmp_path, source) == b"film"
    (tmp_path / source.source_id).unlink()
    with pytest.raises(MediaError, match=rf"answers {status}; if its URL had a signature.*not stored") as caught:
        content(tmp_path, of_the_dataset(source))
    assert caught.value.code == ErrorCode.PERMISSION


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, ErrorCode.NOT_FOUND),
        (410, ErrorCode.NOT_FOUND),
        (503, ErrorCode.UNREACHABLE),
        (429, ErrorCode.UNREACHABLE),
    ],
)
def test_what_is_not_on_the_web_is_not_found(website: str, tmp_path: Path, status: int, code: ErrorCode) -> None:
    (source,) = list_sources([], listed=[f"{website}/{status}.mp4?signature=f00"]).sources
    assert code_of(tmp_path, of_the_dataset(source)) == code


class Unsized(BaseHTTPRequestHandler):
    """Makes its film as it sends it, and can't say how long it is."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"4\r\nfilm\r\n0\r\n\r\n")

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def test_a_file_of_a_server_that_tells_no_size_is_fetched(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Unsized) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (source,) = list_sources([f"http://127.0.0.1:{server.server_port}/film.mp4"]).sources
        assert content(tmp_path, source) == b"film"
        server.shutdown()


def test_a_server_that_is_not_there_is_no_missing_file(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        (source,) = list_sources([f"http://127.0.0.1:{nobody.getsockname()[1]}/film.mp4"]).sources
        assert code_of(tmp_path, source) == ErrorCode.UNREACHABLE
