"""`--max-faces` keeps the surest faces of a frame, and says how many there were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.config import Extraction
from pipeline.extraction import ExtractedSegment
from pipeline.media.probe import probe_source
from pipeline.media.scratch import Scratch
from pipeline.media.sources import list_sources
from pipeline.segments import plan_segments
from pipeline.worker import SegmentExtractor, WorkerConfig
from ran_model.model_files import read_model_bytes
from tests.conftest import DEMO_MEDIA


@pytest.fixture(params=["left", "right"])
def two_faces(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A portrait and a darker, smaller one of it beside it, which the detector finds less sure, on either side."""
    face = Image.open(DEMO_MEDIA / "astronaut.png").convert("RGB").resize((320, 320))
    dark = ImageOps.mirror(face).resize((240, 240)).point([value // 3 for value in range(256)] * 3)
    both = Image.new("RGB", (640, 320))
    both.paste(face, (320 if request.param == "right" else 0, 0))
    both.paste(dark, (320 if request.param == "left" else 0, 0))
    both.save(tmp_path / "two.png")
    return tmp_path / "two.png"


def extracted(path: Path, model: Path, max_faces: int) -> tuple[ExtractedSegment, NDArray[np.uint8]]:
    extraction = Extraction(max_faces=max_faces)
    (source,) = list_sources([str(path)]).sources
    row = probe_source(source, scratch=Scratch(None), extraction=extraction)
    (segment,) = plan_segments(row, location=source.location, extraction=extraction)
    pixels: list[NDArray[np.uint8]] = []
    config = WorkerConfig(extraction=extraction, model_config=read_model_bytes(model)[0])
    result = SegmentExtractor(config).extract(segment, pixels.append)
    assert result.status == "ok"
    return result, np.concatenate(pixels)


def test_only_the_surest_faces_are_kept_and_all_are_counted(two_faces: Path, tiny_model: Path) -> None:
    both, pixels = extracted(two_faces, tiny_model, 2)
    assert (both.face_counts, both.faces_kept, len(pixels)) == ([2], 2, 2)
    scores = both.faces["FaceScore"].tolist()
    assert scores[0] > scores[1]

    one, its_pixels = extracted(two_faces, tiny_model, 1)
    assert (one.face_counts, one.faces_kept) == ([2], 1)
    assert {name: values.tolist() for name, values in one.faces.items()} == {
        name: values[:1].tolist() for name, values in both.faces.items()
    }
    np.testing.assert_array_equal(its_pixels, pixels[:1])
    np.testing.assert_array_equal(one.region_boxes, both.region_boxes[:1])
