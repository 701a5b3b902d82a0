"""Which decoders a run may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.media.decoders import check_decoder
from pipeline.media.video import VideoReader
from tests.media import read_index, write_video

OWN = "pipeline.media.frames_pyav:PyavFrames"


@pytest.mark.parametrize("decoder", ["pyav", "decord", OWN])
def test_what_ships_and_what_can_be_imported(decoder: str) -> None:
    check_decoder(decoder)


@pytest.mark.parametrize(
    ("decoder", "says"),
    [
        ("ffmpeg", "must be pyav, decord, or a class as MODULE:CLASS"),
        ("no_such_module:Frames", "No module named 'no_such_module'"),
        ("pipeline.media.frames_pyav:Nothing", "has no attribute 'Nothing'"),
        ("os;rm:x", "must be pyav"),
        ("os:path", "must be a class with at_or_after, image, close"),
    ],
)
def test_others_are_refused(decoder: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_decoder(decoder)


def test_a_class_of_ones_own_decodes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=8)
    reader = VideoReader(path, extraction=Extraction(fps="all"), decoder=OWN)
    assert [read_index(frame.image) for frame in reader.read(0)] == list(range(8))
    assert reader.decoder == OWN
