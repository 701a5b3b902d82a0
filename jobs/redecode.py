"""Frames that were sampled before, decoded anew, with their faces as the dataset has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.drawing import FACE_PX, FaceAnswer
from jobs.face_answer import face_answers, landmarks_of
from jobs.source_frames import SampledFrame, SourceFrames
from pipeline.config import Extraction
from pipeline.errors import MediaError, UsageError
from pipeline.media.read import Frame, SegmentReader
from pipeline.media.scratch import Scratch
from pipeline.storage.options import fsspec_options
from ran_model.align import FER_TEMPLATE, align_faces


def redecode(
    frames: Sequence[SampledFrame], extraction: Extraction, storage_options: dict[str, str]
) -> Iterator[tuple[SampledFrame, NDArray[np.uint8]]]:
    """Each frame that can still be read, with its picture: uint8 (H, W, 3) RGB. `frames` in the source's order.

    Raises UsageError if the source has gone, or is another file than it was.
    """
    wanted: dict[str, dict[int, SampledFrame]] = defaultdict(dict)
    for frame in frames:
        wanted[frame.segment.segment_id][frame.position] = frame
    reader = SegmentReader(scratch=Scratch(), extraction=extraction, storage_options=fsspec_options(storage_options))
    try:
        for positions in wanted.values():
            segment = next(iter(positions.values())).segment
            for position, read in enumerate(reader.read(segment)):
                if position in positions and isinstance(read, Frame):
                    yield positions[position], read.image
                if position >= max(positions):
                    break
    except MediaError as error:
        raise UsageError(f"{segment.source_uri} can't be read again: {error.code}: {error.message}") from None
    finally:
        reader.close()


def answers(source: SourceFrames, frame: SampledFrame, image: NDArray[np.uint8]) -> list[FaceAnswer]:
    """The frame's faces for drawing, aligned anew from their stored landmarks.

    The framing is that of the models that ship with the product.
    """
    if not frame.faces:
        return []
    template_52 = np.array(FER_TEMPLATE, np.float32)
    aligned_NHWC = align_faces(image, landmarks_of(frame.faces), template_52, FACE_PX)
    return face_answers(frame.faces, aligned_NHWC, template_52, source.regions, source.usual)
