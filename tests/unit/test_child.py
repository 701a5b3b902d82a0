"""Whatever happens to the decode child, the segment comes back as a row with the right code; the next one is fine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline import child as child_module
from pipeline.child import AbandonedError, DecodeChild
from pipeline.config import Extraction
from pipeline.errors import StartError
from pipeline.extract import DecodeActor
from pipeline.media.frames_pyav import PyavFrames
from pipeline.media.probe import probe_source
from pipeline.media.scratch import Scratch
from pipeline.media.sources import Source, list_sources
from pipeline.quality import sharpness_brightness
from pipeline.segments import PLAN, Segment, plan_segments
from pipeline.worker import WorkerConfig
from ran_model.model_files import read_model_bytes
from tests.conftest import DEMO_MEDIA
from tests.faults.processes import decode_children, wait_for
from tests.media import picture_bytes, write_tar, write_video

EXTRACTION = Extraction()


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> WorkerConfig:
    return WorkerConfig(extraction=EXTRACTION, model_config=read_model_bytes(tiny_model)[0])


@pytest.fixture(scope="module")
def child(config: WorkerConfig) -> Iterator[DecodeChild]:
    """One for all tests after which it must be as good as before."""
    child = DecodeChild(config, deadline_s=60, warm=True)
    yield child
    child.stop()


def segments_of(path: Path) -> list[Segment]:
    source = list_sources([str(path)]).sources[0]
    row = probe_source(source, scratch=Scratch(None), extraction=EXTRACTION)
    return plan_segments(row, location=source.location, extraction=EXTRACTION)


@pytest.fixture(scope="module")
def picture() -> Segment:
    return segments_of(DEMO_MEDIA / "astronaut.png")[0]


def test_faces_come_back_with_their_pixels(child: DecodeChild, picture: Segment) -> None:
    result, pixels = child.extract(picture)
    assert (result.status, result.face_counts, result.faces_kept) == ("ok", [1], 1)
    assert len(pixels) == 48 * 48 * 3
    assert len(set(pixels)) > 50, "the pixels are those of a photo"
    assert result.region_boxes.shape == (1, 6, 4)


def test_the_pixels_of_many_frames_follow_the_order_of_the_rows(child: DecodeChild) -> None:
    segment = segments_of(DEMO_MEDIA / "portrait.mp4")[0]
    result, pixels = child.extract(segment)
    assert result.faces_kept > 8
    faces = np.frombuffer(pixels, np.uint8).reshape(result.faces_kept, 48, 48, 3)
    measures = np.stack([result.faces["sharpness"], result.faces["brightness"]], axis=1)
    np.testing.assert_array_equal(sharpness_brightness(faces), measures)
    assert len(np.unique(measures[:, 0])) == len(measures), "each face tells itself from the others"
    assert child.extract(segment)[1] == pixels


def test_a_child_that_hangs_is_killed_and_the_next_segment_is_fine(config: WorkerConfig, picture: Segment) -> None:
    child = DecodeChild(config, deadline_s=1.5, warm=True)
    try:
        os.kill(pid_of(child), signal.SIGSTOP)  # as deaf as a native loop that holds the GIL
        result, pixels = child.extract(picture)
        assert (result.status, result.error_code, pixels) == ("error", "timeout", bytearray())
        assert "within 1.5 s (see --deadline-s)" in (result.error_message or "")
        assert child.extract(picture)[0].status == "ok"
    finally:
        child.stop()


@pytest.mark.parametrize("death", [signal.SIGSEGV, signal.SIGKILL])
def test_a_segment_is_not_blamed_for_one_death(child: DecodeChild, picture: Segment, death: signal.Signals) -> None:
    """It may have been killed from outside, or have died of what the file before left behind."""
    victim = pid_of(child)
    os.kill(victim, signal.SIGSTOP)
    threading.Timer(0.5, lambda: (os.kill(victim, death), os.kill(victim, signal.SIGCONT))).start()
    assert child.extract(picture)[0].status == "ok"
    assert pid_of(child) != victim


def test_a_child_that_is_killed_while_it_starts_is_started_again(config: WorkerConfig, picture: Segment) -> None:
    killed: list[int] = []
    others = set(decode_children())

    def kill_the_first() -> None:
        (child,) = wait_for("the decode process", lambda: set(decode_children()) - others)
        child.kill()
        killed.append(child.pid)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    child = DecodeChild(config, deadline_s=60, warm=True)
    try:
        killer.join()
        assert pid_of(child) not in killed
        assert child.extract(picture)[0].status == "ok"
    finally:
        child.stop()


def test_a_child_that_does_not_come_up_again_in_time_is_no_segments_fault(
    config: WorkerConfig, picture: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = DecodeChild(config, deadline_s=60, warm=True)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(child_module, "START_DEADLINE_S", 1e-6)
            os.kill(pid_of(child), signal.SIGKILL)
            with pytest.raises(StartError, match=r"the decode process did not start within 1e-06 s on ") as caught:
                child.extract(picture)
        assert caught.value.exit_code == 5
        assert "--deadline-s" not in str(caught.value), "that option can't mend it"
        assert child.extract(picture)[0].status == "ok"
    finally:
        child.stop()


def test_a_child_that_can_not_even_be_tried_says_why(config: WorkerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(StartError, match=r"did not start on .*/nowhere/python"):
        DecodeChild(config, warm=True)


def test_a_child_that_is_abandoned_answers_nothing_and_is_not_started_again(
    config: WorkerConfig, picture: Segment
) -> None:
    child = DecodeChild(config, deadline_s=60, warm=True)
    try:
        os.kill(pid_of(child), signal.SIGSTOP)
        threading.Timer(0.5, child.abandon).start()
        with pytest.raises(AbandonedError):
            child.extract(picture)
        with pytest.raises(AbandonedError):
            child.extract(picture)
    finally:
        child.stop()


def test_a_child_that_can_not_die_now_is_not_waited_for(
    config: WorkerConfig, picture: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in uninterruptible sleep is killed once that ends; here the kill itself is late, which is the same to us."""
    monkeypatch.setattr(child_module, "EXIT_DEADLINE_S", 0.2)
    child = DecodeChild(config, deadline_s=60, warm=True)
    stuck = child._process
    assert stuck is not None
    monkeypatch.setattr(stuck, "kill", lambda: None)
    os.kill(stuck.pid, signal.SIGSTOP)
    stopping = threading.Thread(target=child.stop, daemon=True)
    try:
        stopping.start()
        stopping.join(30)
        assert not stopping.is_alive()
        assert stuck.poll() is None
        assert child.extract(picture)[0].status == "ok", "another one has taken its place"
    finally:
        os.kill(stuck.pid, signal.SIGKILL)
        stuck.wait()
        child.stop()


def test_a_child_that_died_while_idle_is_replaced(child: DecodeChild, picture: Segment) -> None:
    os.kill(pid_of(child), signal.SIGKILL)
    assert child.extract(picture)[0].status == "ok"


def test_a_decoder_that_eats_memory_fails_its_segment_only(tiny_model: Path, picture: Segment, tmp_path: Path) -> None:
    Image.new("RGB", (9900, 9900)).save(tmp_path / "huge.png")
    limited = WorkerConfig(
        extraction=EXTRACTION, model_config=read_model_bytes(tiny_model)[0], memory_limit_bytes=500 << 20
    )
    child = DecodeChild(limited, deadline_s=60, warm=True)
    try:
        result, _ = child.extract(segments_of(tmp_path / "huge.png")[0])
        assert (result.status, result.error_code) == ("error", "out_of_memory")
        assert "--decode-memory" in (result.error_message or "")
        assert child.extract(picture)[0].status == "ok"
    finally:
        child.stop()


class GreedyFrames(PyavFrames):
    """Fails as onnxruntime does that gets no memory."""

    def at_or_after(self, pts: int) -> tuple[int, Any] | None:
        raise RuntimeError(
            "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 4147200"
        )


def test_libraries_that_get_no_memory_are_understood(config: WorkerConfig, tmp_path: Path) -> None:
    """Theirs is no MemoryError, and `internal` would name no option that helps."""
    child = DecodeChild(replace(config, decoder=f"{__name__}:GreedyFrames"), deadline_s=60)
    try:
        result, _ = child.extract(segments_of(write_video(tmp_path / "a.mp4", frames=5))[0])
        assert (result.status, result.error_code) == ("error", "out_of_memory")
    finally:
        child.stop()


def test_the_child_dies_with_its_actor(config: WorkerConfig) -> None:
    reader, writer = os.pipe()
    actor = os.fork()
    if actor == 0:
        try:
            child = DecodeChild(config, warm=True)
            os.write(writer, str(pid_of(child)).encode())
            time.sleep(60)
        finally:
            os._exit(1)  # whatever happens, no second pytest goes on here
    os.close(writer)  # so that reading ends when the other side does
    grandchild = int(os.read(reader, 20))
    os.kill(grandchild, signal.SIGSTOP)  # as deaf as a native loop: it does not see its pipe close
    os.kill(actor, signal.SIGKILL)
    os.waitpid(actor, 0)
    end = time.monotonic() + 10
    while Path(f"/proc/{grandchild}").exists() and "Z" not in Path(f"/proc/{grandchild}/stat").read_text():
        assert time.monotonic() < end, "the decode process outlived its actor"
        time.sleep(0.05)


def test_a_full_block_hands_its_remaining_rows_back(config: WorkerConfig) -> None:
    segments = segments_of(DEMO_MEDIA / "portrait.mp4")
    plan = pa.Table.from_pylist([segment.to_row() for segment in segments], schema=PLAN)
    actor = DecodeActor(config, 60, block_pixel_bytes=1)
    try:
        block = actor(plan)
    finally:
        actor.close()
    assert block["segment_id"].to_pylist() == [segment.segment_id for segment in segments]
    assert block["deferred"].to_pylist() == [False] + [True] * (len(segments) - 1)


def test_a_source_that_changed_since_the_plan_is_not_read(child: DecodeChild, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "red").save(path)
    segment = segments_of(path)[0]
    Image.new("RGB", (65, 64), "blue").save(path)
    os.utime(path, ns=(1, 1))
    assert child.extract(segment)[0].error_code == "source_changed"


def pid_of(child: DecodeChild) -> int:
    assert child._process is not None
    return child._process.pid


def test_a_video_that_cannot_be_opened_says_so_once(child: DecodeChild, tmp_path: Path) -> None:
    """Its header promises two windows; what is wrong is wrong for both, and the first one's row has it."""
    path = write_video(tmp_path / "v.mp4", frames=250, container_options={"movflags": "faststart"})
    (source,) = list_sources([str(path)]).sources
    row = probe_source(source, scratch=Scratch(None), extraction=EXTRACTION)
    first, second = plan_segments(row, location=source.location, extraction=EXTRACTION)
    status = path.stat()
    path.write_bytes(b"this was a video".ljust(status.st_size, b"."))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if the probe had been of this file
    told, covered = child.extract(first)[0], child.extract(second)[0]
    assert (told.status, told.error_code, told.covered) == ("error", "not_media", False)
    assert (covered.status, covered.error_code, covered.covered) == ("error", "not_media", True)


def test_a_large_file_has_the_time_to_be_read(config: WorkerConfig) -> None:
    (source,) = list_sources([str(DEMO_MEDIA / "portrait.mp4")]).sources
    hasty = DecodeChild(config, deadline_s=1e-6)
    try:
        assert hasty.probe(replace(source, size_bytes=0))["error_code"] == "timeout"
        large = replace(source, size_bytes=10**10)  # so it has 500 s
        assert hasty.probe(large)["error_code"] is None
    finally:
        hasty.stop()


@pytest.fixture
def packed(tmp_path: Path) -> Source:
    path = write_tar(tmp_path / "a.tar.gz", [(f"{index}.png", picture_bytes(index)) for index in range(3)])
    return list_sources([str(path)]).sources[0]


def test_unpacking_has_the_time_of_a_fetch(config: WorkerConfig, packed: Source, tmp_path: Path) -> None:
    hasty = DecodeChild(replace(config, scratch_dir=str(tmp_path / "scratch")), deadline_s=1e-6, fetch_deadline_s=60)
    try:
        row = hasty.probe(packed)
    finally:
        hasty.stop()
    assert row["error_code"] is None, row["error_message"]
    assert len(row["index"]) == 3


def test_the_time_of_a_fetch_is_not_told_as_an_option(config: WorkerConfig, packed: Source) -> None:
    hasty = DecodeChild(config, deadline_s=60, fetch_deadline_s=1e-6)
    try:
        row = hasty.probe(packed)
    finally:
        hasty.stop()
    assert row["error_code"] == "timeout"
    assert row["error_message"] == "no answer from the decoder within 1e-06 s; it was killed"
