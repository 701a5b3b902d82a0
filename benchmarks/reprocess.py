"""`reprocess` against the full run that it saves, on a two-minute clip: with kept crops, and by decoding alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.clips import repeated
from ran_model.model_files import default_model_dir

CLIP_S = 120.0


def command(*arguments: str | Path) -> dict[str, Any]:
    """The summary of a command of the product."""
    line = [sys.executable, "-m", "jobs.cli", *map(str, arguments), "--json", "--quiet"]
    answer: dict[str, Any] = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def main() -> None:
    """Prints seconds of processing (without start-up) and the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = repeated(folder / "clip.mp4", CLIP_S)
        model = folder / "model"
        shutil.copytree(default_model_dir(), model)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"version": "benchmark"}))
        for kind, options in (("crops", ["--keep-crops"]), ("decoding", [])):
            output = folder / kind
            full = command("run", clip, "-o", output, *options)
            again = command("reprocess", output, "--model", model)
            assert full["faces"] == again["faces"], (full, again)
            full_s, again_s = (answer["elapsed_s"] - answer["startup_s"] for answer in (full, again))
            print(
                f"{kind:8}: run {full_s:.1f} s, reprocess {again_s:.1f} s ({again_s / full_s:.2f}); of it reading "
                f"{again['decode_s']:.1f} s, aligning {again['detect_s']:.1f}, RAN {again['infer_s']:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
