"""The page: whole, self-contained, and safe whatever the names of sources and regions are."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.compare import compare_command
from tests.html import Page
from tests.staged_rows import MODEL, OTHER_MODEL
from tests.two_models import ODD_REGION, write_dataset

URI = """/films/"><img src=x onerror=alert({})>&amp;<script>'.mp4"""


def _page(folder: Path, *arguments: str) -> Page:
    to = folder / "compare.html"
    done = CliRunner().invoke(
        compare_command, [str(folder / "out"), MODEL, OTHER_MODEL, "--to", str(to), *arguments], catch_exceptions=False
    )
    assert done.exit_code == 0
    page = Page(to.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("page")
    write_dataset(folder / "out", [3, 2, 20, 9], only_first=1, uri=URI, crops=b"\x89PNG no picture")
    labels = folder / "labels.csv"
    done = CliRunner().invoke(
        compare_command, [str(folder / "out"), MODEL, OTHER_MODEL, "--json", "--faces", "2"], catch_exceptions=False
    )
    faces = re.findall(r'"face_id": "([^"]+)"', done.stdout)
    labels.write_text("face_id,expression\n" + "".join(f"{face},fear\n" for face in faces) + "<b>&,\n")
    return _page(folder, "--labels", str(labels))


def test_names_are_text_and_nothing_else(page: Page) -> None:
    assert {tag for tag, _ in page.tags} == {
        "html", "head", "meta", "title", "style", "body", "section", "h1", "h2", "p", "span", "table", "tr", "th", "td",
        "div", "figure", "img", "figcaption", "small", "b", "br", "svg", "line", "circle",
    }  # fmt: skip
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    text = "\n".join(page.texts)
    for number in range(3):
        assert URI.format(number) in text
    assert f"attention_{ODD_REGION}" in text
    assert "region nose" in text
    assert "rows without a label: 1 (<b>&)" in text


def test_nothing_is_fetched(page: Page) -> None:
    page.assert_fetches_nothing()


def test_pictures_of_kept_crops_are_inside_and_lacking_ones_are_said(page: Page) -> None:
    """24 of 25 faces are shown: source 0 has no crops, those of source 1 are damaged, 20 faces are of source 2."""
    assert page.count("figure") == 24
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    missing = page.texts.count("no crop kept"), page.texts.count("unreadable")
    assert len(pictures) + sum(missing) == 24
    assert min(missing) > 0
    assert len(pictures) >= 19
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2], validate=True))) as image:
            _, green, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert abs(green - 90) < 4
        assert abs(blue - 160) < 4


def test_a_comparison_without_common_faces_still_makes_a_page(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", [0, 6], only_first=1)
    assert "No face has an answer of both models." in _page(tmp_path).texts


def test_equal_models_make_a_page_too(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", [4, 6], same=True)
    page = _page(tmp_path)
    assert page.count("figure") == 0
    assert "No face's probabilities changed." in page.texts
