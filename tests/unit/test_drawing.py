"""Drawings say what the numbers say: boxes where the faces are, bars as long as the weights."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jobs import drawing
from jobs.drawing import BOX, LESS, MORE, FaceAnswer
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
    for index, weight in enumerate(face.attention):
        y = drawing.TITLE_PX + index * drawing.ROW_PX + drawing.ROW_PX // 2 - 2 + 3
        bars = pixels[y, drawing.FACE_PX + 24 + drawing.LABEL_PX :]
        colour = np.array(drawing.share_colour(weight, len(face.attention)))
        lengths.append(int((bars == colour).all(axis=1).sum()))
    return lengths


def test_bars_are_as_long_as_weights() -> None:
    lengths = np.array(_bar_lengths(_face(COVERED_MOUTH)))
    expected = np.array(COVERED_MOUTH) / COVERED_MOUTH[1] * lengths[1]
    assert lengths[1] > 50
    assert np.abs(lengths - expected).max() <= 3  # the tick at the equal share hides a pixel


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


def test_equal_shares_leave_the_face_untinted() -> None:
    tinted = np.asarray(drawing.tinted(_face(), 96)).astype(int)
    assert np.abs(tinted - 128).max() <= 1


def test_the_tint_is_orange_where_regions_counted_more_and_blue_where_less() -> None:
    tinted = np.asarray(drawing.tinted(_face(COVERED_MOUTH), 96)).astype(int)
    forehead, mouth = tinted[10, 48], tinted[85, 48]
    assert forehead[0] > forehead[2] + 20
    assert mouth[2] > mouth[0] + 20


def test_attention_map_is_the_share_of_the_regions_that_hold_a_pixel() -> None:
    boxes = ((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0))
    ratio = drawing.attention_map((0.25, 0.75), boxes, 200)
    assert ratio[100, 20] == pytest.approx(1.0)  # both regions: all of the attention
    assert ratio[100, 180] == pytest.approx(0.5)  # the whole face alone: half of its equal share


def test_colours_of_a_share() -> None:
    assert drawing.share_colour(1 / 6, 6) == drawing.EQUAL
    assert drawing.share_colour(2 / 6, 6) == MORE
    assert drawing.share_colour(0.0, 6) == LESS
    reds = [drawing.share_colour(weight, 6)[0] for weight in (0.08, 0.12, 1 / 6, 0.25, 0.33)]
    assert reds == sorted(reds)


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
