"""How a face's answer looks: its box in the frame, and a panel with the face, the expression and what each region counted.

Pillow draws; nothing here reads a dataset. Colours are those of a diverging scale that colour-blind readers can tell apart:
orange where a region counted more than an equal share, blue where it counted less.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

INK: Colour = (27, 31, 36)
MUTED: Colour = (104, 112, 122)
FAINT: Colour = (224, 227, 232)
PAPER: Colour = (255, 255, 255)
BACKGROUND: Colour = (243, 244, 247)
MORE: Colour = (232, 89, 12)
EQUAL: Colour = (173, 181, 189)
LESS: Colour = (28, 110, 200)
BOX: Colour = (255, 200, 40)

PANEL_WIDTH, PANEL_HEIGHT = 456, 222
FACE_PX = 168
ROW_PX, GLYPH_PX = 28, 20
FULL_COLOUR = 2.0  # a region at this multiple of its equal share, or at 1/this, has the scale's end colour

REGION_LABELS = {
    "whole": "whole face",
    "top_left": "upper left",
    "top_right": "upper right",
    "center_down": "lower half",
    "center_top": "upper half",
    "center_90": "inner 90%",
    "center_85": "inner 85%",
    "center_80": "inner 80%",
    "center_75": "inner 75%",
}


@dataclass(frozen=True, kw_only=True)
class FaceAnswer:
    """One face as the dataset has it.

    number: 1-based within its frame. box: x, y, width, height in pixels of the frame. aligned: uint8 (S, S, 3) RGB.
    regions, attention: names and weights (they sum to 1). region_boxes: x0, y0, x1, y1 per region, fractions of the
    aligned square.
    """

    number: int
    box: tuple[float, float, float, float]
    expression: str
    confidence: float
    aligned: NDArray[np.uint8]
    regions: tuple[str, ...]
    attention: tuple[float, ...]
    region_boxes: tuple[tuple[float, float, float, float], ...]


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that the picture is the same on every machine."""
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
    """One line; shortened at its start beyond `most_px` pixels. The font has Latin letters only: accents are dropped."""
    words = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode() or "?"
    if most_px is not None and draw.textlength(words, font=font(size)) > most_px:
        while len(words) > 1 and draw.textlength("..." + words, font=font(size)) > most_px:
            words = words[1:]
        words = "..." + words
    draw.text(at, words, fill=colour, font=font(size), anchor=anchor, stroke_width=0.4 if bold else 0)


def share_colour(weight: float, regions: int) -> Colour:
    """A weight's colour: grey at an equal share (1 / regions), orange above, blue below."""
    ratio = max(weight * regions, 1e-6)
    strength = float(np.clip(np.log(ratio) / np.log(FULL_COLOUR), -1, 1))
    end = MORE if strength > 0 else LESS
    return _mix(EQUAL, end, abs(strength))


def attention_map(attention: Sequence[float], boxes: Sequence[Sequence[float]], size: int) -> NDArray[np.float32]:
    """How much the regions over each pixel counted, against equal shares: float32 (size, size), 1 where they agree.

    A pixel's value is the attention of all regions that hold it over what the same regions would have with equal
    shares; what overlaps is thus counted once.
    """
    given = np.zeros((size, size), np.float32)
    equal = np.zeros((size, size), np.float32)
    for weight, (x0, y0, x1, y1) in zip(attention, boxes, strict=True):
        inside = np.s_[round(y0 * size) : round(y1 * size), round(x0 * size) : round(x1 * size)]
        given[inside] += weight
        equal[inside] += 1 / len(attention)
    return np.divide(given, equal, out=np.ones_like(given), where=equal > 0)


def tinted(face: FaceAnswer, size: int, *, full_colour: float = 1.25) -> Image.Image:
    """The aligned face, grey, under its attention map: orange where it counted more than elsewhere, blue where less."""
    grey = Image.fromarray(face.aligned).convert("L").resize((size, size), Image.Resampling.LANCZOS).convert("RGB")
    ratio = attention_map(face.attention, face.region_boxes, size)
    strength = np.clip(np.log(np.maximum(ratio, 1e-6)) / np.log(full_colour), -1, 1)[..., None]
    ends = np.where(strength > 0, np.array(MORE, np.float32), np.array(LESS, np.float32))
    alpha = 0.62 * np.abs(strength)
    pixels = np.asarray(grey, np.float32) * (1 - alpha) + ends * alpha
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
        words = f"{face.expression} {face.confidence:.0%}"
        words = f"{face.number}  {words}" if len(faces) > 1 else words
        tag = draw.textlength(words, font=font(letters)) + 12
        left = min(max(0.0, x), max(0.0, size[0] - tag))
        top = y - letters - 9 if y >= letters + 9 else min(y + h, size[1] - letters - 8)
        draw.rounded_rectangle((left, top, left + tag, top + letters + 8), radius=4, fill=BOX)
        text(draw, (left + 6, top + (letters + 8) / 2), words, letters, anchor="lm")
    return picture


def panel(face: FaceAnswer, *, numbered: bool = False) -> Image.Image:
    """PANEL_WIDTH x PANEL_HEIGHT: the tinted face, the expression, and a bar per region."""
    picture = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
    name = f"{face.number}  {face.expression}" if numbered else face.expression
    text(draw, (0, 0), name, 21, bold=True)
    text(draw, (FACE_PX, 4), f"{face.confidence:.0%}", 16, MUTED, anchor="ra")
    picture.paste(tinted(face, FACE_PX), (0, 34))
    x = FACE_PX + 24
    text(draw, (x, 4), "what each region counted", 14, MUTED)
    bars(draw, (x, 34), PANEL_WIDTH - x, face)
    return picture


def bars(draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, face: FaceAnswer) -> None:
    """A row per region: where it lies, its name, a bar as long as its weight, the weight. A tick marks the equal share."""
    left, top = at
    count = len(face.regions)
    row_px = min(ROW_PX, (PANEL_HEIGHT - top) / count)
    start, end = left + 112, left + width - 40
    longest = max(2 / count, max(face.attention))
    for index, (name, weight, box) in enumerate(zip(face.regions, face.attention, face.region_boxes, strict=True)):
        y = top + index * row_px
        colour = share_colour(weight, count)
        _glyph(draw, (left, y + 2), min(GLYPH_PX, row_px - 4), box, colour)
        text(draw, (left + 28, y + row_px / 2 - 2), REGION_LABELS.get(name, name.replace("_", " ")), 14, anchor="lm")
        middle = y + row_px / 2 - 2
        draw.rounded_rectangle((start, middle - 5, end, middle + 5), radius=2, fill=BACKGROUND)
        draw.rounded_rectangle(
            (start, middle - 5, start + (end - start) * weight / longest, middle + 5), radius=2, fill=colour
        )
        tick = start + (end - start) / count / longest
        draw.line((tick, middle - 8, tick, middle + 8), fill=INK, width=1)
        text(draw, (left + width, middle), f"{weight:.0%}", 14, anchor="rm")


def _glyph(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], size: float, box: Sequence[float], colour: Colour
) -> None:
    """A small square for the face, with the region filled."""
    x, y = at
    draw.rectangle((x, y, x + size, y + size), outline=FAINT, fill=BACKGROUND)
    x0, y0, x1, y1 = box
    draw.rectangle((x + x0 * size, y + y0 * size, x + x1 * size, y + y1 * size), fill=colour)


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue
