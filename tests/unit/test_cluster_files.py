"""cluster.yaml, deploy/rayjob.yaml and deploy/Dockerfile: accepted by Ray's schema, of one version, with commands that
this package accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs.job_arguments import checked_arguments
from jobs.run import configuration, run_command
from pipeline.resources import Cluster, share

ROOT = Path(__file__).parents[2]
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]  # type: ignore[index]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def aws() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


@pytest.fixture(scope="module")
def kuberay() -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "rayjob.yaml").read_text())
    return job


def test_ray_accepts_the_cluster_and_refuses_a_mistyped_one(aws: dict[str, Any]) -> None:
    validate_config(prepare_config(aws))
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(aws | {"idle_timeout": 5}))


def test_every_image_has_the_ray_of_the_constraints(aws: dict[str, Any], kuberay: dict[str, Any]) -> None:
    images = [aws["docker"]["image"], aws["available_node_types"]["gpu"]["docker"]["worker_image"]]
    assert images == [f"rayproject/ray:{RAY}-py311", f"rayproject/ray:{RAY}-py311-gpu"]
    assert f"ARG RAY={RAY}\nFROM rayproject/ray:${{RAY}}-py311\n" in DOCKERFILE
    assert kuberay["spec"]["rayClusterSpec"]["rayVersion"] == RAY


def test_the_pools_of_the_aws_cluster(aws: dict[str, Any]) -> None:
    types = aws["available_node_types"]
    assert types[aws["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["decode"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "GPU" not in types["decode"]["resources"]
    assert types["gpu"]["resources"]["GPU"] == 1
    assert aws["max_workers"] == types["decode"]["max_workers"] + types["gpu"]["max_workers"]
    target = next(iter(aws["file_mounts"]))
    assert aws["file_mounts"][target] == "."
    assert f"-c {target}/constraints.txt {target}" in aws["setup_commands"][0]
    assert {"**/.git", "**/.venv"} <= set(aws["rsync_exclude"])


def test_a_finished_kubernetes_job_is_not_started_again_and_its_cluster_goes(kuberay: dict[str, Any]) -> None:
    spec = kuberay["spec"]
    assert "--max-error-rate 1 " in spec["entrypoint"]
    assert spec["submitterConfig"] == {"backoffLimit": 0}
    assert spec["backoffLimit"] == 2
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    assert "deletionStrategy" not in spec
    assert not [key for key in spec if key.startswith("entrypointNum")]


def test_the_kubernetes_job_runs_a_command_that_fits_its_cluster(kuberay: dict[str, Any]) -> None:
    program, name, *arguments = shlex.split(kuberay["spec"]["entrypoint"])
    assert (program, name) == ("ran-pipeline", "run")
    assert checked_arguments(run_command, name, arguments) == arguments
    with run_command.make_context(name, list(arguments)) as context:
        options = context.params
    del options["as_json"], options["quiet"]
    _, config = configuration(options)
    cluster = kuberay["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"]
    cpus = gpus = 0
    for group in cluster["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        assert config.scratch in {mount["mountPath"] for mount in container["volumeMounts"]}
        cpus += int(limits["cpu"]) * group["maxReplicas"]
        gpus += int(limits.get("nvidia.com/gpu", 0)) * group["maxReplicas"]
    most = {"decode_actors": config.max_decode_actors, "ran_actors": config.max_ran_actors}
    assert share(Cluster(cpus=cpus, gpus=gpus), device="cuda", **most).cpus <= cpus


def test_the_image_installs_what_the_package_has(aws: dict[str, Any]) -> None:
    copied = set(re.findall(r"^COPY --chown=ray:users (.*) \S+$", DOCKERFILE, re.M))
    sources = {name for line in copied for name in line.split()}
    assert {"pipeline", "ran_model", "jobs", "pyproject.toml", "constraints.txt"} <= sources
    assert all((ROOT / name).exists() for name in sources)
    assert "-c constraints.txt" in DOCKERFILE
