"""Memory of the inputs that need most: a crowd in one frame, an archive of large pictures, ten hours of video.

Each has a ceiling for the summed memory of all processes of a run on two cores, Ray and its object store included; the
benchmark fails above it. The model is a small random one with the default's aligned faces, since what is measured is
what frames and faces take, not the network.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.processes import measured_run
from benchmarks.small_model import small_model

PORTRAIT = Path(__file__).parents[1] / "examples" / "media" / "astronaut.png"
CEILINGS_MIB = {"200 faces in each frame": 5000, "3840×2160 pictures": 3200, "ten hours of video": 3200}


def main() -> None:
    """Prints faces, seconds and peak memory of each input; exits with an error above its ceiling."""
    over = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = small_model(folder / "model", aligned_size=224)
        for (what, ceiling), (source, options) in zip(
            CEILINGS_MIB.items(),
            (
                (_pictures(folder / "crowd.tar", _crowd(), 64), ["--max-faces", "256"]),
                (_pictures(folder / "large.tar", _large(), 64), []),
                (_ten_hours(folder / "long.mp4"), ["--fps", "1/5"]),
            ),
            strict=True,
        ):
            command = [sys.executable, "-m", "jobs.cli", "run", str(source), "-o", f"{source}.out", *options]
            run = measured_run([*command, "--model", str(model), "--json", "--quiet"])
            print(
                f"{what}: {run.answer['sampled_frames']} frames, {run.answer['faces']} faces in {run.seconds:.0f} s, "
                f"peak {run.mib:.0f} MiB (ceiling {ceiling})",
                flush=True,
            )
            if run.mib > ceiling:
                over.append(what)
    if over:
        sys.exit(f"over the ceiling: {', '.join(over)}")


def _face(side: int) -> Image.Image:
    return Image.open(PORTRAIT).convert("RGB").crop((120, 0, 330, 210)).resize((side, side))


def _crowd() -> Image.Image:
    """Twenty by ten faces."""
    crowd, face = Image.new("RGB", (1920, 960)), _face(96)
    for place in range(200):
        crowd.paste(face, (place % 20 * 96, place // 20 * 96))
    return crowd


def _large() -> Image.Image:
    picture = Image.new("RGB", (3840, 2160), "grey")
    picture.paste(_face(1000), (1400, 500))
    return picture


def _pictures(path: Path, picture: Image.Image, count: int) -> Path:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            entry = tarfile.TarInfo(f"{number}.jpg")
            entry.size = len(buffer.getvalue())
            archive.addfile(entry, io.BytesIO(buffer.getvalue()))
    return path


def _ten_hours(path: Path) -> Path:
    """A frame a second."""
    still = np.asarray(_face(128)).copy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "ultrafast", "g": "30"})
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for second in range(36_000):
            still[-8:] = second % 256
            frame = av.VideoFrame.from_ndarray(still, format="rgb24")
            frame.pts, frame.time_base = second, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
