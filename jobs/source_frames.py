"""One source of a dataset, seen again: its sampled frames with their rows, and their pictures decoded anew."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.dataset import OpenedDataset
from jobs.drawing import FACE_PX, FaceAnswer
from pipeline import schema
from pipeline.errors import MediaError, UsageError
from pipeline.read import Frame, SegmentReader
from pipeline.scratch import Scratch
from pipeline.segments import Segment, plan_segments
from pipeline.storage_options import fsspec_options
from pipeline.views import current_model
from ran_model.align import FER_TEMPLATE, align_faces, similarity_transform, transform_points
from ran_model.config import ModelConfig
from ran_model.regions import region_boxes

SPREAD_SCALE = 0.1  # this much total change of attention is as far as half of the source's length


@dataclass(frozen=True, kw_only=True)
class SampledFrame:
    """A sampled frame and its rows of `faces`, by descending score.

    position: of the frame in its segment. face_count: faces found, null rows of `--max-faces` included.
    """

    segment: Segment
    position: int
    frame: int
    timestamp: float | None
    member: str | None
    face_count: int
    error: str | None
    faces: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """A source as one model saw it. regions: those that the model has, in column order."""

    uri: str
    kind: str
    model_id: str
    regions: tuple[str, ...]
    frames: tuple[SampledFrame, ...]

    @property
    def name(self) -> str:
        """The last part of the uri."""
        return posixpath.basename(self.uri) or self.uri

    def attention(self, frame: SampledFrame) -> NDArray[np.float32] | None:
        """The weights of the frame's first face (R,), or None without a face."""
        return np.array(_attention(frame.faces[0], self.regions), np.float32) if frame.faces else None


def read_source(dataset: OpenedDataset, name: str, *, model_id: str | None = None, root: str | None = None) -> SourceRows:
    """The rows of the source that `name` means: its uri, its path, the end of its path, or `archive/member`.

    root: what the dataset's relative uris are relative to. Raises UsageError, with what there is, if none or several match.
    """
    models = dataset.log.state.models
    model_id = model_id or current_model(dataset.log.state)
    if model_id not in models:
        raise UsageError(f"model {model_id} has no rows here; models are: {', '.join(models) or 'none yet'}")
    source, member = _find(dataset, name)
    if source["error_code"] is not None:
        raise UsageError(f"{source['source_uri']} could not be read: {source['error_code']}: {source['error_message']}")
    faces: dict[tuple[str, int, int], list[dict[str, Any]]] = defaultdict(list)
    where = "WHERE source_id = ? AND model_id = ?"
    of_source = [source["source_id"], model_id]
    for row in _rows(dataset, f"SELECT * FROM all_faces {where} ORDER BY face", of_source):
        ordinal = int(row["face_id"].split("-")[1])
        faces[row["segment_id"], ordinal, row["frame"]].append(row)
    sampled = {row["segment_id"]: row for row in _rows(dataset, f"SELECT * FROM all_segments {where}", of_source)}
    frames = []
    for segment in _segments(dataset, source, root):
        row = sampled.get(segment.segment_id)
        for position, frame in enumerate(row["frames"] if row else ()):
            in_archive = segment.members[position] if segment.members else None
            if member is not None and (in_archive is None or in_archive.name != member):
                continue
            frames.append(
                SampledFrame(
                    segment=segment,
                    position=position,
                    frame=frame,
                    timestamp=row["timestamps"][position],
                    member=in_archive.name if in_archive else None,
                    face_count=row["face_counts"][position],
                    error=row["frame_errors"][position] if row["frame_errors"] else None,
                    faces=tuple(faces.get((segment.segment_id, in_archive.ordinal if in_archive else 0, frame), ())),
                )
            )
    if not frames:
        raise UsageError(f"{source['source_uri']} has no sampled frames for model {model_id}")
    first = next((row for rows in faces.values() for row in rows), None)
    return SourceRows(
        uri=source["source_uri"] if member is None else f"{source['source_uri']}/{member}",
        kind=source["kind"],
        model_id=model_id,
        regions=_regions(first),
        frames=tuple(frames),
    )


def choose(rows: SourceRows, count: int) -> list[SampledFrame]:
    """At most `count` frames with a face, in order, far from each other in time and in how attention was spread.

    The first is the one whose attention is least like the source's median; each next one is the farthest from those
    taken. Without any face: frames spread over the source.
    """
    seen = [index for index, frame in enumerate(rows.frames) if frame.faces]
    if not seen:
        every = np.linspace(0, len(rows.frames) - 1, min(count, len(rows.frames))).round().astype(int)
        return [rows.frames[index] for index in every]
    attention = np.array([rows.attention(rows.frames[index]) for index in seen])
    time = np.array(seen)[:, None] / max(1, len(rows.frames) - 1)
    points = np.concatenate([time, attention * 0.5 / SPREAD_SCALE], axis=1)
    taken = [int(np.abs(attention - np.median(attention, axis=0)).sum(axis=1).argmax())]
    nearest = np.abs(points - points[taken[0]]).sum(axis=1)
    while len(taken) < min(count, len(seen)):
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.abs(points - points[taken[-1]]).sum(axis=1))
    return [rows.frames[seen[index]] for index in sorted(taken)]


def at_seconds(rows: SourceRows, moments: Sequence[float]) -> list[SampledFrame]:
    """The sampled frame nearest to each moment. Raises UsageError for a source without times."""
    timed = [frame for frame in rows.frames if frame.timestamp is not None]
    if not timed:
        raise UsageError(f"--at needs a video; {rows.name} has no times")
    chosen = {min(timed, key=lambda frame: abs((frame.timestamp or 0.0) - moment)).frame: None for moment in moments}
    return [frame for frame in timed if frame.frame in chosen]


def pictures(
    dataset: OpenedDataset, frames: Sequence[SampledFrame], storage_options: dict[str, str]
) -> Iterator[tuple[SampledFrame, NDArray[np.uint8]]]:
    """Each frame that can still be read, with its picture: uint8 (H, W, 3) RGB. Raises UsageError if the source can't."""
    wanted: dict[str, dict[int, SampledFrame]] = defaultdict(dict)
    for frame in frames:
        wanted[frame.segment.segment_id][frame.position] = frame
    reader = SegmentReader(
        scratch=Scratch(), extraction=dataset.extraction, storage_options=fsspec_options(storage_options)
    )
    segments = {frame.segment.segment_id: frame.segment for frame in frames}
    try:
        for segment_id, positions in wanted.items():
            for position, read in enumerate(reader.read(segments[segment_id])):
                if position in positions and isinstance(read, Frame):
                    yield positions[position], read.image
                if position >= max(positions):
                    break
    except MediaError as error:
        raise UsageError(f"{segments[segment_id].source_uri} can't be read again: {error.code}: {error}") from None
    finally:
        reader.close()


def answers(frame: SampledFrame, image: NDArray[np.uint8], regions: tuple[str, ...]) -> list[FaceAnswer]:
    """The frame's faces for drawing, aligned anew from the stored landmarks to the framing that our models share.

    Boxes of regions follow from their names; landmark regions are drawn at their default size.
    """
    if not frame.faces:
        return []
    points = [[[row[f"landmark_{name}_{axis}"] for axis in "xy"] for name in schema.LANDMARKS] for row in frame.faces]
    landmarks_N52 = np.array(points, np.float32)
    template_52 = np.array(FER_TEMPLATE, np.float32)
    aligned = align_faces(image, landmarks_N52, template_52, FACE_PX)
    within = transform_points(landmarks_N52, similarity_transform(landmarks_N52, template_52, 1))
    ids = [row["face_id"] for row in frame.faces]
    boxes_NR4 = region_boxes(ModelConfig(regions=regions), len(ids), landmarks_N52=within, face_ids=ids)
    return [
        FaceAnswer(
            number=index + 1,
            box=(row["FaceRectX"], row["FaceRectY"], row["FaceRectWidth"], row["FaceRectHeight"]),
            expression=row["expression"],
            confidence=row["confidence"],
            aligned=aligned[index],
            regions=regions,
            attention=tuple(_attention(row, regions)),
            region_boxes=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes_NR4[index]),
        )
        for index, row in enumerate(frame.faces)
    ]


def _find(dataset: OpenedDataset, name: str) -> tuple[dict[str, Any], str | None]:
    """The row of `sources`, and the archive member if `name` goes on to one."""
    rows = _rows(dataset, "SELECT * FROM sources ORDER BY source_uri", [])
    path = name if "://" in name else str(Path(name).expanduser().absolute())
    path = posixpath.normpath(path) if "://" not in path else path
    for wanted in (name, path):
        exact = [row for row in rows if row["source_uri"] == wanted]
        if exact:
            return exact[-1], None  # a changed source has an older row too
    archives = [(row, wanted[len(row["source_uri"]) + 1 :]) for row in rows for wanted in (name, path)
                if row["kind"] == "archive" and wanted.startswith(row["source_uri"] + "/")]  # fmt: skip
    ends = [(row, None) for row in rows if row["source_uri"].endswith("/" + name.removeprefix("./"))]
    inside = [(row, name.partition(f"{posixpath.basename(row['source_uri'])}/")[2]) for row in rows
              if row["kind"] == "archive" and name.startswith(posixpath.basename(row["source_uri"]) + "/")]  # fmt: skip
    found: list[tuple[dict[str, Any], str | None]] = [*archives, *ends, *inside]
    uris = sorted({row["source_uri"] for row, _ in found})
    if len(uris) == 1:
        return found[-1]
    if uris:
        raise UsageError(f"{name} is the end of several sources: {', '.join(uris[:5])}; give more of the path")
    some = ", ".join(row["source_uri"] for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
    raise UsageError(f"no source is called {name}; this dataset has {len(rows)}: {some}")


def _segments(dataset: OpenedDataset, source: dict[str, Any], root: str | None) -> list[Segment]:
    uri = source["source_uri"]
    location = posixpath.join(root, uri) if root and "://" not in uri and not uri.startswith("/") else uri
    windows = dataset.log.state.tails.get(source["source_id"], 0)
    known = plan_segments(source, location=location, extraction=dataset.extraction)
    return plan_segments(
        source, location=location, extraction=dataset.extraction, extra_windows=max(0, windows - len(known))
    )


def _regions(row: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return ("whole",)
    return (*(name for name in schema.REGIONS if row[f"attention_{name}"] is not None), *(row["attention_other"] or ()))


def _attention(row: dict[str, Any], regions: tuple[str, ...]) -> list[float]:
    other = row["attention_other"] or {}
    return [float(other[name] if name in other else row[f"attention_{name}"]) for name in regions]


def _rows(dataset: OpenedDataset, sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
    result = dataset.connection.execute(sql, parameters)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
