"""How a stored frame is to be shown: turned, mirrored, and stretched until its pixels are square."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

NEARLY_SQUARE = Fraction(1, 100)  # encoders round 1:1 to things like 3903:3904; resampling would only blur those
FLATTEST = 5  # the widest pixels in use are 2.18:1 (anamorphic DVCPRO); beyond this the ratio is damage


@dataclass(frozen=True, kw_only=True)
class Display:
    """transpose, then flip_x (left and right swapped), then flip_y; pixel_aspect: width of a stored pixel ÷ its height.

    Stretching only ever enlarges: wide pixels widen the frame, tall ones heighten it.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False
    pixel_aspect: Fraction = Fraction(1)

    @classmethod
    def of(cls, frame: VideoFrame, stream: VideoStream) -> Display:
        """From the frame's display matrix (ISO/IEC 14496-12, 6.2.2; the nearest of the eight that keep pixels on the
        grid) and the pixel shape that container or codec state."""
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        if abs(aspect - 1) < NEARLY_SQUARE or not Fraction(1, FLATTEST) <= aspect <= FLATTEST:
            aspect = Fraction(1)
        data = frame.side_data.get("DISPLAYMATRIX")
        if not isinstance(data, SideData):
            return cls(pixel_aspect=aspect)
        # x' = a·x + c·y, y' = b·x + d·y, with y downwards
        a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(flip_x=a < 0, flip_y=d < 0, pixel_aspect=aspect)
        return cls(transpose=True, flip_x=c < 0, flip_y=b < 0, pixel_aspect=aspect)

    @property
    def is_rotation(self) -> bool:
        """Whether the picture is only turned: neither mirrored nor stretched."""
        return self.pixel_aspect == 1 and (self.flip_x ^ self.flip_y) == self.transpose

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the picture made from a stored frame."""
        width, height = self._stretched(width, height)
        return (height, width) if self.transpose else (width, height)

    def picture(self, frame: VideoFrame, converter: VideoReformatter) -> NDArray[np.uint8]:
        """The frame as upright contiguous RGB (H, W, 3) with square pixels.

        Colours follow the stream's matrix and range; where it names none, BT.601 and the narrow range, as FFmpeg does.
        HDR is not tone-mapped; interlaced frames are not taken apart.
        """
        width, height = self._stretched(frame.width, frame.height)
        # one converter for all frames, on this thread: by default each frame makes its own, with a pool of threads
        image = converter.reformat(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray()
        if self.transpose:
            image = image.transpose(1, 0, 2)
        image = image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return np.ascontiguousarray(image)

    def _stretched(self, width: int, height: int) -> tuple[int, int]:
        if self.pixel_aspect >= 1:
            return round(width * self.pixel_aspect), height
        return width, round(height / self.pixel_aspect)


def first_frame(container: av.container.InputContainer, stream: VideoStream) -> VideoFrame | None:
    """One frame, which alone tells how it is to be shown and whether this codec can be decoded."""
    stream.codec_context.thread_count = 1
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                return frame
        except MemoryError:
            raise  # FFmpeg's is one of its own errors too
        except (av.FFmpegError, OSError):
            continue
    return None
