"""The way of the data: sources, segments, decode, detect, align, infer, commit. `graph.py` shows it on one screen."""

__version__ = "0.1.0"
