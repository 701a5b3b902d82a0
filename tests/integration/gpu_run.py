"""`python -m tests.integration.gpu_run INPUT OUT MODEL`: a run on a Ray that says it has a GPU, the network on the CPU.

What a GPU changes in the graph, placement and pools is the real thing; only the arithmetic isn't done there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import ray

from jobs.leaving import leave
from pipeline.driver import Driver
from pipeline.infer import InferConfig
from pipeline.prepare import prepare
from pipeline.processing import Processing
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from tests.faults.driver_process import extraction_of

if __name__ == "__main__":
    source, output, model = sys.argv[1:]
    infer_config = Processing._infer_config

    def on_the_cpu(processing: Processing) -> InferConfig:
        config = infer_config(processing)
        assert (config.device, config.batch_size) == ("cuda", 256)
        return replace(config, device="cpu")

    Processing._infer_config = on_the_cpu  # type: ignore[method-assign]
    ray.init("local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    config = RunConfig(inputs=(source,), output=output, model=model)
    with ProgressReporter(quiet=True) as progress:
        summary = Driver(config, prepare(config, extraction_of(fps="5"))).run(progress)
    print(json.dumps(summary.to_json() | {"gpus": summary.resources.gpus if summary.resources else 0}))
    leave(0)
