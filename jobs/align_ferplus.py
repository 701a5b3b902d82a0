"""FERPlus through the product's own detector and alignment: what the network is trained on is what it is served.

`python -m jobs.align_ferplus ../shared/data/ferplus.parquet .cache/ferplus_96.npz` writes the aligned grey faces once;
training reads them.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from pipeline.detect import Detector, load_detector
from ran_model.align import FER_TEMPLATE, align_faces

ALIGNED_SIZE = 96
SMALLEST_FACE = 0.4  # of the picture's side; FER2013's faces fill their square, so anything smaller is a false alarm
CHUNK = 512

log = logging.getLogger(__name__)
Image = NDArray[np.uint8]


def align_training_faces(
    pictures: list[Image], detector: Detector, size: int = ALIGNED_SIZE
) -> tuple[Image, NDArray[np.bool_]]:
    """The best face of each picture (uint8 HWC RGB), aligned: uint8 (N, size, size) grey, and whether a face was found.

    Where none is found the whole picture is used: FER2013's own framing is the template.
    """
    faces = np.empty((len(pictures), size, size), dtype=np.uint8)
    is_found = np.zeros(len(pictures), dtype=np.bool_)
    template = np.array(FER_TEMPLATE, dtype=np.float32)
    for index, (picture, detected) in enumerate(zip(pictures, detector.detect(pictures), strict=True)):
        is_found[index] = len(detected) > 0 and detected.boxes_N4[0, 3] >= SMALLEST_FACE * len(picture)
        if is_found[index]:
            face = align_faces(picture, detected.landmarks_N52[:1], template, size)[0]
        else:
            face = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
        faces[index] = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    return faces, is_found


def align_ferplus(source: Path, cache: Path, *, threads: int = 2) -> None:
    """All faces of the authors' lists to one .npz: faces_NHW, is_found, and their FER2013 row numbers."""
    table = parquet.read_table(source, columns=["row", "image", "ran_split"])
    table = table.filter(table["ran_split"].is_valid())
    detector = load_detector(threads=threads, min_face_px=8, min_score=0.5)
    parts = []
    for start in range(0, len(table), CHUNK):
        encoded = table["image"].slice(start, CHUNK)
        pictures = [
            np.asarray(cv2.imdecode(np.frombuffer(one.as_py(), np.uint8), cv2.IMREAD_COLOR_RGB), dtype=np.uint8)
            for one in encoded
        ]
        parts.append(align_training_faces(pictures, detector))
        log.info("aligned %d of %d", start + len(pictures), len(table))
    faces, is_found = (np.concatenate(part) for part in zip(*parts, strict=True))
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_suffix(".unfinished.npz")
    np.savez(unfinished, faces_NHW=faces, is_found=is_found, row=table["row"].to_numpy())
    unfinished.replace(cache)
    log.info("%d faces, %d of them found by the detector", len(faces), int(is_found.sum()))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    align_ferplus(Path(sys.argv[1]), Path(sys.argv[2]))
