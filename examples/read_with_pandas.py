"""A dataset in plain pandas, without this package: `python examples/read_with_pandas.py OUT [MODEL_ID]`.

Every sampled frame counts, also those without a face: the denominators are in `segments`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd


def main(folder: str, model_id: str | None = None) -> None:
    """Prints, per source: sampled frames, the share with a face, and the share with a confident happy face."""
    segments = pd.read_parquet(Path(folder) / "segments")
    models = sorted(segments["model_id"].unique())  # after `reprocess` there are rows of several
    if model_id is None and len(models) > 1:
        sys.exit(f"{folder} has rows of several models; add one of: {', '.join(models)}")
    columns = ["face_id", "model_id", "source_uri", "expression", "confidence", "Yaw"]  # of 73
    faces = pd.read_parquet(Path(folder) / "faces", columns=columns)
    if model_id is not None:
        faces, segments = (table[table["model_id"] == model_id] for table in (faces, segments))

    frames = segments.explode(["frames", "face_counts"])[["source_uri", "segment_id", "frames", "face_counts"]]
    frames = frames.dropna()  # a segment that failed has no frames, and a picture that could not be read no count
    by_source = frames.groupby("source_uri").agg(
        frames=("frames", "size"), with_a_face=("face_counts", lambda counts: (counts > 0).mean())
    )
    happy = faces.query("expression == 'happiness' and confidence > 0.6 and abs(Yaw) < 40")
    # members of an archive may have one name, so that only face_id tells their frames apart
    frame_ids = happy["face_id"].str.replace(r"-\d+$", "", regex=True)
    happy_frames = happy[~frame_ids.duplicated()].groupby("source_uri").size()
    by_source["happy"] = (happy_frames / by_source["frames"]).fillna(0.0)
    by_source.index = by_source.index.map(lambda uri: Path(uri).name)
    print(by_source.round(2).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
