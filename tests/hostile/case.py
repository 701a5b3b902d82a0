"""One file of the hostile corpus and what a run may make of it: right rows, or one clear error row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ErrorCode

#: A sampled frame as a row names it: index and seconds in a video, the member's name in an archive, 0 for a picture.
Sight = tuple[int | str, float | None]

PICTURE: tuple[Sight, ...] = ((0, None),)
#: Never the answer to a hostile file: they mean that the reader itself broke and the child had to be replaced.
ACCIDENTS = frozenset({ErrorCode.INTERNAL, ErrorCode.DECODER_CRASH, ErrorCode.OUT_OF_MEMORY, ErrorCode.TIMEOUT})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """statuses: ok, partial or error, whichever the whole source may end with. codes: of an error row.

    frames: those that a reader of the undamaged file sees; None when the file alone decides. complete: all of them must
    be there, else any of them, in order. faces: how many each may have.
    """

    statuses: frozenset[str] = frozenset({"ok"})
    codes: frozenset[ErrorCode] = frozenset()
    frames: tuple[Sight, ...] | None = None
    complete: bool = False
    faces: frozenset[int] = frozenset({0, 1})

    def complaints(self, segments: Sequence[Mapping[str, Any]]) -> list[str]:
        """What is wrong with the `segments` rows of one source; empty if nothing is."""
        seen, faces = _seen(segments)
        failed = [row for row in segments if row["status"] != "ok"]
        status = "ok" if not failed else "partial" if seen else "error"
        wrong = []
        if status not in self.statuses:
            wrong.append(f"it is {status}, not {' or '.join(sorted(self.statuses))}")
        lost = [row for row in failed if not row["frames"]]  # a window that breaks half way says so for itself
        if len(lost) > 1 and segments[0]["kind"] != "archive":
            wrong.append(f"{len(lost)} error rows instead of one")
        wrong += [
            f"error code {row['error_code']} ({row['error_message']}), not {' or '.join(sorted(self.codes)) or 'none'}"
            for row in failed
            if row["error_code"] not in self.codes
        ]
        wrong += [f"an error row without a message: {row}" for row in failed if not row["error_message"]]
        if self.frames is not None:
            in_archive = segments[0]["kind"] == "archive"  # whose rows don't say which came first
            expected = sorted(self.frames, key=str) if in_archive else list(self.frames)
            seen = sorted(seen, key=str) if in_archive else seen
            if self.complete and seen != expected:
                wrong.append(f"frames {seen}, not {expected}")
            if not (Counter(seen) <= Counter(expected) if in_archive else _is_in_order(seen, self.frames)):
                wrong.append(f"frames {seen} are not among {list(self.frames)}")
        if not set(faces) <= self.faces:
            wrong.append(f"{faces} faces, not {sorted(self.faces)} in each frame")
        times = [time for _, time in seen if time is not None]
        if times != sorted(set(times)):
            wrong.append(f"times that don't ascend: {times}")
        return wrong


@dataclass(frozen=True, kw_only=True)
class Case:
    """name: of the case and of its folder. write: makes the file in that folder and returns its path.

    is_named: the file is an input of its own, not only something in a folder. sources: how many the listing may see.
    rows: columns of every `faces` row of the file, where the case fixes them.
    """

    name: str
    write: Callable[[Path], Path]
    outcome: Outcome
    is_named: bool = False
    sources: int = 1
    rows: dict[str, Any] = field(default_factory=dict)


def right(frames: Sequence[Sight] = PICTURE, *, faces: int = 1) -> Outcome:
    """Every frame is there, and nothing else."""
    return Outcome(frames=tuple(frames), complete=True, faces=frozenset({faces}))


def refused(*codes: ErrorCode) -> Outcome:
    """One error row and no frame."""
    return Outcome(statuses=frozenset({"error"}), codes=frozenset(codes), frames=(), complete=True)


def partly(frames: Sequence[Sight], *codes: ErrorCode, faces: int = 1) -> Outcome:
    """Just these frames, and an error row."""
    return Outcome(
        statuses=frozenset({"partial"}),
        codes=frozenset(codes),
        frames=tuple(frames),
        complete=True,
        faces=frozenset({faces}),
    )


def damaged(frames: Sequence[Sight] | None, *codes: ErrorCode, most_faces: int = 1) -> Outcome:
    """Whatever is still there of these frames, with or without an error row, but never anything else."""
    return Outcome(
        statuses=frozenset({"ok", "partial", "error"}),
        codes=frozenset(codes),
        frames=None if frames is None else tuple(frames),
        faces=frozenset(range(most_faces + 1)),
    )


def content(suffix: str, data: bytes | Callable[[], bytes], stem: str = "file") -> Callable[[Path], Path]:
    """Writes these bytes, or what makes them, under a plain name."""

    def write(folder: Path) -> Path:
        path = folder / f"{stem}{suffix}"
        path.write_bytes(data if isinstance(data, bytes) else data())
        return path

    return write


def _seen(segments: Sequence[Mapping[str, Any]]) -> tuple[list[Sight], list[int]]:
    seen: list[Sight] = []
    faces: list[int] = []
    for row in sorted(segments, key=lambda row: (row["start_s"] or 0.0, row["frames"][:1])):
        for at, frame in enumerate(row["frames"]):
            if row["frame_errors"] is not None and row["frame_errors"][at] is not None:
                continue
            name = row["members"][at] if row["members"] is not None else frame
            time = row["timestamps"][at]
            seen.append((name, None if time is None else round(time, 4)))
            faces.append(row["face_counts"][at])
    return seen, faces


def _is_in_order(seen: Sequence[Sight], frames: Sequence[Sight]) -> bool:
    """Frames of a video go by their times: where some are lost, those that follow count on from fewer."""
    rest = iter(_name(frame) for frame in frames)
    return all(any(_name(sight) == name for name in rest) for sight in seen)


def _name(sight: Sight) -> int | str | float:
    name, time = sight
    return name if time is None else time
