"""A source on one page: a card per moment with the frame and its faces, and for a video the attention over time."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jobs import drawing
from jobs.drawing import BACKGROUND, INK, MUTED, PANEL_HEIGHT, PANEL_WIDTH, PAPER, FaceAnswer, text
from jobs.source_frames import SampledFrame, SourceFrames
from jobs.timeline import timeline
from pipeline.terminal import counted

MARGIN, PADDING, GAP = 28, 16, 20
HEADER_PX, FOOTER_PX, CAPTION_PX, LINE_PX = 84, 92, 34, 20
COLUMNS, FRAME_HEIGHT = 3, 300
PANELS, LARGE_PANELS = 2, 3  # faces with a panel, per moment; the rest is counted
LARGE_FRAME = 640  # longer side of the frame on a sheet of one moment

NOTE = (
    "Expressions are what an annotator would report seeing, not what a person feels. Attention is how much each "
    "region of the face counted for the answer; the weights of a face sum to 100%, and ticks mark the median over this "
    "source. It is not proof that something is covered."
)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A frame to show: its row, its picture (uint8 HWC RGB) and its faces. is_of_several: the page has other videos or
    pictures too, so that a time alone does not say which frame it is."""

    frame: SampledFrame
    image: NDArray[np.uint8]
    faces: Sequence[FaceAnswer]
    is_of_several: bool = False

    @property
    def caption(self) -> str:
        """When or where it is, and how many faces were found."""
        where = self.frame.member or ""
        if self.frame.timestamp is not None:
            where = f"{self.frame.timestamp:.2f} s, frame {self.frame.frame}"
        count = self.frame.face_count
        found = {None: "could not be read", 0: "no face found", 1: "1 face"}.get(count, f"{count} faces")
        caption = f"{where} · {found}" if where else found
        named = self.is_of_several and self.frame.timestamp is not None and self.frame.member
        return f"{caption} · {self.frame.member}" if named else caption


def contact_sheet(source: SourceFrames, moments: Sequence[Moment]) -> Image.Image:
    """The page. One moment is shown large, with its faces beside it; several as cards in three columns."""
    if len(moments) == 1:
        cards = [large_card(moments[0])]
    else:
        cards = []
        for first in range(0, len(moments), COLUMNS):
            row = moments[first : first + COLUMNS]
            height = max(_frame_height(moment.image) for moment in row)
            most = max(len(panels(moment, PANELS)) for moment in row)
            cards += [_card(moment, height, most) for moment in row]
    columns = min(COLUMNS, len(cards))
    width = 2 * MARGIN + columns * cards[0].width + (columns - 1) * GAP
    has_axis = source.is_one_video and len(source.frames) > 1
    strip = timeline(source, width - 2 * MARGIN - 2 * PADDING, moments=[m.frame for m in moments]) if has_axis else None
    height = HEADER_PX + sum(card.height + GAP for card in cards[::columns]) + FOOTER_PX
    height += strip.height + 2 * PADDING + GAP if strip else 0

    page = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(page)
    _header(draw, source, width)
    y = HEADER_PX
    for index, card in enumerate(cards):
        page.paste(card, (MARGIN + index % columns * (card.width + GAP), y))
        if index % columns == columns - 1 or index == len(cards) - 1:
            y += card.height + GAP
    if strip:
        draw.rectangle((MARGIN, y, width - MARGIN - 1, y + strip.height + 2 * PADDING - 1), fill=PAPER)
        page.paste(strip, (MARGIN + PADDING, y + PADDING))
        y += strip.height + 2 * PADDING + GAP
    _footer(page, draw, y, width)
    return page


def panels(moment: Moment, most: int) -> list[Image.Image]:
    """The panels of the faces of the highest scores, `most` of them."""
    return [drawing.panel(face, numbered=len(moment.faces) > 1) for face in moment.faces[:most]]


def large_card(moment: Moment) -> Image.Image:
    """One moment, the frame large at the left and its faces at the right."""
    frame = drawing.framed(moment.image, moment.faces, LARGE_FRAME, LARGE_FRAME)
    shown = panels(moment, LARGE_PANELS)
    if len(shown) == 1:
        shown.append(drawing.expressions(moment.faces[0]))
    height = max(frame.height, sum(panel.height + GAP for panel in shown) - GAP)
    beside = PANEL_WIDTH + GAP + PADDING if shown else 0
    card = Image.new("RGB", (frame.width + beside + 2 * PADDING, height + CAPTION_PX + 2 * PADDING), PAPER)
    draw = ImageDraw.Draw(card)
    text(draw, (PADDING, PADDING), moment.caption, 15, MUTED, most_px=card.width - 2 * PADDING)
    card.paste(frame, (PADDING, PADDING + CAPTION_PX))
    y = PADDING + CAPTION_PX
    for panel in shown:
        card.paste(panel, (PADDING + frame.width + GAP, y))
        y += panel.height + GAP
    return card


def _card(moment: Moment, frame_height: int, rows: int) -> Image.Image:
    """One moment of several: caption, frame, and the panels below."""
    width = PANEL_WIDTH + 2 * PADDING
    height = 2 * PADDING + CAPTION_PX + frame_height + rows * (PANEL_HEIGHT + GAP)
    card = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(card)
    text(draw, (PADDING, PADDING), moment.caption, 16, INK, most_px=PANEL_WIDTH)
    frame = drawing.framed(moment.image, moment.faces, PANEL_WIDTH, frame_height)
    area = Image.new("RGB", (PANEL_WIDTH, frame_height), BACKGROUND)
    area.paste(frame, ((PANEL_WIDTH - frame.width) // 2, (frame_height - frame.height) // 2))
    card.paste(area, (PADDING, PADDING + CAPTION_PX))
    for index, panel in enumerate(panels(moment, rows)):
        card.paste(panel, (PADDING, PADDING + CAPTION_PX + frame_height + GAP + index * (PANEL_HEIGHT + GAP)))
    return card


def _frame_height(image: NDArray[np.uint8]) -> int:
    height, width = image.shape[:2]
    return min(FRAME_HEIGHT, int(height * PANEL_WIDTH / width))


def _header(draw: ImageDraw.ImageDraw, source: SourceFrames, width: int) -> None:
    text(draw, (MARGIN, 22), source.name, 26, bold=True, most_px=width - 2 * MARGIN)
    faces = sum(len(frame.faces) for frame in source.frames)
    empty = sum(frame.face_count == 0 for frame in source.frames)
    sampled = sum(frame.segment.kind == "video" for frame in source.frames)
    kinds = ((len(source.frames) - sampled, "picture"), (sampled, "sampled frame"))
    frames = " and ".join(counted(count, unit) for count, unit in kinds if count) or "nothing"
    line = f"{frames}, {counted(faces, 'face')}, {empty} without a face · model {source.model_id}"
    text(draw, (MARGIN, 56), line, 15, MUTED)


def _footer(page: Image.Image, draw: ImageDraw.ImageDraw, top: int, width: int) -> None:
    scale = drawing.legend()
    page.paste(scale, (MARGIN, top))
    letters = (width - 2 * MARGIN - scale.width - 2 * GAP) // 7
    for index, line in enumerate(textwrap.wrap(NOTE, letters)[:4]):
        text(draw, (MARGIN + scale.width + 2 * GAP, top + index * LINE_PX), line, 14, MUTED)
