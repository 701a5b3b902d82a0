"""Frames that were sampled before, decoded anew, with their faces as the dataset has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.drawing import FACE_PX, FaceAnswer
from jobs.source_frames import Row, SampledFrame, SourceFrames
from pipeline import schema
from pipeline.config import Extraction
from pipeline.errors import MediaError, UsageError
from pipeline.media.read import Frame, SegmentReader
from pipeline.media.scratch import Scratch
from pipeline.storage.options import fsspec_options
from ran_model.align import FER_TEMPLATE, align_faces, similarity_transform, transform_points
from ran_model.config import ModelConfig
from ran_model.regions import region_boxes


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

    The framing is that of the models that ship with the product. Regions' boxes follow from their names; the dataset
    does not hold a model's `landmark_side`, so landmark regions are drawn with its default.
    """
    if not frame.faces:
        return []
    points = [[[row[f"landmark_{name}_{axis}"] for axis in "xy"] for name in schema.LANDMARKS] for row in frame.faces]
    landmarks_N52 = np.array(points, np.float32)
    template_52 = np.array(FER_TEMPLATE, np.float32)
    aligned_NHWC = align_faces(image, landmarks_N52, template_52, FACE_PX)
    boxes_NR4 = region_boxes(
        ModelConfig(regions=source.regions),
        len(frame.faces),
        landmarks_N52=transform_points(landmarks_N52, similarity_transform(landmarks_N52, template_52, 1)),
        face_ids=[row["face_id"] for row in frame.faces],
    )
    return [
        FaceAnswer(
            number=index + 1,
            box=(row["FaceRectX"], row["FaceRectY"], row["FaceRectWidth"], row["FaceRectHeight"]),
            expression=row["expression"],
            confidence=row["confidence"],
            probabilities=_probabilities(row),
            aligned=aligned_NHWC[index],
            regions=source.regions,
            attention=tuple(source.attention(row).tolist()),
            usual=source.usual,
            region_boxes=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes_NR4[index]),
        )
        for index, row in enumerate(frame.faces)
    ]


def _probabilities(row: Row) -> dict[str, float]:
    """Of the classes that the model has."""
    shares = {name: row[f"prob_{name}"] for name in schema.EXPRESSIONS}
    return {name: share for name, share in shares.items() if share is not None}
