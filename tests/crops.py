"""A small dataset of ours with kept crops, for what needs faces without looking for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ran_model.align import FER_TEMPLATE


def kept_crops(folder: Path, labels: dict[str, tuple[str, str]]) -> tuple[Path, Path]:
    """The dataset, whose crops are noise, and a CSV of labels: expression and split by face_id. What comes before the
    first "-" of a face_id is its source."""
    template = [value for point in FER_TEMPLATE for value in point]
    rows = []
    for face in labels:
        picture = np.random.default_rng(list(face.encode())).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        png = cv2.imencode(".png", picture)[1].tobytes()
        rows.append({"face_id": face, "source_id": face.partition("-")[0], "png": png, "template": template})
    (folder / "crops").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "crops" / "part.parquet")
    return folder, write_labels(folder / "labels.csv", labels)


def write_labels(path: Path, labels: dict[str, tuple[str, str]]) -> Path:
    """The CSV of `kept_crops`, again where it is there."""
    lines = [f"{face},{expression},{split}\n" for face, (expression, split) in labels.items()]
    path.write_text("face_id,expression,split\n" + "".join(lines))
    return path
