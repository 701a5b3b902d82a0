"""Stored faces get their pixels back from kept crops or from the source, or a row of their own says why not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import rescore
from pipeline.errors import StoreError
from pipeline.extraction import FACE_COLUMNS, ExtractedSegment
from pipeline.media.scratch import Scratch
from pipeline.rescore import RescoreActor
from pipeline.segments import Segment
from pipeline.storage.store import Store
from pipeline.worker import SegmentExtractor, WorkerConfig
from tests.conftest import DEMO_MEDIA
from tests.media import write_video
from tests.unit.test_read import EXTRACTION, segments


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> WorkerConfig:
    return WorkerConfig(extraction=EXTRACTION, model_config=(tiny_model / "config.json").read_bytes())


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    face = np.asarray(Image.open(DEMO_MEDIA / "astronaut.png").convert("RGB").resize((256, 256)))[:192, :192]

    def picture(index: int) -> NDArray[np.uint8]:
        return np.asarray(np.roll(face, index, axis=0), np.uint8)

    return write_video(tmp_path_factory.mktemp("video") / "v.mp4", frames=12, width=192, height=192, picture=picture)


@pytest.fixture
def actor(config: WorkerConfig, tmp_path: Path) -> Iterator[RescoreActor]:
    actor = RescoreActor(replace(config, detects=False), 60.0, Store(str(tmp_path / "out")))
    yield actor
    actor.close()


def extracted(config: WorkerConfig, segment: Segment) -> tuple[ExtractedSegment, list[NDArray[np.uint8]]]:
    """Its rows and its aligned faces."""
    faces: list[NDArray[np.uint8]] = []
    result = SegmentExtractor(config).extract(segment, emit=faces.extend)
    assert result.status == "ok"
    assert len(faces) == result.faces_kept > 1
    return result, faces


def stored(segment: Segment, result: ExtractedSegment) -> dict[str, Any]:
    """What a dataset has of it."""
    faces = []
    for row in range(result.faces_kept):
        position = int(result.faces["frame_position"][row])
        face = {name: result.faces[name][row] for name in FACE_COLUMNS if name != "frame_position"}
        frame = result.frames[position]
        faces.append({**face, "frame": frame, "face_id": f"{segment.source_id}-0-{frame}-{face['face']}"})
    names = ("frames", "timestamps", "face_counts", "frame_errors", "status", "error_stage", "error_code")
    values = {name: getattr(result, name) for name in (*names, "error_message", "decoder")}
    return {**values, "members": None, "faces": faces, "crops": None}


def png(face: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", face[..., ::-1])[1].tobytes()


def test_a_damaged_crop_is_read_from_the_source(config: WorkerConfig, video: Path, actor: RescoreActor) -> None:
    (segment, *_) = segments(video, Scratch(None))
    result, faces = extracted(config, segment)
    known = stored(segment, result)
    crops = {face["face_id"]: png(pixels) for face, pixels in zip(known["faces"], faces, strict=True)}
    marked = crops | {known["faces"][0]["face_id"]: png(np.zeros_like(faces[0]))}
    again, pixels = actor._restore(segment, known, marked)
    assert bytes(pixels) == b"".join([bytes(faces[0].size), *(face.tobytes() for face in faces[1:])]), "from the crops"
    for damaged in (crops[known["faces"][0]["face_id"]][:60], b""):
        again, pixels = actor._restore(segment, known, crops | {known["faces"][0]["face_id"]: damaged})
        assert again.status == "ok"
        assert bytes(pixels) == b"".join(face.tobytes() for face in faces)


@pytest.mark.parametrize(
    "error",
    [OSError("page"), FileNotFoundError("gone"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), KeyError("png"),
     pa.ArrowInvalid("no"), pa.ArrowNotImplementedError("codec")],
)  # fmt: skip
def test_of_a_damaged_file_of_crops_nothing_is_taken(
    actor: RescoreActor, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def opened(store: Store, path: str) -> None:
        raise error

    monkeypatch.setattr(rescore, "KeptCrops", opened)
    assert actor._read_crops({"s": "crops/x.parquet"}) == {}


def test_a_store_that_fails_is_no_damaged_file(actor: RescoreActor, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(store: Store, path: str) -> None:
        raise StoreError("read crops/x.parquet: timed out")

    monkeypatch.setattr(rescore, "KeptCrops", opened)
    with pytest.raises(StoreError):
        actor._read_crops({"s": "crops/x.parquet"})


def test_a_window_of_a_video_that_opens_no_more_has_its_own_error(
    config: WorkerConfig, video: Path, actor: RescoreActor
) -> None:
    """The window before may have no faces, and then it is taken over without a look at the video."""
    _, second, *_ = segments(video, Scratch(None))
    assert second.follows
    known = stored(second, extracted(config, second)[0])
    status, content = video.stat(), video.read_bytes()
    try:
        video.write_bytes(b"this was a video".ljust(status.st_size, b"."))
        os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
        result, pixels = actor._restore(second, known, {})
    finally:
        video.write_bytes(content)
        os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (result.status, result.error_code, result.covered, bytes(pixels)) == ("error", "not_media", False, b"")
    assert "stored faces could be read again" in (result.error_message or "")


def test_a_segment_of_which_nothing_is_to_be_read(actor: RescoreActor, video: Path) -> None:
    """So that a run can ask whether the cluster works at all."""
    (segment, *_) = segments(video, Scratch(None))
    result, _ = actor._restore(replace(segment, error_code="internal", error_message="not read"), None, {})
    assert (result.status, result.error_message, result.covered) == ("error", "not read", False)
