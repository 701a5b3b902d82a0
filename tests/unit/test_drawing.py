"""Drawings say what the numbers say: boxes where the faces are, bars as long as the weights."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jobs import drawing
from jobs.drawing import ACCENT, BOX, FONTS, FaceAnswer
from ran_model.config import FIXED_REGIONS, ModelConfig
from ran_model.regions import region_boxes

EQUAL = (1 / 6,) * 6
COVERED_MOUTH = (0.16, 0.24, 0.24, 0.04, 0.16, 0.16)


def _face(attention: tuple[float, ...] = EQUAL, regions: tuple[str, ...] = FIXED_REGIONS) -> FaceAnswer:
    boxes = region_boxes(ModelConfig(regions=regions), 1)[0]
    return FaceAnswer(
        number=1,
        box=(60.0, 40.0, 50.0, 60.0),
        expression="happiness",
        confidence=0.75,
        probabilities={"happiness": 0.75, "neutral": 0.25},
        aligned=np.full((96, 96, 3), 128, np.uint8),
        regions=regions,
        attention=attention,
        region_boxes=tuple(tuple(map(float, box)) for box in boxes),
    )


def _bar_lengths(face: FaceAnswer) -> list[int]:
    """Coloured pixels in the groove of each region, on the line through the bar's lower part."""
    pixels = np.asarray(drawing.panel(face))
    lengths = []
    for index in range(len(face.attention)):
        y = drawing.TITLE_PX + index * drawing.ROW_PX + drawing.ROW_PX // 2 - 2 + 3
        bars = pixels[y, drawing.FACE_PX + 24 + drawing.LABEL_PX :]
        lengths.append(int((bars == ACCENT).all(axis=1).sum()))
    return lengths


def test_bars_are_as_long_as_weights() -> None:
    lengths = np.array(_bar_lengths(_face(COVERED_MOUTH)))
    expected = np.array(COVERED_MOUTH) / COVERED_MOUTH[1] * lengths[1]
    groove = drawing.PANEL_WIDTH - drawing.VALUE_PX - (drawing.FACE_PX + 24 + drawing.LABEL_PX)
    assert lengths[1] == pytest.approx(COVERED_MOUTH[1] * groove, abs=2)
    assert np.abs(lengths - expected).max() <= 2


def test_ticks_are_at_what_is_usual() -> None:
    plain, ticked = _face(), FaceAnswer(**{**vars(_face()), "usual": (0.5,) * 6})
    changed = np.argwhere((np.asarray(drawing.panel(plain)) != np.asarray(drawing.panel(ticked))).any(axis=2))
    start, end = drawing.FACE_PX + 24 + drawing.LABEL_PX, drawing.PANEL_WIDTH - drawing.VALUE_PX
    assert set(changed[:, 1]) <= {round((start + end) / 2) + shift for shift in (-1, 0, 1)}
    assert len(changed) > 6 * 10


@pytest.mark.parametrize("weight", [0.0, 0.02, 1 / 6, 0.5, 1.0])
def test_a_bar_stays_in_its_groove(weight: float) -> None:
    rest = (1 - weight) / 5
    pixels = np.asarray(drawing.panel(_face((weight, *(rest,) * 5))))
    assert pixels.shape == (drawing.PANEL_HEIGHT, drawing.PANEL_WIDTH, 3)
    y = drawing.TITLE_PX + drawing.ROW_PX // 2 + 1
    end = drawing.PANEL_WIDTH - drawing.VALUE_PX
    assert (pixels[y - 3, end + 2 : end + 6] == 255).all()


def test_the_frame_changes_at_the_box_and_nowhere_far_from_it() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    picture = np.asarray(drawing.framed(image, [_face()], 300, 200))
    changed = (picture != image).any(axis=2)
    assert changed[40:100, 60].mean() > 0.8  # its left edge
    assert not changed[60:90, 70:100].any()  # not over the face
    assert not changed[110:].any()
    assert not changed[:, 200:].any()
    assert (picture == BOX).all(axis=2).sum() > 200


def test_boxes_follow_the_scale_of_the_frame() -> None:
    image = np.full((400, 600, 3), 90, np.uint8)
    face = FaceAnswer(**{**vars(_face()), "box": (60.0, 140.0, 50.0, 60.0)})
    picture = drawing.framed(image, [face], 300, 300)
    assert picture.size == (300, 200)
    found = np.argwhere((np.asarray(picture) == BOX).all(axis=2))
    assert found[:, 0].max() == pytest.approx((140 + 60) / 2, abs=1)
    assert found[:, 1].min() == pytest.approx(60 / 2, abs=1)


@pytest.mark.parametrize("box", [(0.0, 0.0, 300.0, 200.0), (280.0, 190.0, 20.0, 10.0), (-5.0, -5.0, 10.0, 10.0)])
def test_a_tag_is_inside_of_the_frame_wherever_the_face_is(box: tuple[float, float, float, float]) -> None:
    face = _face()
    moved = FaceAnswer(**{**vars(face), "box": box})
    picture = np.asarray(drawing.framed(np.zeros((200, 300, 3), np.uint8), [moved], 300, 200))
    tag = (picture == BOX).all(axis=2)
    assert tag.sum() > 1500  # the tag's area is all there
    assert picture.shape == (200, 300, 3)


def test_the_tint_is_strongest_where_attention_lies() -> None:
    lower = np.asarray(drawing.tinted(_face((0.0, 0.0, 0.0, 1.0, 0.0, 0.0)), 96)).astype(int)
    upper = np.asarray(drawing.tinted(_face((0.0, 0.5, 0.5, 0.0, 0.0, 0.0)), 96)).astype(int)
    for picture, (much, little) in ((lower, (85, 5)), (upper, (5, 85))):
        assert picture[much, 48, 0] - picture[much, 48, 2] > 60, (much, little)
        assert abs(picture[little, 48, 0] - picture[little, 48, 2]) <= 4


def test_density_is_the_attention_spread_over_the_regions() -> None:
    density = drawing.attention_density((0.25, 0.75), ((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)), 200)
    assert density[100, 20] == pytest.approx(0.25 + 0.75 / 0.5)
    assert density[100, 180] == pytest.approx(0.25)
    assert density.mean() == pytest.approx(1.0, abs=0.01)


def test_colours_get_darker_with_the_weight() -> None:
    light = [sum(drawing.weight_colour(weight)) for weight in np.linspace(0, 1, 21)]
    assert light == sorted(light, reverse=True)
    assert drawing.weight_colour(0.0) == drawing.SCALE[0]
    assert drawing.weight_colour(1.0) == drawing.SCALE[-1]


@pytest.mark.parametrize("name", ["naïve café.mp4", "видео.mp4", "", "a" * 500])
def test_any_name_can_be_drawn(name: str) -> None:
    picture = Image.new("RGB", (200, 40), "white")
    drawing.text(ImageDraw.Draw(picture), (100, 5), name, 16, most_px=90)
    pixels = np.asarray(picture)
    assert (pixels < 128).any()
    assert (pixels[:, 192:] == 255).all()


def test_panels_hold_more_regions_than_six() -> None:
    regions = ("whole", "left_eye", "right_eye", "nose", "mouth_left", "mouth_right", "center_80", "center_top")
    picture = drawing.panel(_face((1 / 8,) * 8, regions), numbered=True)
    below: NDArray[np.uint8] = np.asarray(picture)[drawing.TITLE_PX + drawing.FACE_PX + 4 :]
    assert (below == 255).all()


def test_expressions_are_drawn_likeliest_first() -> None:
    face = FaceAnswer(**{**vars(_face()), "probabilities": {"neutral": 0.1, "happiness": 0.9}})
    pixels = np.asarray(drawing.expressions(face))
    dark = [(pixels[y] < 150).all(axis=1).sum() for y in (drawing.TITLE_PX + 7, drawing.TITLE_PX + 24 + 7)]
    assert dark[0] > 5 * dark[1] > 0


def test_names_in_other_letters_are_in_a_font_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own font, which has an ellipsis and no accents, stands for a font of the machine."""
    built_in = drawing.font(20)
    found = ImageFont.truetype(io.BytesIO(built_in.font_bytes), 20)  # type: ignore[union-attr]
    monkeypatch.setattr(drawing, "_of_this_machine", lambda name, size: found if name == FONTS[2] else None)
    assert drawing.in_a_font("plain · name", 20) == ("plain · name", built_in)
    assert drawing.in_a_font("and so on…", 20) == ("and so on…", found)
    assert drawing.in_a_font("Porträt.mp4", 20) == ("Portrat.mp4", built_in)
    assert drawing.in_a_font("図", 20) == ("?", built_in)
