"""cluster.yaml, deploy/rayjob.yaml and deploy/Dockerfile: accepted by Ray's schema, of one version, with commands that
this package accepts."""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray._common import utils as ray_common
from ray._private import services as ray_services
from ray._private import utils as ray_utils
from ray.autoscaler._private.aws.config import DEFAULT_AMI, _check_ami
from ray.autoscaler._private.command_runner import DockerCommandRunner
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs.job_arguments import checked_arguments
from jobs.run import configuration, run_command
from pipeline import __version__
from pipeline.media.scratch import kept_free_bytes
from pipeline.resources import Cluster, share

ROOT = Path(__file__).parents[2]
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]  # type: ignore[index]
MEMORY_GIB = {"m6i.xlarge": 16, "c6i.8xlarge": 64, "g6.2xlarge": 32}
IMAGES_GIB = 100  # a machine's, with drivers and CUDA, and a container's, with torch: more than they are
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


def test_every_node_runs_the_image_of_the_dockerfile(aws: dict[str, Any], kuberay: dict[str, Any]) -> None:
    """One that has the Ray of the constraints, is tagged by this version, and that the AWS machines may pull."""
    assert f"ARG RAY={RAY}\nFROM rayproject/ray:${{RAY}}-py311\n" in DOCKERFILE
    assert kuberay["spec"]["rayClusterSpec"]["rayVersion"] == RAY
    image = f"/ran-pipeline:{__version__}"
    cluster = kuberay["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert [one["image"] for one in group["template"]["spec"]["containers"]] == [f"REGISTRY{image}"]
    registry = aws["docker"]["image"].removesuffix(image)
    assert registry == f"ACCOUNT.dkr.ecr.{aws['provider']['region']}.amazonaws.com"
    assert not [name for name, one in aws["available_node_types"].items() if "docker" in one]
    (login,) = aws["initialization_commands"]
    assert login.endswith(f" --password-stdin {registry}")
    page = (ROOT / "docs" / "cluster.md").read_text()
    build = "docker build --platform linux/amd64 -f deploy/Dockerfile -t "
    assert {f"{build}REGISTRY{image}", f"{build}{registry}{image}"} <= set(re.findall(rf"{build}\S+:[\d.]+", page))
    assert f"docker push {registry}{image}" in page
    assert f"{build}REGISTRY{image} ." in DOCKERFILE


def test_every_role_of_the_aws_cluster_is_made_on_the_page(aws: dict[str, Any]) -> None:
    """Without one of its own Ray gives the head a role that may use every bucket and cannot pull the image."""
    page = (ROOT / "docs" / "cluster.md").read_text()
    roles = {
        name: one["node_config"]["IamInstanceProfile"]["Name"] for name, one in aws["available_node_types"].items()
    }
    assert f"for role in {roles['decode']} {roles['head']}; do" in page
    assert roles["gpu"] == roles["decode"] != roles["head"]
    assert f'"Action":"iam:PassRole","Resource":"arn:aws:iam::*:role/{roles["decode"]}"' in page


def test_the_pools_of_the_aws_cluster(aws: dict[str, Any]) -> None:
    types = aws["available_node_types"]
    assert types[aws["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["decode"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "GPU" not in types["decode"]["resources"]
    assert types["gpu"]["resources"]["GPU"] == 1
    assert aws["max_workers"] == types["decode"]["max_workers"] + types["gpu"]["max_workers"]
    target = next(iter(aws["file_mounts"]))
    assert aws["file_mounts"][target] == "."
    assert aws["setup_commands"] == [f"pip install --no-cache-dir --no-deps --force-reinstall {target}"]
    assert {"**/.git", "**/.venv", "build", "*.egg-info"} <= set(aws["rsync_exclude"])


@pytest.mark.parametrize("name", ["decode", "gpu"])
def test_the_disk_of_a_worker_holds_its_scratch(name: str, aws: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    scratch_gib = {int(number) for number in re.findall(r"--scratch-gib (\d+)", page)}
    (mapping,) = aws["available_node_types"][name]["node_config"]["BlockDeviceMappings"]
    disk = mapping["Ebs"]
    assert disk["VolumeSize"] - IMAGES_GIB - kept_free_bytes(disk["VolumeSize"] << 30) / 2**30 >= max(scratch_gib)
    assert disk["Throughput"] == 1000
    assert disk["Iops"] >= 4 * disk["Throughput"]  # else AWS refuses it


def test_every_machine_has_an_image_that_is_not_rays_default(aws: dict[str, Any]) -> None:
    """Ray's is of 2023: the driver in it is too old for the CUDA that torch brings."""
    filled = copy.deepcopy(aws)
    _check_ami(filled)
    for name, node_type in filled["available_node_types"].items():
        image = node_type["node_config"]["ImageId"]
        assert image.startswith("ami-")
        assert image not in DEFAULT_AMI.values(), f"Ray chose the image of {name}"


def test_the_least_driver_is_told_wherever_gpus_are_set_up() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert "580 or newer" in page
    kubernetes = page.partition("## Kubernetes")[2].partition("\n## ")[0]
    amazon = page.partition("## AWS")[2].partition("\n## ")[0]
    assert "(#gpu-driver)" in kubernetes
    assert "(#gpu-driver)" in amazon
    assert "at least 580" in DOCKERFILE
    assert "at least 580" in (ROOT / "cluster.yaml").read_text()


@pytest.mark.parametrize("name", ["head", "decode", "gpu"])
def test_the_object_store_of_every_node_is_in_memory(
    name: str, aws: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By Ray's own arithmetic: the container's shared memory, then the object store, then where that lies."""
    total = MEMORY_GIB[aws["available_node_types"][name]["node_config"]["InstanceType"]] << 30
    available = int(0.96 * total)
    options = DockerCommandRunner._auto_configure_shm(
        SimpleNamespace(
            docker_config=aws["docker"],
            ssh_command_runner=SimpleNamespace(run=lambda *_, **__: f"MemAvailable: {available >> 10} kB".encode()),
        ),
        aws["docker"]["run_options"],
    )
    shared = _bytes(next(option for option in options if "--shm-size" in option))
    monkeypatch.setattr(ray_utils, "get_shared_memory_bytes", lambda: shared)
    monkeypatch.setattr(ray_common, "get_system_memory", lambda: total)
    size = ray_utils.resolve_object_store_memory(available)
    directory, _, kept = ray_services.determine_plasma_store_config(size, str(tmp_path))
    assert (directory, kept) == ("/dev/shm", size)
    assert size == int(0.3 * available)  # not capped: all that Ray would like to have


def _bytes(option: str) -> int:
    """Of Docker's option, in Ray's writing `--shm-size='123.4b'` or as people write it."""
    number, unit = re.fullmatch(r"--shm-size='?([\d.]+)([bg])'?", option).groups()  # type: ignore[union-attr]
    return int(float(number) * {"b": 1, "g": 2**30}[unit])


def test_a_finished_kubernetes_job_is_not_started_again_and_its_cluster_goes(kuberay: dict[str, Any]) -> None:
    spec = kuberay["spec"]
    assert "--max-error-rate 1 " in spec["entrypoint"]
    assert spec["backoffLimit"] == 2
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    assert "deletionStrategy" not in spec
    assert not [key for key in spec if key.startswith("entrypointNum")]


def test_a_broken_log_stream_does_not_fail_the_kubernetes_job(kuberay: dict[str, Any]) -> None:
    """KubeRay's submitter asks `ray job status` first, so its further tries only follow the run that is there; once
    they are used up, the job has failed and its cluster goes."""
    assert kuberay["spec"]["submissionMode"] == "K8sJobMode"
    assert kuberay["spec"]["submitterConfig"]["backoffLimit"] >= 5


def test_workers_have_nothing_of_what_the_heads_account_may(kuberay: dict[str, Any]) -> None:
    """KubeRay binds the autoscaler's rights (to change pods and Ray clusters) to the account of the head."""
    cluster = kuberay["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert head.get("automountServiceAccountToken", True)  # the autoscaler beside it needs the token
    page = (ROOT / "docs" / "cluster.md").read_text()
    for group in cluster["workerGroupSpecs"]:
        worker = group["template"]["spec"]
        assert worker["serviceAccountName"] != head["serviceAccountName"]
        assert worker["automountServiceAccountToken"] is False
        assert f"for account in {head['serviceAccountName']} {worker['serviceAccountName']}; do" in page


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
        disk_gib = int(limits["ephemeral-storage"].removesuffix("Gi"))
        assert container["resources"]["requests"]["ephemeral-storage"] == limits["ephemeral-storage"]
        assert disk_gib - kept_free_bytes(disk_gib << 30) / 2**30 >= config.scratch_gib
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


PIP = """#!/bin/sh
# No network and nothing outside: only what becomes of this package.
case "$1" in
  install) exec {python} -m pip install --quiet --no-index --no-deps --no-build-isolation --target "$SITE" . ;;
  uninstall) rm -rf "$SITE" ;;
esac
"""


def test_the_image_has_the_files_that_it_copies(tmp_path: Path) -> None:
    """The Dockerfile's own steps. A stub from the first was newer than the package's file, and took its place."""
    if not (find_spec("pip") and find_spec("setuptools")) or int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs pip and the setuptools of pyproject.toml")
    site, home, programs = tmp_path / "site", tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    (programs / "pip").write_text(PIP.format(python=shlex.quote(sys.executable)))
    (programs / "pip").chmod(0o755)
    path = os.pathsep.join(map(str, (programs, site / "bin", Path(sys.executable).parent, os.environ["PATH"])))
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(site), "SITE": str(site)}
    told = ""
    for step, words in re.findall(r"^(COPY --chown=ray:users|RUN) ((?:.*\\\n)*.*)", DOCKERFILE, re.M):
        if step == "RUN" and "torch" not in words:
            done = subprocess.run(["sh", "-c", words], cwd=home, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            told = done.stdout
        elif step != "RUN":
            for name in words.split()[:-1]:
                if (ROOT / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / name, home / name, ignore=ignored, dirs_exist_ok=True)
                else:
                    shutil.copy2(ROOT / name, home / name)
    assert told.strip().endswith(__version__)
    installed = (site / "pipeline" / "__init__.py").read_text()
    assert "ORT_DISABLE_TELEMETRY" in installed
