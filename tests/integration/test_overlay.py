"""`overlay` on a dataset that a real run has made: what is drawn is what the dataset says."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import av
import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.drawing import BOX
from jobs.overlay import overlay_command
from pipeline.errors import UsageError
from tests.conftest import DEMO_MEDIA, run_cli_here
from tests.media import write_video

FACE_FRAMES, FRAMES = 30, 45  # at 15 a second: two seconds with a face, one without


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose face goes away, a picture, and a tar of two pictures, one of them without a face."""
    folder = tmp_path_factory.mktemp("overlay-media")
    portrait = Image.open(DEMO_MEDIA / "astronaut.png").convert("RGB").resize((320, 320))

    def picture(index: int) -> NDArray[np.uint8]:
        return np.asarray(portrait) if index < FACE_FRAMES else np.full((320, 320, 3), 90, np.uint8)

    write_video(folder / "away.mp4", frames=FRAMES, fps=15, width=320, height=320, picture=picture)
    portrait.save(folder / "portrait.png")
    Image.new("RGB", (200, 200), "green").save(folder / "nobody.png")
    with tarfile.open(folder / "two.tar", "w") as archive:
        archive.add(folder / "portrait.png", "deep/portrait.png")
        archive.add(folder / "nobody.png", "nobody.png")
    (folder / "nobody.png").unlink()
    with tarfile.open(folder / "films.tar", "w") as archive:
        archive.add(folder / "portrait.png", "portrait.png")
        archive.add(folder / "away.mp4", "deep/away.mp4")
    return folder


@pytest.fixture(scope="module")
def dataset(media: Path, tiny_model: Path, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("overlay") / "out"
    options = ("--model", tiny_model, "--segment-frames", "4", "--decode-actors", "1")
    done = run_cli_here("run", media, "-o", output, *options)
    assert done.returncode == 0, done.stderr
    return output


def _overlay(*arguments: str | Path) -> None:
    overlay_command.main([str(argument) for argument in arguments], standalone_mode=False)


def _refused(*arguments: str | Path) -> str:
    with pytest.raises(UsageError) as refusal:
        _overlay(*arguments)
    return str(refusal.value)


def _box_pixels(image: NDArray[np.uint8]) -> int:
    """Pixels of the colour of boxes and tags; generous, since a video's colours are not exact."""
    return int((np.abs(image.astype(int) - BOX).max(axis=2) < 40).sum())


def test_a_page_has_a_box_for_each_moment(dataset: Path, media: Path, tmp_path: Path) -> None:
    done = run_cli_here("overlay", dataset, media / "away.mp4", "--to", tmp_path / "page.png")
    assert done.returncode == 0, done.stderr
    assert "6 moments" in done.stderr
    page = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    _overlay(dataset, "away.mp4", "--to", tmp_path / "one.png", "--at", "0.5", "--at", "0.52")
    single = np.asarray(Image.open(tmp_path / "one.png").convert("RGB"))
    assert _box_pixels(single) > 500
    assert _box_pixels(page) > 2 * _box_pixels(single)
    _overlay(dataset, "away.mp4", "--to", tmp_path / "none.png", "--at", "2.8")
    assert _box_pixels(np.asarray(Image.open(tmp_path / "none.png").convert("RGB"))) == 0


def test_the_video_has_every_sampled_frame_at_its_time_and_boxes_while_there_is_a_face(
    dataset: Path, tmp_path: Path
) -> None:
    _overlay(dataset, "away.mp4", "--to", tmp_path / "away.mp4")
    rows = duckdb.execute(
        "SELECT unnest(timestamps) AS t, unnest(face_counts) AS n FROM read_parquet(?) "
        "WHERE source_uri LIKE '%away.mp4' ORDER BY 1",
        [f"{dataset}/segments/**/*.parquet"],
    ).fetchall()
    with av.open(str(tmp_path / "away.mp4")) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert [time for time, _ in frames] == pytest.approx([time for time, _ in rows], abs=1e-3)
    assert [_box_pixels(image) > 300 for _, image in frames] == [count > 0 for _, count in rows]
    assert 0 < sum(count > 0 for _, count in rows) < len(rows)


def test_pictures_and_archive_members(dataset: Path, media: Path, tmp_path: Path) -> None:
    for name, boxes in (
        ("portrait.png", True),
        (f"{media}/two.tar/deep/portrait.png", True),
        ("two.tar/nobody.png", False),
        ("two.tar", True),
    ):
        _overlay(dataset, name, "--to", tmp_path / "page.png")
        page = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
        assert (_box_pixels(page) > 500) == boxes, name


def test_a_video_in_an_archive_has_its_own_page_and_video(dataset: Path, tmp_path: Path) -> None:
    for name in ("away.mp4", "films.tar/deep/away.mp4"):
        _overlay(dataset, name, "--to", tmp_path / f"{len(name)}.png", "--at", "0.5")
    pages = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(tmp_path.glob("*.png"))]
    assert _box_pixels(pages[0]) == _box_pixels(pages[1]) > 500
    _overlay(dataset, "films.tar/deep/away.mp4", "--to", tmp_path / "away.mp4")
    with av.open(str(tmp_path / "away.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 16  # grid points 0 to 15
    _overlay(dataset, "films.tar", "--to", tmp_path / "all.png")
    refused = _refused(dataset, "films.tar", "--to", tmp_path / "all.mp4")
    assert "an .mp4 needs one video" in refused
    assert "films.tar/deep/away.mp4" in refused


def test_what_can_not_be_drawn_is_refused_with_the_reason(dataset: Path, media: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    assert "this dataset has 4" in _refused(dataset, "unknown.mp4", "--to", page)
    assert "no member gone.png" in _refused(dataset, "two.tar/gone.png", "--to", page)
    assert "must end in .png" in _refused(dataset, "away.mp4", "--to", tmp_path / "page.gif")
    assert "has no times" in _refused(dataset, "portrait.png", "--to", tmp_path / "page.mp4")
    assert "has no times" in _refused(dataset, "portrait.png", "--to", page, "--at", "1")
    assert "there is no folder" in _refused(dataset, "away.mp4", "--to", tmp_path / "nowhere" / "page.png")
    assert "models are" in _refused(dataset, "away.mp4", "--to", page, "--model", "0123456789ab")
    assert not list(tmp_path.iterdir())


def test_a_source_that_changed_since_is_not_drawn(dataset: Path, media: Path, tmp_path: Path) -> None:
    kept = shutil.copy2(media / "portrait.png", tmp_path / "kept.png")
    try:
        Image.new("RGB", (320, 320), "red").save(media / "portrait.png")
        assert "source_changed" in _refused(dataset, "portrait.png", "--to", tmp_path / "page.png")
    finally:
        shutil.copy2(kept, media / "portrait.png")
        times = Path(kept).stat()
        os.utime(media / "portrait.png", ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_page_may_go_to_an_object_store(dataset: Path, s3_server: str) -> None:
    import s3fs

    bucket = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=s3_server)
    bucket.mkdir("overlays")
    pairs = (f"endpoint={s3_server}", "key=test", "secret=test")
    options = [part for pair in pairs for part in ("--storage-option", pair)]
    _overlay(dataset, "portrait.png", "--to", "s3://overlays/deep/page.png", *options)
    with bucket.open("overlays/deep/page.png") as file, Image.open(file) as page:
        assert page.width > 500
