"""What a source is, before it is planned: kind, size, duration, archive index. Runs once per source and fingerprint."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.stream import VideoStream

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError
from pipeline.media.archives import Archive
from pipeline.media.containers import NO_FRAME, is_cut, open_container, video_stream
from pipeline.media.display import Display, first_frame
from pipeline.media.fetch import name_of_object
from pipeline.media.frames_pyav import check_pixels
from pipeline.media.locations import MISSING, local_path, open_filesystem
from pipeline.media.pictures import read_header
from pipeline.media.scratch import Scratch
from pipeline.media.sniff import HEAD_BYTES, Content, guess_kind, sniff
from pipeline.media.sources import Source
from pipeline.media.video import full_index

FETCH_BYTES = 16 << 20  # a smaller remote video is fetched at once: it will be needed anyway
SCAN_BYTES = 64 << 20  # a video without a table of its frames is scanned for is_vfr and its count only up to this size


def probe_source(
    source: Source, *, scratch: Scratch, extraction: Extraction, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The source's row of SOURCES, without run_id and pipeline_version. Bad media gives a row with error_code."""
    row = _row(source)
    try:
        by_header = _remote_video(source, extraction, storage_options or {})
        if by_header is not None:
            return row | by_header
        with scratch.open(
            source_id=source.source_id,
            location=source.location,
            fingerprint=source.fingerprint,
            size_bytes=source.size_bytes,
            storage_options=storage_options or {},
        ) as file:
            if not file.path.is_file():
                raise MediaError(ErrorCode.NOT_MEDIA, "neither a file nor an object")
            with file.path.open("rb") as head:
                content = sniff(head.read(HEAD_BYTES))
            row["kind"] = content.kind
            probe = {"video": _video, "picture": _picture, "archive": _archive}[content.kind]
            row |= probe(file.path, content, source, scratch, extraction)
    except MediaError as error:
        return failed_probe(source, error, kind=row["kind"])
    except OSError as error:
        return failed_probe(source, MediaError(ErrorCode.UNREACHABLE, f"it can't be read ({error.strerror})"))
    return row


def failed_probe(source: Source, error: MediaError, kind: str | None = None) -> dict[str, Any]:
    """The row of a source that can't be read; its kind is what its name promises, unless its content is known."""
    row = _row(source)
    return row | {"kind": kind or row["kind"], "error_code": str(error.code), "error_message": error.message}


def _row(source: Source) -> dict[str, Any]:
    return {
        "source_id": source.source_id,
        "source_uri": source.uri,
        "fingerprint": source.fingerprint,
        "size_bytes": source.size_bytes,
        "kind": guess_kind(source.uri),
        "duration_s": None,
        "container_frames": None,
        "is_vfr": None,
        "width": None,
        "height": None,
        "codec": None,
        "index": None,
        "error_code": None,
        "error_message": None,
    }


def _remote_video(source: Source, extraction: Extraction, storage_options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a large remote video's header says, without fetching the rest; None when the whole file has to tell."""
    if source.fingerprint == MISSING or source.size_bytes <= FETCH_BYTES or local_path(source.location) is not None:
        return None
    try:
        filesystem, path = open_filesystem(source.location, storage_options)
        name = name_of_object(filesystem, path, source.fingerprint)
        with filesystem.open(name, "rb", block_size=1 << 20, cache_type="blockcache") as remote:
            content = sniff(remote.read(HEAD_BYTES))
            remote.seek(0)
            if content.kind != "video":
                return None
            return {"kind": "video"} | _header(remote, content, extraction)
    except MediaError as error:
        if error.code == ErrorCode.TOO_LARGE:
            raise
        return None
    except Exception as error:  # whatever a filesystem raises: fetching classifies it, after retries
        if isinstance(error, MemoryError):
            raise
        return None


def _video(path: Path, content: Content, _: Source, __: Scratch, extraction: Extraction) -> dict[str, Any]:
    found = _header(path, content, extraction)
    if (not found["container_frames"] or not found["duration_s"]) and path.stat().st_size <= SCAN_BYTES:
        index = full_index(path, content, extraction.max_pixels)
        found["container_frames"] = found["container_frames"] or index.packets
        steps = np.diff(index.pts)
        found["is_vfr"] = _varies(steps.tolist())
        if len(steps):  # the container may only guess; frames count, and the planner asks again when there are more
            shown = index.pts[-1] - index.pts[0] + np.median(steps)  # the last one as long as most
            found["duration_s"] = float(int(shown) * index.time_base)
    return found


def _header(file: Path | BinaryIO, content: Content, extraction: Extraction) -> dict[str, Any]:
    with open_container(file, content) as container:
        stream = video_stream(container)
        context = stream.codec_context
        check_pixels(context.width, context.height, extraction.max_pixels)
        first = first_frame(container, stream)
        if first is None:  # said once, here, instead of by every window that the header promises
            cut = isinstance(file, Path) and is_cut(file, content)
            raise MediaError(ErrorCode.TRUNCATED if cut else ErrorCode.CORRUPT, NO_FRAME)
        width, height = Display.of(first, stream).size(first.width, first.height)
        steps = [entry.timestamp for entry in stream.index_entries] if content.format == "mov" else []
        return {
            "duration_s": _duration_s(container, stream),
            "container_frames": stream.frames or len(steps) or None,
            "is_vfr": _varies([b - a for a, b in itertools.pairwise(steps)]),
            "width": width,
            "height": height,
            "codec": context.name,
        }


def _duration_s(container: av.container.InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else float(Fraction(container.duration, av.time_base))


def _varies(steps: list[int]) -> bool | None:
    """Whether frames come at uneven intervals; one tick of difference is rounding. None when it can't be told."""
    if len(steps) < 2:
        return None
    return max(steps) - min(steps) > 1


def _picture(path: Path, content: Content, _: Source, __: Scratch, extraction: Extraction) -> dict[str, Any]:
    header = read_header(path, extraction.max_pixels)
    return {
        "width": header.width,
        "height": header.height,
        "codec": content.format.lower(),
        "container_frames": header.frames if header.frames > 1 else None,
    }


def _archive(path: Path, content: Content, source: Source, scratch: Scratch, _: Extraction) -> dict[str, Any]:
    with contextlib.closing(Archive(path)) as archive:
        members = archive.members()
    if not members:
        raise MediaError(ErrorCode.NOT_MEDIA, f"a {content.format} archive without a picture or video")
    return {"codec": content.format, "index": [asdict(member) for member in members]}
