"""The machines of cluster.yaml, ordered by Ray's own AWS provider from a server that speaks AWS's protocol (moto)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.conftest import ROOT

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
REGION = CONFIG["provider"]["region"]


@pytest.fixture
def aws(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An account with the roles of the page; returns the id of an image of machines."""
    for name, value in {"ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray puts the key to the machines
    iam = boto3.client("iam", region_name=REGION)
    for role in ("ran-pipeline-s3", "ran-pipeline-head"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument='{"Version":"2012-10-17","Statement":[]}')
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    return boto3.client("ec2", region_name=REGION).describe_images()["Images"][0]["ImageId"]


def test_ray_starts_each_kind_of_machine_as_it_is_written(aws: str) -> None:
    config = prepare_config(CONFIG)
    for node_type in config["available_node_types"].values():
        assert node_type["node_config"]["ImageId"] == "ami-00000000000000000"  # the one line that must be changed
        node_type["node_config"]["ImageId"] = aws
    validate_config(config)
    config = bootstrap_aws(config)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    ec2 = boto3.client("ec2", region_name=REGION)
    profiles = set()
    for name, node_type in config["available_node_types"].items():
        tags = {"ray-node-name": name, "ray-user-node-type": name}
        (node_id,) = provider.create_node(node_type["node_config"], tags, 1)
        (reservation,) = ec2.describe_instances(InstanceIds=[node_id])["Reservations"]
        (machine,) = reservation["Instances"]
        assert machine["InstanceType"] == CONFIG["available_node_types"][name]["node_config"]["InstanceType"]
        assert machine.get("InstanceLifecycle") == (None if name == "head" else "spot")
        profiles.add(machine["IamInstanceProfile"]["Arn"].rpartition("/")[2])
        (disk,) = machine["BlockDeviceMappings"]
        assert disk["DeviceName"] == machine["RootDeviceName"]
        assert disk["Ebs"]["DeleteOnTermination"]  # or each lost spot node would leave a disk that is paid for
        (volume,) = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
        assert (volume["Size"], volume["VolumeType"]) == (150 if name == "head" else 300, "gp3")
    assert profiles == {"ran-pipeline-head", "ran-pipeline-s3"}
