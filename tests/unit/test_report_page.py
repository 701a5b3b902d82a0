"""The report's page: whole, self-contained, small, and safe whatever the names of sources and regions are."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.report import report_command
from jobs.report_charts import videos
from jobs.report_faces import CLEAR, UNSURE
from jobs.report_videos import VideoFigures, VideoSlice
from pipeline.config import Extraction
from pipeline.ledger.dataset import Dataset
from pipeline.storage.store import Store
from ran_model.labels import EXPRESSIONS
from tests.html import Page
from tests.report_dataset import HOSTILE, ODD_REGION, windows, write
from tests.staged_rows import MODEL, OTHER_MODEL


def page_of(folder: Path, *arguments: str) -> Page:
    to = folder.parent / "report.html"
    done = CliRunner().invoke(report_command, [str(folder), "--to", str(to), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    page = Page(to.read_text(encoding="utf-8"))
    assert page.open == []
    page.assert_fetches_nothing()
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "out"
    write(folder, models=(MODEL, OTHER_MODEL))
    return folder


@pytest.mark.parametrize("model", [MODEL, OTHER_MODEL])
def test_names_are_text_and_nothing_else(folder: Path, model: str) -> None:
    page = page_of(folder, "--model", model)
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "section", "h1", "h2", "h3", "p", "span", "table", "tr", "th",
        "td", "div", "i", "b", "figure", "img", "figcaption", "small", "br", "svg", "rect", "path",
    }  # fmt: skip
    text = "\n".join(page.texts)
    assert page.texts.count(HOSTILE) >= 2  # among the sources, and over its chart
    assert "/films/clips.zip/clip.mp4" in page.texts
    assert "<b>took too long</b>" in page.texts
    assert "<i>.jpg" in text
    assert (ODD_REGION in page.texts) == (model == OTHER_MODEL)
    assert ("upper left" in page.texts) == (model == MODEL)
    assert f"model_id {model}" in text
    assert ("contempt" in page.texts) == (model == MODEL)
    headings = [page.texts[index] for index, text in enumerate(page.texts) if text in SECTIONS]
    assert headings == SECTIONS


SECTIONS = [
    "What was seen", "How sure the model was", "What each region counted", "By source", "Over time", "Faces to look at",
    "Errors", "Use",
]  # fmt: skip


def test_faces_are_shown_with_and_without_the_weights_of_their_regions(folder: Path) -> None:
    page = page_of(folder, "--model", MODEL)
    assert page.count("figure") == len(EXPRESSIONS) * (CLEAR + UNSURE)
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 * page.count("figure")
    plain, tinted = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))), float)
        for picture in pictures[:2]
    )
    assert np.ptp(plain, axis=2).max() < 12  # the crop is grey
    assert np.ptp(tinted, axis=2).max() > 60  # and its copy orange somewhere
    # where a region lies can't be told by its name, the face is shown without
    other = page_of(folder, "--model", OTHER_MODEL)
    assert other.count("img") == other.count("figure") == 7 * (CLEAR + UNSURE)


def test_without_crops_the_page_says_how_to_get_them(tmp_path: Path) -> None:
    write(tmp_path / "out", crops=False)
    page = page_of(tmp_path / "out")
    assert page.count("img") == page.count("figure") == 0
    assert any("--keep-crops" in text and "overlay" in text for text in page.texts)
    assert "least sure" in page.texts


def test_a_damaged_crop_is_said_to_be_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.report_dataset as made

    crops = made._crops
    monkeypatch.setattr(
        made, "_crops", lambda *given: {**(rows := crops(*given)), "png": [b"\x89PNG"] * len(rows["png"])}
    )
    write(tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert page.texts.count("unreadable") == page.count("figure") > 0


@pytest.mark.parametrize(
    ("looked", "said"),
    [
        (windows()[-1:], "Nothing was read yet that could show a face."),
        ([{**windows()[0], "counts": [0] * 300}], "No face was found."),
    ],
)
def test_a_page_without_faces(tmp_path: Path, looked: list[dict[str, Any]], said: str) -> None:
    write(tmp_path / "out", looked=looked)
    page = page_of(tmp_path / "out")
    assert said in page.texts
    assert "What was seen" not in page.texts


def test_a_page_of_a_dataset_without_rows(tmp_path: Path) -> None:
    Dataset.open_or_create(Store(str(tmp_path / "out")), Extraction())
    assert "none yet" in page_of(tmp_path / "out").texts


def test_a_long_video_is_no_larger_than_a_short_one(tmp_path: Path) -> None:
    sizes = []
    for name, count in (("short", 400), ("long", 40_000)):
        times = np.arange(count) / 5
        window = {**windows()[0], "times": times, "counts": [1] * count}
        write(tmp_path / name / "out", looked=[window], crops=False)
        page_of(tmp_path / name / "out")
        sizes.append((tmp_path / name / "report.html").stat().st_size)
    assert sizes[1] < 1.3 * sizes[0] < 150_000


def test_json_and_page_at_once(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "report.html"
    done = CliRunner().invoke(report_command, [str(folder), "--json", "--to", str(to)], catch_exceptions=False)
    assert done.stdout.startswith("{")
    assert to.read_text().startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (0.8, ["0.00 s", "0.20 s", "0.40 s", "0.60 s", "0.80 s"]),
        (9.0, ["0.0 s", "2.2 s", "4.5 s", "6.8 s", "9.0 s"]),
        (80.0, ["0:00", "0:20", "0:40", "1:00", "1:20"]),
        (14_400.0, ["0:00", "1:00:00", "2:00:00", "3:00:00", "4:00:00"]),
    ],
)
def test_ticks_of_a_short_video_name_their_times(seconds: float, ticks: list[str]) -> None:
    whole = VideoSlice(start_s=0.0, end_s=seconds, frames=1, frames_with_face=0, faces=0, probabilities={})
    video = VideoFigures(source_id="s", source_uri="v.mp4", member=None, slices=[whole])
    assert re.findall(r"<span>([^<]*)</span>", videos([video], []).partition('class="ticks"')[2]) == ticks
