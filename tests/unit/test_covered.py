"""A window without a row of its own: only where the error row of one before it, of the same run, speaks for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.media.scratch import Scratch
from pipeline.segments import Segment
from pipeline.worker import SegmentExtractor, WorkerConfig
from tests.media import truncated, write_video
from tests.unit.test_read import EXTRACTION, segments


def broken_after_the_probe(folder: Path, *, is_cut: bool) -> list[Segment]:
    """The windows of a video as a probe of it whole gave them; it is cut or overwritten since, which nobody can see."""
    path = write_video(folder / "v.mp4", frames=75, b_frames=0, container_options={"movflags": "faststart"})
    planned = segments(path, Scratch(None))
    content = truncated(path, folder / "cut.mp4", 0.4).read_bytes() if is_cut else b"this was a video" * 100
    status = path.stat()
    path.write_bytes(content.ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return planned


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_window_behind_a_break_has_its_own_error_unless_another_tells(
    tiny_model: Path, tmp_path: Path, is_cut: bool
) -> None:
    config = WorkerConfig(extraction=EXTRACTION, model_config=(tiny_model / "config.json").read_bytes())
    extractor = SegmentExtractor(config)
    *_, last = broken_after_the_probe(tmp_path, is_cut=is_cut)
    assert last.follows
    for segment in (last, replace(last, follows=False)):
        result = extractor.extract(segment, emit=lambda faces: None)
        assert (result.status, result.covered) == ("error", segment.follows)
        assert result.error_message
