"""Regions cut where the network runs, against regions cut by the decode actors (`--crop-on`), in two pools.

The default model's faces are about as many bytes as their regions; of 224 px in colour, regions are six times as many.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from benchmarks.clips import repeated
from benchmarks.reprocess import command
from benchmarks.small_model import small_model
from pipeline.cut import crop_shape
from pipeline.run_config import CROP_ON
from ran_model.config import ModelConfig
from ran_model.model_files import default_model_dir, read_model_bytes

PAIRS = 3
CLIP_S = {"default": 60.0, "224 px": 24.0}


def main() -> None:
    """Prints bytes per face between the pools, faces/s, and what the network's stage takes of a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = small_model(folder / "large", aligned_size=224, input_size=224, colour="rgb")
        for title, model in (("default", default_model_dir()), ("224 px", large)):
            config = ModelConfig.from_json(read_model_bytes(model)[0])
            sizes = {"device": config.aligned_size**2 * 3, "cpu": math.prod(crop_shape(config))}
            clip = repeated(folder / f"{title}.mp4", CLIP_S[title])
            options = ["--model", model, "--decode-actors", "2", "--ran-actors", "2"]
            for pair in range(PAIRS):
                rates = {}
                for crop_on in CROP_ON:
                    answer = command(
                        "run", clip, "-o", folder / f"{title}-{pair}-{crop_on}", "--crop-on", crop_on, *options
                    )
                    rates[crop_on] = answer["faces"] / (answer["elapsed_s"] - answer["startup_s"])
                    network_ms = 1000 * answer["infer_s"] / answer["faces"]
                    print(
                        f"{title}, --crop-on {crop_on}: {sizes[crop_on] / 1000:.0f} kB per face between the pools, "
                        f"{rates[crop_on]:.1f} faces/s, the network {network_ms:.1f} ms per face",
                        flush=True,
                    )
                print(f"{title}: cpu / device {rates['cpu'] / rates['device']:.2f}", flush=True)


if __name__ == "__main__":
    main()
