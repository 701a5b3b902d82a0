"""Which frames a page shows, and what its timeline says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jobs import contact_sheet
from jobs import timeline as strips
from jobs.contact_sheet import Moment
from jobs.drawing import weight_colour
from jobs.moments import most_telling, nearest_to
from jobs.source_frames import SampledFrame, SourceFrames
from pipeline.errors import UsageError
from pipeline.segments import Member, Segment

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


def _archive(*videos: str, pictures: int = 0) -> SourceFrames:
    """Ten frames of each video from its own second 0 on, and pictures."""
    frames = []
    for ordinal, name in enumerate((*videos, *(f"{number}.png" for number in range(pictures)))):
        is_video = ordinal < len(videos)
        member = Member(name=name, ordinal=ordinal, offset=0, size=1)
        segment = replace(SEGMENT, kind="video" if is_video else "archive", members=(member,))
        own = _source([USUAL] * (10 if is_video else 1), step_s=0.2 if is_video else None).frames
        frames += [replace(frame, segment=segment, member=name) for frame in own]
    return SourceFrames(uri="/media/a.tar", kind="archive", model_id="m", regions=REGIONS, frames=tuple(frames))


def test_an_archive_of_several_videos_has_no_moments_by_time() -> None:
    with pytest.raises(
        UsageError, match=r"--at needs one video, and a\.tar has 2 videos in it: .*/media/a\.tar/b\.mp4"
    ):
        nearest_to(_archive("b.mp4", "c.mp4"), [0.5])
    assert [frame.position for frame in nearest_to(_archive("b.mp4", pictures=2), [0.41])] == [2]


@pytest.mark.parametrize(
    ("source", "has_axis"),
    [
        (_source([USUAL] * 10), True),
        (_archive("b.mp4"), True),
        (_archive("b.mp4", "c.mp4"), False),
        (_archive("b.mp4", pictures=1), False),
        (_archive(pictures=3), False),
    ],
)
def test_only_one_video_has_a_time_axis(source: SourceFrames, has_axis: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def strip(source: SourceFrames, width: int, **given: object) -> Image.Image:
        drawn.append(width)
        return strips.timeline(source, width)

    monkeypatch.setattr(contact_sheet, "timeline", strip)
    picture = np.zeros((40, 60, 3), np.uint8)
    moments = [
        Moment(frame=frame, image=picture, faces=(), is_of_several=not source.is_one_video)
        for frame in source.frames[::9]
    ]
    contact_sheet.contact_sheet(source, moments)
    assert bool(drawn) == has_axis
    if not has_axis and source.frames[0].timestamp is not None:
        assert moments[0].caption.endswith(" · b.mp4")


def test_the_sheet_counts_pictures_and_frames_of_videos_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(contact_sheet, "text", lambda draw, at, line, *_, **__: told.append(line))
    source = _archive("b.mp4", pictures=2)
    contact_sheet._header(ImageDraw.Draw(Image.new("RGB", (9, 9))), source, 900)
    frames = len(source.frames) - 2
    assert told[1].startswith(f"2 pictures and {frames} sampled frames, ")


def test_a_picture_has_no_moments_by_time() -> None:
    with pytest.raises(UsageError, match="--at needs a video"):
        nearest_to(_source([USUAL], step_s=None), [1.0])


def test_the_timeline_shows_weights_and_leaves_gaps() -> None:
    source = _source([USUAL] * 5 + [COVERED] * 5 + [None] * 5)
    width = 612
    pixels = np.asarray(strips.timeline(source, width))
    y = strips.TITLE_PX + 2 * strips.ROW_PX + 3  # the third region
    axis = strips.TimeAxis.of(source, width)
    x = [int(axis.x_of(second)) + 3 for second in (0.4, 1.4, 2.4)]
    assert np.abs(pixels[y, x[0]].astype(int) - weight_colour(0.33)).max() <= 1
    assert np.abs(pixels[y, x[1]].astype(int) - weight_colour(0.1)).max() <= 1
    gap = pixels[strips.TITLE_PX + 2 : y, x[2] - 20 : x[2] + 20]
    assert {tuple(colour) for colour in gap.reshape(-1, 3)} == {strips.PAPER, strips.FAINT}


def test_a_timeline_of_one_frame_can_be_drawn() -> None:
    assert strips.timeline(_source([USUAL]), 500).width == 500


def _colours(source: SourceFrames, second: float) -> set[tuple[int, ...]]:
    """Those of the strip around a moment."""
    width = 612
    x = int(strips.TimeAxis.of(source, width).x_of(second))
    strip = np.asarray(strips.timeline(source, width))[strips.TITLE_PX + 1 : -strips.AXIS_PX - 2, x - 8 : x + 8]
    return {tuple(colour) for colour in strip.reshape(-1, 3)}


def test_no_attention_is_drawn_over_a_time_that_was_not_sampled() -> None:
    frames = _source([USUAL] * 30).frames
    source = replace(_source([USUAL]), frames=(*frames[5:10], *frames[20:]))  # a window failed at first, one between
    assert _colours(source, 0.5) == {strips.PAPER}
    assert strips.PAPER != weight_colour(0.33) in _colours(source, 1.5)
    assert _colours(source, 3.0) == {strips.PAPER}
    assert weight_colour(0.33) in _colours(source, 5.0)


def test_a_frame_that_could_not_be_read_is_not_shown_as_one_without_a_face() -> None:
    frames = _source([USUAL] * 10 + [None] * 20).frames
    unread = [replace(frame, face_count=None, error="corrupt: it is damaged") for frame in frames[20:]]
    source = replace(_source([USUAL]), frames=(*frames[:20], *unread))
    assert _colours(source, 3.0) == {strips.PAPER, strips.FAINT}
    assert _colours(source, 5.0) == {strips.PAPER}


@pytest.mark.parametrize("hours", [0.01, 1, 10, 100, 1000])
def test_ticks_lie_apart_from_each_other(hours: float) -> None:
    axis = strips.TimeAxis(times=(0.0, hours * 3600), step_s=1.0, width=1500)
    _, moments = axis.ticks()
    assert len(moments) >= 3
    assert np.diff([axis.x_of(moment) for moment in moments]).min() >= 80


def test_ticks_are_at_the_times_that_they_name() -> None:
    axis = strips.TimeAxis(times=tuple(6.4 + np.arange(32) / 5), step_s=0.2, width=612)
    step, moments = axis.ticks()
    assert moments == [index * step for index in range(len(moments))]
    assert axis.x_of(0.0) == strips.LEFT


def test_a_strip_of_hours_looks_at_each_frame_once() -> None:
    class Counted(tuple[SampledFrame, ...]):
        passes = 0

        def __iter__(self) -> Iterator[SampledFrame]:
            Counted.passes += 1
            return super().__iter__()

    source = replace(_source([USUAL]), frames=Counted(_source([USUAL] * 100).frames))
    strips.timeline(source, 612)
    assert Counted.passes < 10
