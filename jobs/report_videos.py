"""The listed sources' videos over time, in so few slices that ten hours are as small as ten minutes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.dataset import OpenedDataset
from jobs.model_columns import ModelColumns
from jobs.sql import literal, quoted

MOST_SLICES = 200
VIDEOS_OF_A_SOURCE = 3  # an archive may have thousands; the longest
LONG_GAP = 3  # times the usual step between frames: in a longer one, nothing was sampled


@dataclass(frozen=True, kw_only=True)
class VideoSlice:
    """Consecutive sampled frames that could be read. start_s, end_s: seconds from the video's first frame. faces: rows
    of `faces`; probabilities: their means, by expression, empty without faces."""

    start_s: float
    end_s: float
    frames: int
    frames_with_face: int
    faces: int
    probabilities: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class VideoFigures:
    """A video over time. member: its name inside an archive."""

    source_id: str
    source_uri: str
    member: str | None
    slices: list[VideoSlice]


def videos_over_time(dataset: OpenedDataset, columns: ModelColumns, source_ids: Sequence[str]) -> list[VideoFigures]:
    """The videos of these sources, in their order: of each at most VIDEOS_OF_A_SOURCE, those with most frames.

    A slice is a run of sampled frames that could be read, about as many as in any other, so that a rate that varies
    leaves none empty; none goes on over a time of which nothing was read.
    """
    if not source_ids:
        return []
    listed = ", ".join(literal(source_id) for source_id in source_ids)
    probabilities = [f"prob_{name}" for name in columns.classes]
    sums = "".join(f", sum({name}::DOUBLE) AS {name}" for name in probabilities)
    rows = dataset.query(
        f"""
        WITH windows AS (
            SELECT * FROM segments WHERE kind = 'video' AND source_id IN ({listed})
        ), videos AS (
            SELECT source_id, first_member AS member, any_value(source_uri) AS source_uri
            FROM windows GROUP BY source_id, first_member
            QUALIFY row_number() OVER (PARTITION BY source_id ORDER BY sum(len(frames)) DESC, first_member)
                    <= {VIDEOS_OF_A_SOURCE}
        ), sampled AS (
            SELECT source_id, first_member AS member, segment_id, unnest(frames) AS frame, unnest(timestamps) AS t,
                   unnest(face_counts) AS found
            FROM windows
        ), stepped AS (
            SELECT sampled.*, source_uri, t - lag(t) OVER of_video AS step,
                   row_number() OVER of_video - 1 AS place, count(*) OVER of_all AS length,
                   (max(t) OVER of_all - min(t) OVER of_all) / {MOST_SLICES} AS slice_s
            FROM sampled JOIN videos
            ON sampled.source_id = videos.source_id AND sampled.member IS NOT DISTINCT FROM videos.member
            WHERE t IS NOT NULL AND found IS NOT NULL
            WINDOW of_video AS (PARTITION BY sampled.source_id, sampled.member ORDER BY t),
                   of_all AS (PARTITION BY sampled.source_id, sampled.member)
        ), measured AS (
            SELECT *, median(step) OVER (PARTITION BY source_id, member) AS step_s FROM stepped
        ), placed AS (
            SELECT *, greatest(slice_s, {LONG_GAP} * step_s) AS gap_s,
                   place * least({MOST_SLICES}, length) // length AS slice,
                   count(*) FILTER (step > greatest(slice_s, {LONG_GAP} * step_s))
                       OVER (PARTITION BY source_id, member ORDER BY t) AS part
            FROM measured
        ), answered AS (
            SELECT segment_id, frame, count(*) AS faces{sums} FROM faces WHERE source_id IN ({listed})
            GROUP BY segment_id, frame
        )
        SELECT source_id, member, any_value(source_uri) AS source_uri, min(t) AS start_s, max(t) AS last_s,
               any_value(step_s) AS step_s, any_value(gap_s) AS gap_s, count(*) AS frames,
               count(faces) AS frames_with_face, coalesce(sum(faces), 0)::BIGINT AS faces
               {"".join(f", sum({name}) AS {quoted(name)}" for name in probabilities)}
        FROM placed LEFT JOIN answered USING (segment_id, frame)
        GROUP BY source_id, member, part, slice ORDER BY source_id, member, start_s
        """
    )
    of_video: dict[tuple[str, str | None], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        of_video[row["source_id"], row["member"]].append(row)
    videos = [
        VideoFigures(
            source_id=source_id,
            source_uri=slices[0]["source_uri"],
            member=member,
            slices=[
                VideoSlice(
                    start_s=row["start_s"],
                    end_s=end,
                    frames=row["frames"],
                    frames_with_face=row["frames_with_face"],
                    faces=row["faces"],
                    probabilities={name: row[f"prob_{name}"] / row["faces"] for name in columns.classes}
                    if row["faces"]
                    else {},
                )
                for row, end in zip(slices, _ends(slices), strict=True)
            ],
        )
        for (source_id, member), slices in of_video.items()
    ]
    return sorted(videos, key=lambda video: source_ids.index(video.source_id))


def _ends(slices: Sequence[dict[str, Any]]) -> list[float]:
    """Where each slice ends: where the next begins, or a step after its last frame if that is far off."""
    ends: list[float] = []
    for index, row in enumerate(slices):
        following = slices[index + 1]["start_s"] if index + 1 < len(slices) else math.inf
        near = following - row["last_s"] <= (row["gap_s"] or 0.0)
        ends.append(following if near else row["last_s"] + (row["step_s"] or 1.0))
    return ends
