"""The whole way on the media beside this file: run, ask, draw. `make demo`, or `python examples/demo.py DIR`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from jobs.dataset import OpenedDataset, opened
from jobs.drawing import region_label
from jobs.text import table
from pipeline.schema import REGIONS

MEDIA = Path(__file__).parent / "media"
VIDEO = MEDIA / "portrait.mp4"
STEP_S = 0.5
NOTE = (
    "Expressions are what an annotator would report seeing, not what a person feels. Attention is how much each region "
    "of the face counted for the answer: the weights of a face sum to 100%, and the three that changed most are shown. "
    "It is not proof that something is covered."
)


def main(folder: Path) -> int:
    """Writes folder/dataset and folder/overlay.png, and prints what was found. Returns an exit code."""
    dataset, overlay = folder / "dataset", folder / "overlay.png"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"$ ran-pipeline run {_shown(MEDIA)} -o {dataset}\n", flush=True)
    code = _cli("run", _shown(MEDIA), "-o", dataset)
    if code:
        return code
    with opened(str(dataset), ()) as data:
        print("\nWhat is in each source\n\n" + textwrap.indent(per_source(data), "  "))
        print(f"\n{VIDEO.name}, over time\n\n" + textwrap.indent(over_time(data), "  "))
    print("\n" + textwrap.fill(NOTE, 100) + "\n", flush=True)
    code = _cli("overlay", dataset, VIDEO, "--to", overlay)
    if code:
        return code
    print(
        f"""
{dataset}/  the dataset: Parquet that any reader opens
{overlay}  the same answers, to look at

Next:
  ran-pipeline query {dataset} "SELECT expression, count(*) AS faces FROM faces GROUP BY 1"
  ran-pipeline overlay {dataset} portrait.mp4 --to {folder}/overlay.mp4
  ran-pipeline run YOUR_VIDEOS/ -o YOUR_DATASET"""
    )
    return 0


def per_source(data: OpenedDataset) -> str:
    """One line per source: sampled frames, faces, the most frequent expression, frames without a face."""
    rows = data.query(
        """
        SELECT parse_filename(source_uri) AS source, count(*) AS frames, sum(face_count)::BIGINT AS faces,
               any_value(expression) AS expression, 100 * avg((face_count = 0)::INT) AS empty
        FROM frames
        LEFT JOIN (SELECT source_uri, mode(expression) AS expression FROM faces GROUP BY 1) USING (source_uri)
        GROUP BY source_uri ORDER BY source_uri
        """
    )
    cells = [(r["source"], r["frames"], r["faces"], r["expression"] or "-", f"{r['empty']:.0f}%") for r in rows]
    return table(("source", "frames", "faces", "most frequent", "without a face"), cells)


def over_time(data: OpenedDataset) -> str:
    """One line per half second of the video: what was seen, and how the attention was spread."""
    regions = [name for name in REGIONS if data.query(f"SELECT count(attention_{name}) AS n FROM faces")[0]["n"]]
    means = ", ".join(f"avg(attention_{name}) AS {name}" for name in regions)
    rows = data.query(
        f"""
        SELECT floor(f."timestamp" / {STEP_S}) * {STEP_S} AS second, count(DISTINCT f.frame) AS frames,
               count(expression) AS faces, mode(expression) AS expression, avg(confidence) AS confidence, {means}
        FROM frames f LEFT JOIN faces a
          ON a.segment_id = f.segment_id AND a.frame = f.frame AND a.member IS NOT DISTINCT FROM f.member
        WHERE f.source_uri LIKE '%/{VIDEO.name}' GROUP BY 1 ORDER BY 1
        """
    )
    seen = [row for row in rows if row["faces"]]
    spans = {name: max(row[name] for row in seen) - min(row[name] for row in seen) for name in regions}
    shown = sorted(regions, key=lambda name: -spans[name])[:3]  # those that changed most
    cells = []
    for row in rows:
        counts = (f"{row['second']:.1f}", row["frames"], row["faces"])
        if row["faces"]:
            most = region_label(max(regions, key=lambda name: row[name]))
            spread = [f"{row[name]:4.0%} {'█' * round(row[name] * 16)}" for name in shown]
            cells.append((*counts, row["expression"], f"{row['confidence']:.0%}", most, *spread))
        else:
            cells.append((*counts, "-", *[""] * (2 + len(shown))))
    header = ("second", "frames", "faces", "expression", "confidence", "counted most")
    return table((*header, *map(region_label, shown)), cells)


def _cli(*arguments: str | Path) -> int:
    return subprocess.run([sys.executable, "-m", "jobs.cli", *map(str, arguments)], check=False).returncode


def _shown(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/demo.py DIR")
    sys.exit(main(Path(sys.argv[1])))
