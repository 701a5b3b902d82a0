"""Buckets on the suite's S3 server."""

from __future__ import annotations

import uuid
from pathlib import Path

import s3fs


def direct(endpoint: str) -> dict[str, str]:
    """Storage options of a client with nothing in between."""
    return {"endpoint": endpoint, "key": "test", "secret": "test"}


def new_bucket(endpoint: str, media: Path | None = None) -> str:
    """The name of a new bucket; with the files of a folder in it."""
    filesystem = s3fs.S3FileSystem(endpoint_url=endpoint, key="test", secret="test", skip_instance_cache=True)
    name = f"faults-{uuid.uuid4().hex}"
    filesystem.mkdir(name)
    for path in sorted(media.iterdir()) if media else ():
        filesystem.pipe_file(f"{name}/{path.name}", path.read_bytes())
    return name
