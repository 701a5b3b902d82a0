"""Which frames a page shows, and what its timeline says."""

from __future__ import annotations

import numpy as np
import pytest

from jobs import timeline as strips
from jobs.drawing import weight_colour
from jobs.moments import most_telling, nearest_to
from jobs.source_frames import SampledFrame, SourceFrames
from pipeline.errors import UsageError
from pipeline.segments import Segment

REGIONS = ("whole", "top_left", "center_down")
USUAL, COVERED = (0.34, 0.33, 0.33), (0.4, 0.5, 0.1)
SEGMENT = Segment(
    segment_id="0" * 20,
    source_id="0" * 16,
    source_uri="/v.mp4",
    location="/v.mp4",
    fingerprint="1:1",
    kind="video",
    size_bytes=1,
)


def _source(attention: list[tuple[float, ...] | None], *, step_s: float | None = 0.2) -> SourceFrames:
    frames = []
    for index, weights in enumerate(attention):
        face = {f"attention_{name}": weight for name, weight in zip(REGIONS, weights or (), strict=False)}
        frames.append(
            SampledFrame(
                segment=SEGMENT,
                position=index,
                frame=5 * index,
                timestamp=None if step_s is None else index * step_s,
                member=None,
                face_count=int(weights is not None),
                error=None,
                faces=({**face, "attention_other": None},) if weights else (),
            )
        )
    return SourceFrames(uri="/media/v.mp4", kind="video", model_id="m", regions=REGIONS, frames=tuple(frames))


def test_a_short_cover_is_among_the_moments() -> None:
    source = _source([USUAL] * 57 + [COVERED] * 3 + [USUAL] * 60)
    chosen = most_telling(source, 4)
    assert [frame.position for frame in chosen] == sorted(frame.position for frame in chosen)
    assert any(57 <= frame.position < 60 for frame in chosen)
    assert chosen[0].position < 30
    assert chosen[-1].position > 90


def test_frames_without_a_face_are_shown_only_if_there_is_nothing_else() -> None:
    some = most_telling(_source([None] * 10 + [USUAL] * 2 + [None] * 10), 6)
    assert [frame.position for frame in some] == [10, 11]
    none = most_telling(_source([None] * 9), 3)
    assert [frame.position for frame in none] == [0, 4, 8]


def test_moments_by_time_are_the_nearest_samples_each_once() -> None:
    chosen = nearest_to(_source([USUAL] * 10), [1.01, 0.39, 1.02, 2.5])
    assert [frame.position for frame in chosen] == [2, 5, 9]


@pytest.mark.parametrize("moment", [-0.1, 99.0])
def test_a_moment_outside_of_the_video_is_refused(moment: float) -> None:
    with pytest.raises(UsageError, match=rf"--at {moment:g} is not in .* from 0 to 1\.80 s"):
        nearest_to(_source([USUAL] * 10), [moment])


def test_a_picture_has_no_moments_by_time() -> None:
    with pytest.raises(UsageError, match="--at needs a video"):
        nearest_to(_source([USUAL], step_s=None), [1.0])


def test_the_timeline_shows_weights_and_leaves_gaps() -> None:
    source = _source([USUAL] * 5 + [COVERED] * 5 + [None] * 5)
    width = 612
    pixels = np.asarray(strips.timeline(source, width))
    y = strips.TITLE_PX + 2 * strips.ROW_PX + 3  # the third region
    x = [int(strips.x_of(source, second, width)) + 3 for second in (0.4, 1.4, 2.4)]
    assert np.abs(pixels[y, x[0]].astype(int) - weight_colour(0.33)).max() <= 1
    assert np.abs(pixels[y, x[1]].astype(int) - weight_colour(0.1)).max() <= 1
    gap = pixels[strips.TITLE_PX + 2 : y, x[2] - 20 : x[2] + 20]
    assert {tuple(colour) for colour in gap.reshape(-1, 3)} == {strips.PAPER, strips.FAINT}


def test_a_timeline_of_one_frame_can_be_drawn() -> None:
    assert strips.timeline(_source([USUAL]), 500).width == 500
