"""The way of the data: sources, segments, decode, detect, align, infer, commit. `graph.py` shows it on one screen."""

import os

# onnxruntime reports its use to its maker, and keeps an id in the temporary folder, unless it is told before it loads.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
