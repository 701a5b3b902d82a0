"""What covering a part of the face does, on one picture: a row per cover with accuracy, and where attention goes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jobs.align_faces import align_pictures
from jobs.drawing import BACKGROUND, FAINT, INK, MUTED, PAPER, Colour, region_label, text, weight_colour
from pipeline.detect import load_detector
from ran_model.config import ModelConfig
from ran_model.occlusion_probe import CoverResult, cover
from ran_model.regions import region_boxes

WIDTH, MARGIN = 1200, 28
TITLE_PX, HEAD_PX, ROW_PX, FOOTER_PX = 88, 100, 108, 118
FACE_LEFT, FACE_PX = 46, 88
NAME_LEFT = FACE_LEFT + FACE_PX + 16
BARS_LEFT, BARS_PX, BAR_PX = 256, 210, 22
HEAT_LEFT, HEAT_RIGHT = 596, WIDTH - MARGIN - 18
GLYPH_PX, GLYPH_CELL_PX = 28, 80  # no glyphs where cells are narrower
DARK = 300  # sum of red, green and blue below which white letters read better
OTHER: Colour = (174, 181, 191)
COLOURS: dict[str, Colour] = {"RAN": INK, "single pass": OTHER}  # orange means attention in all our pictures

NOTE = (
    "Attention is how much each region counted for RAN's answer, as a mean over the faces; a row sums to 100%. Small "
    "figures: points gained or lost against faces with nothing covered. Single pass: the same trunk and a linear "
    "layer, on the whole face alone. Left is left in the picture."
)


def draw_evaluation(result: Mapping[str, Any], config: ModelConfig, path: Path) -> None:
    """Draws the occlusion probe of an evaluation (`jobs.evaluation`) that has a single-pass twin, on the bundled face.

    Raises ValueError where no face was probed, or no twin.
    """
    probes = result.get("occlusion_probe")
    if probes is None:
        raise ValueError("no face of the validation part or the full list has an expression that the model knows")
    if "single_pass" not in probes:
        raise ValueError("the figure compares with a single-pass twin: give --single-pass FILE")
    results = {
        label: [
            CoverResult(
                cover=each["cover"],
                n=each["n"],
                accuracy=each["accuracy"],
                attention_R=tuple(each["attention"].values()),
                regions=tuple(each["attention"]),
            )
            for each in probes[key]
        ]
        for label, key in (("RAN", "ran"), ("single pass", "single_pass"))
    }
    face = _bundled_face(config)
    draw_probe(
        results, {each.cover: cover(face, each.cover, config.template)[0, 0].numpy() for each in results["RAN"]}, path
    )


def _bundled_face(config: ModelConfig) -> torch.Tensor:
    """The astronaut's face, aligned, grey: uint8 (1, 1, S, S)."""
    picture = np.asarray(Image.open(Path(__file__).parent / "doctor_media" / "face.jpg").convert("RGB"))
    aligned, _, _ = align_pictures([picture], load_detector(), replace(config, colour="grey"))
    return torch.from_numpy(aligned).permute(0, 3, 1, 2)


def draw_probe(results: Mapping[str, list[CoverResult]], examples: Mapping[str, NDArray[np.uint8]], path: Path) -> None:
    """Writes a PNG, WIDTH pixels wide.

    results: of "RAN" and "single pass", the same covers and faces for both, "nothing" first: changes are
    measured from it. examples: by cover, a face (uint8 HxW) with that cover. Raises ValueError where something is
    missing.
    """
    ran, single = _checked(results, examples)
    height = TITLE_PX + HEAD_PX + len(ran) * ROW_PX + FOOTER_PX
    page = Image.new("RGB", (WIDTH, height), BACKGROUND)
    draw = ImageDraw.Draw(page)
    text(draw, (MARGIN, 22), "What happens when a part of the face is covered", 28, bold=True)
    text(draw, (MARGIN, 58), f"{ran[0].n:,} faces, the same in every row, covered with flat grey", 17, MUTED)
    draw.rounded_rectangle((MARGIN, TITLE_PX, WIDTH - MARGIN, height - FOOTER_PX), radius=8, fill=PAPER)
    top_weight = scale_end(ran)
    _head(draw, ran[0])
    for index, (of_ran, of_single) in enumerate(zip(ran, single, strict=True)):
        top = row_top(index)
        draw.line((FACE_LEFT, top, HEAT_RIGHT, top), fill=FAINT)
        _face(page, examples[of_ran.cover], top)
        text(draw, (NAME_LEFT, top + ROW_PX / 2), of_ran.cover, 18, anchor="lm")
        for place, (key, result, first) in enumerate((("RAN", of_ran, ran[0]), ("single pass", of_single, single[0]))):
            change = None if index == 0 else result.accuracy - first.accuracy
            _bar(draw, bar_middle(index, place), result.accuracy, change, COLOURS[key])
        _heat(draw, index, of_ran, None if index == 0 else ran[0], top_weight)
    _footer(draw, height - FOOTER_PX + 18, top_weight)
    page.save(path, format="PNG", optimize=True)


def row_top(index: int) -> int:
    """Where the row of a cover starts."""
    return TITLE_PX + HEAD_PX + index * ROW_PX


def bar_middle(index: int, place: int) -> int:
    """The middle of a row's upper (0) or lower (1) bar."""
    return row_top(index) + ROW_PX // 2 + (2 * place - 1) * (BAR_PX // 2 + 3)


def heat_cell(index: int, region: int, regions: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a weight's cell."""
    width = (HEAT_RIGHT - HEAT_LEFT) / regions
    top, left = row_top(index), HEAT_LEFT + region * width
    return left + 2, top + 14, left + width - 2, top + ROW_PX - 14


def scale_end(results: list[CoverResult]) -> float:
    """The weight of the darkest colour: the largest that occurs, up to whole 10%. Weights of six regions are small."""
    return math.ceil(max(weight for result in results for weight in result.attention_R) * 10 - 1e-6) / 10


def _checked(
    results: Mapping[str, list[CoverResult]], examples: Mapping[str, NDArray[np.uint8]]
) -> tuple[list[CoverResult], list[CoverResult]]:
    missing = [key for key in COLOURS if not results.get(key)]
    if missing:
        raise ValueError(f"there are no results of {', '.join(missing)}: {' and '.join(COLOURS)} are compared")
    ran, single = (results[key] for key in COLOURS)
    if [(one.cover, one.n) for one in ran] != [(one.cover, one.n) for one in single]:
        raise ValueError("the results differ in covers or in faces: both networks must be probed alike")
    if ran[0].cover != "nothing":
        raise ValueError(f"the first cover is {ran[0].cover!r}: it must be 'nothing', which changes are measured from")
    bare = [one.cover for one in ran if one.cover not in examples]
    if bare:
        raise ValueError(f"there is no example face for {', '.join(bare)}")
    return ran, single


def _head(draw: ImageDraw.ImageDraw, result: CoverResult) -> None:
    """What the columns are: covers, accuracy with the bars' colours, and the regions with a glyph each."""
    top, base = TITLE_PX + 14, TITLE_PX + HEAD_PX - 14
    text(draw, (FACE_LEFT, top), "covered", 17, MUTED)
    text(draw, (BARS_LEFT, top), "accuracy", 17, MUTED)
    x = float(BARS_LEFT)
    for name, colour in COLOURS.items():
        draw.rounded_rectangle((x, base - 14, x + 14, base), radius=3, fill=colour)
        text(draw, (x + 21, base - 7), name, 16, anchor="lm")
        x += 90
    boxes_R4 = region_boxes(ModelConfig(regions=result.regions), 1)[0]
    text(draw, (HEAT_LEFT + 2, top), "attention of RAN", 17, MUTED)
    for index, name in enumerate(result.regions):
        left, _, right, _ = heat_cell(0, index, len(result.regions))
        words_left = left
        if right - left >= GLYPH_CELL_PX:
            _glyph(draw, (left, base - GLYPH_PX), boxes_R4[index])
            words_left += GLYPH_PX + 6
        for line, word in enumerate(region_label(name).split(" ", 1)):
            text(draw, (words_left, base - 29 + line * 16), word, 14, most_px=right - words_left)


def _glyph(draw: ImageDraw.ImageDraw, at: tuple[float, float], box: NDArray[np.float32]) -> None:
    """Where a region lies in the face."""
    x, y = round(at[0]), round(at[1])
    x0, y0, x1, y1 = (round(float(edge) * GLYPH_PX) for edge in box)
    draw.rectangle((x, y, x + GLYPH_PX - 1, y + GLYPH_PX - 1), fill=FAINT)
    draw.rectangle((x + x0, y + y0, x + x1 - 1, y + y1 - 1), fill=MUTED)


def _face(page: Image.Image, face_HW: NDArray[np.uint8], top: int) -> None:
    small = Image.fromarray(face_HW).convert("RGB").resize((FACE_PX, FACE_PX), Image.Resampling.LANCZOS)
    page.paste(small, (FACE_LEFT, top + (ROW_PX - FACE_PX) // 2))


def _bar(draw: ImageDraw.ImageDraw, middle: int, accuracy: float, change: float | None, colour: Colour) -> None:
    upper, lower = middle - BAR_PX // 2, middle + BAR_PX // 2 - 1
    draw.rectangle((BARS_LEFT, upper, BARS_LEFT + BARS_PX - 1, lower), fill=FAINT)
    if round(accuracy * BARS_PX):
        draw.rectangle((BARS_LEFT, upper, BARS_LEFT + round(accuracy * BARS_PX) - 1, lower), fill=colour)
    text(draw, (BARS_LEFT + BARS_PX + 56, middle), f"{accuracy:.1%}", 17, anchor="rm")
    if change is not None:
        text(draw, (BARS_LEFT + BARS_PX + 106, middle), f"{change * 100:+.1f}", 15, MUTED, anchor="rm")


def _heat(
    draw: ImageDraw.ImageDraw, index: int, result: CoverResult, first: CoverResult | None, top_weight: float
) -> None:
    for region, weight in enumerate(result.attention_R):
        left, upper, right, lower = heat_cell(index, region, len(result.regions))
        colour = weight_colour(weight / top_weight)
        draw.rectangle((left, upper, right, lower), fill=colour)
        ink = INK if sum(colour) > DARK else PAPER
        x, y = (left + right) / 2, (upper + lower) / 2
        text(draw, (x, y if first is None else y - 10), f"{weight:.0%}", 18, ink, anchor="mm")
        if first is not None:
            text(draw, (x, y + 14), f"{(weight - first.attention_R[region]) * 100:+.1f}", 15, ink, anchor="mm")


def _footer(draw: ImageDraw.ImageDraw, top: int, top_weight: float) -> None:
    for line, words in enumerate(textwrap.wrap(NOTE, 78)):
        text(draw, (MARGIN, top + line * 21), words, 15, MUTED)
    left, width = HEAT_LEFT + 90, HEAT_RIGHT - HEAT_LEFT - 90
    text(draw, (HEAT_LEFT + 2, top + 7), "attention", 15, MUTED, anchor="lm")
    for x in range(width):
        draw.line((left + x, top, left + x, top + 14), fill=weight_colour(x / (width - 1)))
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        text(draw, (left + share * width, top + 22), f"{share * top_weight:.0%}", 15, MUTED, anchor=anchor)
