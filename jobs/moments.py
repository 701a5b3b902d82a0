"""Which of a source's frames a contact sheet shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.source_frames import SampledFrame, SourceFrames
from pipeline.errors import UsageError

ATTENTION_SPAN = 0.2  # attention that moved this much in all (L1) is as far as from the source's begin to its end
PAST_LAST_S = 1.0  # a moment may be so long after the last sampled frame


def most_telling(source: SourceFrames, count: int) -> list[SampledFrame]:
    """At most `count` frames with a face, in order: far from each other in time and in how attention was spread.

    First the frame whose attention is least like the source's median, then each time the frame that is farthest from
    all those taken (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985). With several faces
    in a frame, the one of the highest score counts. Without any face: frames spread evenly.
    """
    seen = [index for index, frame in enumerate(source.frames) if frame.faces]
    if not seen:
        evenly = np.linspace(0, len(source.frames) - 1, min(count, len(source.frames))).round().astype(int)
        return [source.frames[index] for index in evenly]
    attention = np.array([source.attention(source.frames[index].faces[0]) for index in seen])
    time = np.array(seen)[:, None] / max(1, len(source.frames) - 1)
    points = np.concatenate([time, attention / ATTENTION_SPAN], axis=1)
    taken = [int(np.abs(attention - np.median(attention, axis=0)).sum(axis=1).argmax())]
    nearest = np.abs(points - points[taken[0]]).sum(axis=1)
    while len(taken) < min(count, len(seen)):
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.abs(points - points[taken[-1]]).sum(axis=1))
    return [source.frames[seen[index]] for index in sorted(taken)]


def nearest_to(source: SourceFrames, seconds: Sequence[float]) -> list[SampledFrame]:
    """The sampled frame nearest to each moment, in order, each once.

    Raises UsageError for a source without times or with several videos, and for a moment that is not in it.
    """
    if len(source.videos) > 1:
        raise source.ask_for_one_video("--at")
    timed = [(frame.timestamp, frame) for frame in source.frames if frame.timestamp is not None]
    if not timed:
        raise UsageError(f"--at needs a video; {source.name} has no times")
    last = timed[-1][0]
    for moment in seconds:
        if not 0 <= moment <= last + PAST_LAST_S:
            raise UsageError(
                f"--at {moment:g} is not in {source.name}: its sampled frames reach from 0 to {last:.2f} s"
            )
    positions = {min(range(len(timed)), key=lambda index: abs(timed[index][0] - moment)) for moment in seconds}
    return [timed[index][1] for index in sorted(positions)]
