"""One source of a dataset as one model saw it: every sampled frame, in order, with its rows of `faces`."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.dataset import OpenedDataset
from jobs.face_answer import Row, attention_of, regions_of
from jobs.source_names import Way, exact_ways, spellings
from pipeline.errors import UsageError
from pipeline.ledger.dataset import Dataset
from pipeline.media.sources import location_of
from pipeline.media.spellings import composed
from pipeline.segments import Segment, plan_segments
from pipeline.views import current_model

FEWEST_FOR_USUAL = 5


@dataclass(frozen=True, kw_only=True)
class SampledFrame:
    """A sampled frame. position: in its segment. faces: its rows, by descending score. face_count: faces found, which
    may be more; None where it could not be read. error: why the frame could not be read."""

    segment: Segment
    position: int
    frame: int
    timestamp: float | None
    member: str | None
    face_count: int | None
    error: str | None
    faces: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class SourceFrames:
    """A source. regions: those that the model has, in column order. usual: the median weight of each over the faces of
    these frames, or nothing where a median of so few says little."""

    uri: str
    kind: str
    model_id: str
    regions: tuple[str, ...]
    frames: tuple[SampledFrame, ...]
    usual: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the uri."""
        return posixpath.basename(self.uri) or self.uri

    @property
    def videos(self) -> dict[str, str | None]:
        """The videos that frames are of, by their key: the name inside the archive, None outside archives."""
        return {each.segment.video_key: each.member for each in self.frames if each.segment.kind == "video"}

    @property
    def is_one_video(self) -> bool:
        """Whether all frames share one time axis."""
        return len(self.videos) == 1 and all(frame.segment.kind == "video" for frame in self.frames)

    def ask_for_one_video(self, option: str) -> UsageError:
        """What to say where `option` needs a time axis, and these frames have several."""
        member = next(iter(self.videos.values())) or ""
        count = "a video" if len(self.videos) == 1 else f"{len(self.videos)} videos"
        return UsageError(
            f"{option} needs one video, and {self.name} has {count} in it: name one, as {self.uri}/{member}"
        )

    def attention(self, face: Row) -> NDArray[np.float32]:
        """The weights of a face's regions: (R,), of sum 1."""
        return attention_of(face, self.regions)


def read_source(dataset: OpenedDataset, name: str, model_id: str | None = None) -> SourceFrames:
    """The source that `name` means: its uri, its path, the end of its path, or any of these and `/member`.

    model_id: an id or its beginning; None takes the model that the views follow. Raises UsageError, with what there
    is, if nothing fits.
    """
    model_id = dataset.find_model(model_id or current_model(dataset.log.state) or "")
    source, member = _find(dataset, name)
    uri = source["source_uri"]
    if source["error_code"] is not None:
        raise UsageError(f"{uri} could not be read: {source['error_code']}: {source['error_message']}")
    of_source = "WHERE source_id = ? AND model_id = ?", [source["source_id"], model_id]
    faces = _rows(dataset, f"SELECT * FROM all_faces {of_source[0]} ORDER BY face", of_source[1])
    segments = _rows(dataset, f"SELECT * FROM all_segments {of_source[0]}", of_source[1])
    frames = _frames(_plan(dataset, source), {row["segment_id"]: row for row in segments}, faces)
    if member is not None:
        frames = [frame for frame in frames if frame.member == member]
    if not frames:
        what = f"{uri} has no member {member}" if member else f"{uri} has no sampled frames"
        raise UsageError(f"{what} for model {model_id}; see `ran-pipeline errors {quote(dataset.store.url)}`")
    regions = regions_of(faces[0]) if faces else ("whole",)
    return SourceFrames(
        uri=uri if member is None else f"{uri}/{member}",
        kind=frames[0].segment.kind if member is not None else source["kind"],
        model_id=model_id,
        regions=regions,
        frames=tuple(frames),
        usual=_usual([face for frame in frames for face in frame.faces], regions),
    )


def _find(dataset: OpenedDataset, name: str) -> tuple[Row, str | None]:
    """The row of `sources`, and the archive member if `name` goes on to one."""
    sources = _rows(dataset, "SELECT * FROM sources ORDER BY source_uri", [])
    root = Dataset.open(dataset.store).root
    found = _named(sources, name, root, str) or _named(sources, name, root, composed)
    uris = sorted({row["source_uri"] for row, _ in found})
    if len(uris) > 1:
        raise UsageError(f"{name} is the end of several sources: {', '.join(uris[:5])}; give more of the path")
    if not uris:
        some = ", ".join(row["source_uri"] for row in sources[:5]) + (", ..." if len(sources) > 5 else "")
        raise UsageError(f"no source is called {name}; this dataset has {len(sources)}: {some}")
    return next((one for one in found if one[0]["error_code"] is None), found[0])


def _named(sources: list[Row], name: str, root: str | None, form: Callable[[str], str]) -> list[tuple[Row, str | None]]:
    """Of all sources those that `name` means, with the rest of it as the member: those whose path it is; if it is
    none's, those whose uri; if none's, those whose end, or, below another root, whose uri is its end. root: what uris
    are relative to. form: of what of it is a uri."""
    given, *_ = spellings(name)
    ways = (
        *exact_ways(name, root, form),
        Way(given, lambda uri, head: f"/{uri}".endswith(f"/{head}") or head.endswith(f"/{uri}")),
    )
    for spelling, is_meant in ways:
        found = [
            (row, member)
            for row in sources
            for head, member in _heads(row, spelling)
            if is_meant(row["source_uri"], form(head))
        ]
        if found:
            return found
    return []


def _heads(source: Row, name: str) -> list[tuple[str, str | None]]:
    """What of `name` may be the source, and what is then the member: for an archive, every split at a slash."""
    splits = [at for at, letter in enumerate(name) if letter == "/" and at > 0] if source["kind"] == "archive" else []
    return [(name, None), *((name[:at], name[at + 1 :]) for at in splits)]


def _plan(dataset: OpenedDataset, source: Row) -> list[Segment]:
    """The source's segments, windows that came to light only while decoding too."""
    location = location_of(source["source_uri"], Dataset.open(dataset.store).root)
    return plan_segments(source, location=location, extraction=dataset.extraction, tails=dataset.log.state.tails)


def _frames(plan: list[Segment], rows: dict[str, Row], faces: list[Row]) -> list[SampledFrame]:
    faces_of: dict[tuple[str, int, int], list[Row]] = defaultdict(list)
    for face in faces:
        faces_of[face["segment_id"], int(face["face_id"].split("-")[1]), face["frame"]].append(face)
    frames = []
    for segment in plan:
        row = rows.get(segment.segment_id)
        for position, frame in enumerate(row["frames"] if row else ()):
            members = segment.members or ()  # of a video in an archive, its one member
            member = (members[0] if segment.kind == "video" else members[position]) if members else None
            assert row is not None
            frames.append(
                SampledFrame(
                    segment=segment,
                    position=position,
                    frame=frame,
                    timestamp=row["timestamps"][position],
                    member=member.name if member else None,
                    face_count=row["face_counts"][position],
                    error=row["frame_errors"][position] if row["frame_errors"] else None,
                    faces=tuple(faces_of[segment.segment_id, member.ordinal if member else 0, frame]),
                )
            )
    return frames


def _usual(faces: list[Row], regions: tuple[str, ...]) -> tuple[float, ...]:
    if len(faces) < FEWEST_FOR_USUAL:
        return ()
    return tuple(np.median([attention_of(face, regions) for face in faces], axis=0).tolist())


def _rows(dataset: OpenedDataset, sql: str, parameters: list[Any]) -> list[Row]:
    return dataset.query(sql, parameters)
