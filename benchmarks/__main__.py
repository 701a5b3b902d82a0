"""Runs every benchmark, or those named: `python -m benchmarks throughput`."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = (
    "throughput",
    "decoders",
    "memory",
    "ceilings",
    "ledger_scale",
    "workers",
    "reprocess",
    "crop_on",
    "compare",
)
ONLY_BY_NAME = ("input_sizes",)  # trains first: hours on a CPU

if __name__ == "__main__":
    chosen = sys.argv[1:] or BENCHMARKS
    for name in chosen:
        if name not in (*BENCHMARKS, *ONLY_BY_NAME):
            sys.exit(f"no benchmark {name!r}; there are {', '.join((*BENCHMARKS, *ONLY_BY_NAME))}")
    for name in chosen:
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()
