"""A segment's frames, whatever its source is: a window of a video, also of one in an archive; a run of an archive's
pictures; or one picture."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Extraction
from pipeline.errors import ErrorCode, MediaError, StoreError
from pipeline.media.archives import Archive
from pipeline.media.fetch import check_in_place
from pipeline.media.locations import local_path
from pipeline.media.packets import PacketIndex
from pipeline.media.pictures import decode_picture
from pipeline.media.scratch import LocalFile, Scratch
from pipeline.media.video import VideoReader, WindowFrames, full_index, video_content
from pipeline.segments import Member, Segment

CACHED_INDEX_BYTES = 64 << 20  # scanning a smaller video again costs less than keeping its index
NO_INDEX = (ValueError, KeyError, EOFError, BadZipFile)  # raised where a file is cut off, or another version wrote it


@dataclass(frozen=True, kw_only=True)
class Frame:
    """frame: index in the video's own frame order, 0 for pictures. timestamp: seconds from the first frame, None for
    pictures. ordinal: of the archive member, else 0. image: uint8 (H, W, 3), upright RGB, contiguous."""

    frame: int
    timestamp: float | None
    member: str | None
    ordinal: int
    image: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class FrameError:
    """A frame that can't be read; those after it still come."""

    frame: int
    timestamp: float | None
    member: str | None
    ordinal: int
    error: MediaError


class SegmentFrames:
    """Iterate once; one decoded frame is held at a time. Afterwards `error`, `covered` and the times are known.

    beyond: how many windows follow this last planned one. error: why the frames end early; those given are good data.
    covered: all of this window lies behind a break whose error row belongs to an earlier window. fetch_s, decode_s:
    seconds spent on fetching the source and on decoding.
    """

    def __init__(
        self,
        frames: Iterator[Frame | FrameError],
        fetch_s: float,
        window: WindowFrames | None = None,
        decode_s: float = 0.0,
        member: str | None = None,
    ) -> None:
        self._frames, self._window, self._member = frames, window, member
        self.fetch_s, self._decode_s = fetch_s, decode_s

    def __iter__(self) -> Iterator[Frame | FrameError]:
        began = time.perf_counter()
        for frame in self._frames:
            self._decode_s += time.perf_counter() - began
            yield frame
            began = time.perf_counter()
        self._decode_s += time.perf_counter() - began

    @property
    def beyond(self) -> int:
        return 0 if self._window is None else self._window.beyond

    @property
    def decoder(self) -> str:
        """Which one gave the frames: pyav, decord, MODULE:CLASS or pillow."""
        return "pillow" if self._window is None else self._window.decoder

    @property
    def error(self) -> MediaError | None:
        error = None if self._window is None else self._window.error
        return error if error is None or self._member is None else _of_video(self._member, error)

    @property
    def covered(self) -> bool:
        return self._window is not None and self._window.covered

    @property
    def decode_s(self) -> float:
        return self._decode_s


class SegmentReader:
    """Reads segments; keeps the last source open, since consecutive segments usually share it.

    decoder: see `pipeline.media.video.VideoReader`.
    """

    def __init__(
        self,
        *,
        scratch: Scratch,
        extraction: Extraction,
        storage_options: Mapping[str, Any] | None = None,
        decoder: str = "pyav",
    ) -> None:
        self._scratch, self._extraction, self._decoder = scratch, extraction, decoder
        self._storage_options = dict(storage_options or {})
        self._key: tuple[str, str] | None = None  # of the video or source that is open
        self._files: list[LocalFile] = []
        self._open: VideoReader | Archive | None = None
        # Kept while videos in it come and go: a tar.gz would be passed from its beginning for each of them.
        self._archive: tuple[tuple[str, str], Archive] | None = None

    def read(self, segment: Segment) -> SegmentFrames:
        """Fetches and opens the segment's source, then gives its frames one by one.

        Raises MediaError when nothing of it can be read, among them a probe's error that the plan carries.
        """
        if segment.error is not None:
            raise segment.error
        key = (segment.video_key if segment.kind == "video" else segment.source_id, segment.location)
        if self._archive is not None and self._archive[0] != (segment.source_id, segment.location):
            self.close()
        elif key != self._key:
            self._leave()
        elif local_path(segment.location) is not None:
            check_in_place(segment.location, segment.fingerprint)  # used where it lies, so it may change under way
        path = self._fetched(segment) if self._open is None else None
        fetch_s = sum(file.fetch_s for file in self._files) if path is not None else 0.0
        try:
            frames = self._frames(segment, path, fetch_s)
        except OSError as error:
            self.close()
            raise MediaError(ErrorCode.UNREACHABLE, f"it can't be read ({error.strerror})") from None
        except MediaError as error:
            self._leave()
            if segment.kind == "video" and segment.members:
                error = _of_video(segment.members[0].name, error)
            raise error from None
        except BaseException:
            self.close()
            raise
        self._key = key
        return frames

    def close(self) -> None:
        """Closes the source and lets the scratch cache evict it."""
        self._leave()
        if self._archive is not None:
            self._archive[1].close()
            self._archive = None

    def _leave(self) -> None:
        if isinstance(self._open, VideoReader):
            self._open.close()
        for file in self._files:
            file.close()
        self._key, self._open, self._files = None, None, []

    def _fetched(self, segment: Segment) -> Path:
        self._files = [
            self._scratch.open(
                source_id=segment.source_id,
                location=segment.location,
                fingerprint=segment.fingerprint,
                size_bytes=segment.size_bytes,
                storage_options=self._storage_options,
            )
        ]
        return self._files[0].path

    def _frames(self, segment: Segment, path: Path | None, fetch_s: float) -> SegmentFrames:
        if segment.kind == "video":
            if not isinstance(self._open, VideoReader):
                assert path is not None
                began = time.perf_counter()
                path = self._extracted(segment, path)
                fetch_s += time.perf_counter() - began if segment.members else 0.0
                self._open = self._video(segment, path)
            window = self._open.read(segment.window, is_last=segment.is_last)
            name = segment.members[0].name if segment.members else None
            return SegmentFrames(_video_frames(window, segment), fetch_s, window, member=name)
        if segment.kind == "archive":
            if not isinstance(self._open, Archive):
                assert path is not None
                self._open = self._archive_at(segment, path)
            if segment.members:
                self._open.go_to(segment.members[0])
            return SegmentFrames(self._members(self._open, segment.members or ()), fetch_s)
        assert path is not None
        began = time.perf_counter()
        image = decode_picture(path, self._extraction.max_pixels)
        self.close()
        frame = Frame(frame=0, timestamp=None, member=None, ordinal=0, image=image)
        return SegmentFrames(iter([frame]), fetch_s, decode_s=time.perf_counter() - began)

    def _extracted(self, segment: Segment, path: Path) -> Path:
        """The video itself: a member of an archive is copied to scratch, under a name that is ours."""
        if not segment.members:
            return path
        (member,) = segment.members

        def copy(target: Path) -> None:
            self._archive_at(segment, path).copy(member, target)

        self._files.append(self._scratch.derived(f"{segment.source_id}.{member.ordinal}.member", member.size, copy))
        return self._files[-1].path

    def _archive_at(self, segment: Segment, path: Path) -> Archive:
        if self._archive is None:
            self._archive = ((segment.source_id, segment.location), Archive(path))
        return self._archive[1]

    def _video(self, segment: Segment, path: Path) -> VideoReader:
        index = self._kept_index(segment, path) if path.stat().st_size > CACHED_INDEX_BYTES else None
        return VideoReader(path, extraction=self._extraction, index=index, decoder=self._decoder)

    def _kept_index(self, segment: Segment, path: Path) -> PacketIndex | None:
        """A video's packets, which its first reader on this node keeps for the others. That only saves time, so where
        scratch has no place for it, or what was kept is no index of this version, the reader's own is used, or none."""
        index: PacketIndex | None = None

        def scan(target: Path) -> None:
            nonlocal index
            index = full_index(path, video_content(path), self._extraction.max_pixels)
            index.save(target)

        name = f"{segment.video_key.replace('/', '.')}.packets.npz"
        with contextlib.suppress(StoreError, OSError, *NO_INDEX), self._scratch.derived(name, 0, scan) as cached:
            index = index or PacketIndex.load(cached.path)
        return index

    def _members(self, archive: Archive, members: tuple[Member, ...]) -> Iterator[Frame | FrameError]:
        for member in members:
            try:
                image = decode_picture(archive.read(member), self._extraction.max_pixels)
            except MediaError as error:
                known = error if error.code == ErrorCode.UNSUPPORTED else _of_member(member, error)
                yield FrameError(frame=0, timestamp=None, member=member.name, ordinal=member.ordinal, error=known)
            else:
                yield Frame(frame=0, timestamp=None, member=member.name, ordinal=member.ordinal, image=image)


def _video_frames(window: WindowFrames, segment: Segment) -> Iterator[Frame | FrameError]:
    member = segment.members[0] if segment.members else None
    for frame in window:
        yield Frame(
            frame=frame.frame,
            timestamp=frame.timestamp,
            member=member.name if member else None,
            ordinal=member.ordinal if member else 0,
            image=frame.image,
        )


def _of_video(name: str, error: MediaError) -> MediaError:
    """A video's error keeps its code; which of the archive's videos it was is said."""
    return error if error.message.startswith(name) else MediaError(error.code, f"{name}: {error.message}")


def _of_member(member: Member, error: MediaError) -> MediaError:
    if error.code == ErrorCode.ARCHIVE_MEMBER:
        return error
    return MediaError(ErrorCode.ARCHIVE_MEMBER, f"{member.name}: {error.code}: {error.message}")
