"""How a face's answer looks: its box in the frame, and a panel with face, expression and what each region counted.

Pillow draws; nothing here reads a dataset. One colour scale for attention everywhere, from pale to dark orange, which
colour-blind readers can read too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

Colour = tuple[int, int, int]

INK: Colour = (27, 31, 36)
MUTED: Colour = (104, 112, 122)
FAINT: Colour = (226, 229, 234)
PAPER: Colour = (255, 255, 255)
BACKGROUND: Colour = (243, 244, 247)
ACCENT: Colour = (236, 96, 12)
SCALE: tuple[Colour, ...] = ((238, 240, 244), (253, 186, 116), ACCENT, (140, 45, 4))
BOX: Colour = (255, 200, 40)

PANEL_WIDTH, PANEL_HEIGHT = 468, 210
FACE_PX, TITLE_PX = 168, 34
ROW_PX, GLYPH_PX, LABEL_PX, VALUE_PX = 28, 20, 122, 42
FULL_TINT, FULL_DENSITY = 0.85, 1.8  # the strongest tint, when all attention lies on a crop of 3/4 of the side
SOFTNESS = 0.03  # of the face's side

REGION_LABELS = {
    "whole": "whole face",
    "top_left": "upper left",
    "top_right": "upper right",
    "center_down": "lower centre",
    "center_top": "upper centre",
    "center_90": "inner 90%",
    "center_85": "inner 85%",
    "center_80": "inner 80%",
    "center_75": "inner 75%",
}


@dataclass(frozen=True, kw_only=True)
class FaceAnswer:
    """One face as the dataset has it.

    number: 1-based within its frame. box: x, y, width, height in pixels of the frame. aligned: uint8 (S, S, 3) RGB.
    probabilities: by expression. regions, attention: names and weights, of sum 1. region_boxes: x0, y0, x1, y1 per
    region, fractions of the aligned square. usual: weights to compare with, marked by ticks; empty for none.
    """

    number: int
    box: tuple[float, float, float, float]
    expression: str
    confidence: float
    probabilities: dict[str, float]
    aligned: NDArray[np.uint8]
    regions: tuple[str, ...]
    attention: tuple[float, ...]
    region_boxes: tuple[tuple[float, float, float, float], ...]
    usual: tuple[float, ...] = ()


#: Fonts with many letters that machines have, by the names of their files.
FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf", "Hiragino Sans GB.ttc", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "arial.ttf",
)  # fmt: skip
NO_LETTER = "\U0010ffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=32)
def font(size: int) -> Font:
    """Pillow's own font, so that a picture is the same on every machine. It has plain Latin letters."""
    return ImageFont.load_default(size=size)


def text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    words: str,
    size: int,
    colour: Colour = INK,
    *,
    anchor: str = "la",
    bold: bool = False,
    most_px: float | None = None,
) -> None:
    """One line, cut at its start beyond `most_px` pixels. Letters that Pillow's font lacks are in one of the machine's
    (FONTS); where it has none of these, accents are dropped, and other letters too."""
    words, chosen = in_a_font(unicodedata.normalize("NFC", words), size)
    if most_px is not None and draw.textlength(words, font=chosen) > most_px:
        while len(words) > 1 and draw.textlength("..." + words, font=chosen) > most_px:
            words = words[1:]
        words = "..." + words
    draw.text(at, words, fill=colour, font=chosen, anchor=anchor, stroke_width=0.4 if bold else 0)


def in_a_font(words: str, size: int) -> tuple[str, Font]:
    """What can be shown of the words, and the font that has it."""
    if all(map(_is_plain, words)):
        return words or "?", font(size)
    for name in FONTS:
        found = _of_this_machine(name, size)
        if found is not None and all(has_letter(found, letter) for letter in words):
            return words, found
    parts = (letter if _is_plain(letter) else unicodedata.normalize("NFKD", letter) for letter in words)
    return "".join(letter for letter in "".join(parts) if _is_plain(letter)) or "?", font(size)


def has_letter(font: Font, letter: str) -> bool:
    """Whether the font has it; what a font lacks it shows as one and the same box."""
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask(NO_LETTER))


def _is_plain(letter: str) -> bool:
    return letter.isascii() or letter == "·"


@lru_cache(maxsize=64)
def _of_this_machine(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def region_label(name: str) -> str:
    """A region's name for people; left is left in the picture."""
    return REGION_LABELS.get(name, name.replace("_", " "))


def weight_colour(weight: float) -> Colour:
    """A weight's colour: pale at 0, orange at a half, dark at 1."""
    position = float(np.clip(weight, 0, 1)) * (len(SCALE) - 1)
    index = min(int(position), len(SCALE) - 2)
    share = position - index
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(SCALE[index], SCALE[index + 1], strict=True))
    return red, green, blue


def attention_density(attention: Sequence[float], boxes: Sequence[Sequence[float]], size: int) -> NDArray[np.float32]:
    """Each region's attention spread evenly over its pixels: float32 (size, size), of mean 1 (the sum of the weights).

    Edges are softened, for they mean nothing to the pixels beside them.
    """
    density = np.zeros((size, size), np.float32)
    for weight, (x0, y0, x1, y1) in zip(attention, boxes, strict=True):
        inside = np.s_[round(y0 * size) : round(y1 * size), round(x0 * size) : round(x1 * size)]
        density[inside] += weight * size * size / max(density[inside].size, 1)
    return cv2.GaussianBlur(density, (0, 0), sigmaX=size * SOFTNESS, borderType=cv2.BORDER_REFLECT).astype(np.float32)


def tinted(face: FaceAnswer, size: int) -> Image.Image:
    """The aligned face, grey, the more orange the more attention lies on a pixel; black stays black.

    Its contrast is stretched, so that a face in the dark can be seen.
    """
    grey = ImageOps.autocontrast(Image.fromarray(face.aligned).convert("L"), cutoff=0.5, preserve_tone=True)
    grey = grey.resize((size, size), Image.Resampling.LANCZOS).convert("RGB")
    density = attention_density(face.attention, face.region_boxes, size)[..., None]
    strength = FULL_TINT * np.clip(density / FULL_DENSITY, 0, 1) ** 1.5
    pixels = np.asarray(grey, np.float32) * (1 - strength * (1 - np.array(ACCENT, np.float32) / 255))
    return Image.fromarray(pixels.astype(np.uint8))


def framed(image: NDArray[np.uint8], faces: Sequence[FaceAnswer], width: int, height: int) -> Image.Image:
    """The frame, scaled to fit width x height, with each face's box, and its expression as a tag."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    letters = 15 if size[0] >= 400 else 13
    for face in faces:
        x, y, w, h = (value * scale for value in face.box)
        draw.rounded_rectangle((x, y, x + w, y + h), radius=4, outline=BOX, width=2)
    taken: list[tuple[float, float, float, float]] = []
    for face in faces:
        x, y, w, h = (value * scale for value in face.box)
        words = f"{face.expression} {face.confidence:.0%}"
        choices = [f"{face.number}  {words}", str(face.number)] if len(faces) > 1 else [words]
        for words in choices:  # where tags would overlap, the number alone
            tag = draw.textlength(words, font=font(letters)) + 12
            left = min(max(0.0, x), max(0.0, size[0] - tag))
            top = y - letters - 9 if y >= letters + 9 else min(y + h, size[1] - letters - 8)
            spot = (left, top, left + tag, top + letters + 8)
            if not any(_overlap(spot, other) for other in taken):
                break
        taken.append(spot)
        draw.rounded_rectangle(spot, radius=4, fill=BOX)
        text(draw, (left + 6, top + (letters + 8) / 2), words, letters, anchor="lm")
    return picture


def panel(face: FaceAnswer, *, numbered: bool = False, paper: Colour = PAPER) -> Image.Image:
    """PANEL_WIDTH x PANEL_HEIGHT: the tinted face, the expression, and a row per region.

    A row shows where the region lies, its name, and a bar as long as its weight; a tick marks what is usual.
    """
    picture = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT), paper)
    draw = ImageDraw.Draw(picture)
    name = f"{face.number}  {face.expression}" if numbered else face.expression
    text(draw, (0, 0), name, 21, bold=True)
    text(draw, (FACE_PX, 4), f"{face.confidence:.0%}", 16, MUTED, anchor="ra")
    picture.paste(tinted(face, FACE_PX), (0, TITLE_PX))
    left, count = FACE_PX + 24, len(face.regions)
    text(draw, (left, 4), "what each region counted", 14, MUTED)
    row_px = min(ROW_PX, FACE_PX / count)
    for index, (region, weight, box) in enumerate(zip(face.regions, face.attention, face.region_boxes, strict=True)):
        y, tick = TITLE_PX + index * row_px, face.usual[index] if face.usual else None
        _glyph(draw, (left, y + 2), min(GLYPH_PX, row_px - 4), box, weight_colour(weight))
        _row(draw, (left + 28, y, PANEL_WIDTH, row_px), region_label(region), weight, ACCENT, tick)
    return picture


def expressions(face: FaceAnswer, *, paper: Colour = PAPER) -> Image.Image:
    """PANEL_WIDTH wide: a bar per expression, the likeliest first."""
    row_px = 24
    picture = Image.new("RGB", (PANEL_WIDTH, TITLE_PX + row_px * len(face.probabilities)), paper)
    draw = ImageDraw.Draw(picture)
    text(draw, (0, 4), "what an annotator would report", 14, MUTED)
    for index, (name, share) in enumerate(sorted(face.probabilities.items(), key=lambda item: -item[1])):
        row = (0.0, float(TITLE_PX + index * row_px), PANEL_WIDTH, row_px)
        _row(draw, row, name, share, INK if index == 0 else MUTED)
    return picture


def legend() -> Image.Image:
    """What the colours mean."""
    width, height = 320, 44
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for x in range(width):
        draw.line((x, 0, x, 12), fill=weight_colour(x / (width - 1)))
    text(draw, (0, 20), "counted 0%", 14, MUTED)
    text(draw, (width / 2, 20), "50%", 14, MUTED, anchor="ma")
    text(draw, (width - 1, 20), "100%", 14, MUTED, anchor="ra")
    return picture


def _row(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    label: str,
    value: float,
    colour: Colour,
    tick: float | None = None,
) -> None:
    """Label, bar and percentage in a box of left, top, right, height. A bar of 1 fills its groove."""
    left, top, right, height = box
    middle = top + height / 2 - 2
    start, end = left + LABEL_PX - 28, right - VALUE_PX
    text(draw, (left, middle), label, 14, anchor="lm")
    draw.rounded_rectangle((start, middle - 5, end, middle + 5), radius=2, fill=FAINT)
    if value > 0:
        draw.rectangle((start, middle - 5, start + (end - start) * value, middle + 5), fill=colour)
    if tick is not None:
        x = start + (end - start) * tick
        draw.line((x, middle - 8, x, middle + 8), fill=INK, width=1)
    text(draw, (right, middle), f"{value:.0%}", 14, anchor="rm")


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _glyph(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], size: float, box: Sequence[float], colour: Colour
) -> None:
    """A small square for the face, with the region filled."""
    x, y = at
    draw.rectangle((x, y, x + size, y + size), outline=FAINT, fill=PAPER)
    x0, y0, x1, y1 = box
    draw.rectangle((x + x0 * size, y + y0 * size, x + x1 * size, y + y1 * size), fill=colour)
