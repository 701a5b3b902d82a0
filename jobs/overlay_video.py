"""The video of a source's sampled frames, each with its faces beside it and the attention over time below."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jobs import drawing
from jobs.contact_sheet import Moment
from jobs.drawing import BACKGROUND, INK, MUTED, PANEL_HEIGHT, PANEL_WIDTH, PAPER, text
from jobs.redecode import answers, redecode
from jobs.source_frames import SourceFrames
from jobs.timeline import TITLE_PX, TimeAxis, timeline
from pipeline.config import Extraction
from pipeline.errors import UsageError

TIME_BASE = Fraction(1, 90_000)
FRAME_WIDTH, FRAME_HEIGHT = 854, 540
PADDING, CAPTION_PX = 20, 34


def write_video(path: Path, source: SourceFrames, extraction: Extraction, storage_options: dict[str, str]) -> str:
    """Encodes H.264 with the frames' own presentation times; one frame is held at a time. Returns what was written.

    Raises UsageError for a source without times or with several videos, or one of which nothing can be decoded again.
    """
    if source.videos and not source.is_one_video:
        raise source.ask_for_one_video("an .mp4")
    if source.kind != "video":
        raise UsageError(f"{source.name} has no times, so an .mp4 of it makes no sense; write a .png")
    rate = extraction.rate or Fraction(30)
    strip: Image.Image | None = None
    count = 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "medium"})
        for frame, image in redecode(source.frames, extraction, storage_options):
            if strip is None:
                width = _even(_frame_size(image)[0] + PANEL_WIDTH + 3 * PADDING)
                strip = timeline(source, width - 2 * PADDING)
                axis = TimeAxis.of(source, strip.width)
                height = _even(2 * PADDING + CAPTION_PX + _area_height(image) + PADDING + strip.height + PADDING)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = TIME_BASE
            moment = Moment(frame=frame, image=image, faces=answers(source, frame, image))
            at_x = axis.x_of(frame.timestamp or 0.0)
            picture = _compose(source, moment, strip, at_x, (stream.width, stream.height))
            encoded = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            encoded.pts, encoded.time_base = round((frame.timestamp or 0.0) / TIME_BASE), TIME_BASE
            container.mux(stream.encode(encoded))
            count += 1
        if count:
            container.mux(stream.encode(None))
    if not count:
        raise UsageError(f"no frame of {source.uri} could be decoded again")
    return f"{count} sampled frames"


def _compose(
    source: SourceFrames, moment: Moment, strip: Image.Image, at_x: float, size: tuple[int, int]
) -> Image.Image:
    """at_x: where the moment is on the strip."""
    page = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(page)
    text(draw, (PADDING, PADDING - 4), source.name, 18, INK, bold=True, most_px=size[0] / 2)
    text(draw, (size[0] - PADDING, PADDING - 2), moment.caption, 16, MUTED, anchor="ra")
    top = PADDING + CAPTION_PX - 6
    frame = drawing.framed(moment.image, moment.faces, *_frame_size(moment.image))
    page.paste(frame, (PADDING, top))
    left = 2 * PADDING + frame.width
    area = _area_height(moment.image)
    for index, face in enumerate(moment.faces[: area // PANEL_HEIGHT]):
        y = top + index * PANEL_HEIGHT
        page.paste(drawing.panel(face, numbered=len(moment.faces) > 1, paper=BACKGROUND), (left, y))
    if len(moment.faces) == 1:
        likely = drawing.expressions(moment.faces[0], paper=BACKGROUND)
        if PANEL_HEIGHT + PADDING + likely.height <= area:
            page.paste(likely, (left, top + PANEL_HEIGHT + PADDING))
    below = top + area + PADDING
    draw.rectangle((0, below, size[0], size[1]), fill=PAPER)
    page.paste(strip, (PADDING, below + PADDING // 2))
    x = PADDING + at_x
    draw.line((x, below + PADDING // 2 + TITLE_PX - 6, x, below + PADDING // 2 + strip.height - 26), fill=INK, width=2)
    return page


def _frame_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """The frame's size on the page."""
    height, width = image.shape[:2]
    scale = min(FRAME_WIDTH / width, FRAME_HEIGHT / height)
    return round(width * scale), round(height * scale)


def _area_height(image: NDArray[np.uint8]) -> int:
    """Room for the frame, and for one face beside it at least."""
    return max(PANEL_HEIGHT, _frame_size(image)[1])


def _even(pixels: int) -> int:
    return pixels + pixels % 2
