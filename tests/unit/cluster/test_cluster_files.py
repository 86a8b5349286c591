"""cluster.yaml and deploy/: against Ray's schema, an EC2 that is made up (moto), and KubeRay's own definitions."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from cfnlint.api import lint
from cfnlint.decode import cfn_yaml
from hosts import PATIENCE
from moto import mock_aws
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]
DEFINITIONS = ROOT.parent / "shared" / "fixtures" / "kuberay"
REGION = "us-east-1"
WORKERS = {"cpu": "c7i.4xlarge", "gpu": "g6e.2xlarge"}


def cluster_yaml() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An account with a private subnet in which deploy/aws.yaml was deployed; what has to be filled in."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the key of its nodes there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        ec2 = boto3.resource("ec2", REGION)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")
        subnet = vpc.create_subnet(CidrBlock="10.0.1.0/24", AvailabilityZone=f"{REGION}a")
        stacks = boto3.client("cloudformation", REGION)
        stacks.create_stack(
            StackName="mammoflow",
            TemplateBody=(ROOT / "deploy" / "aws.yaml").read_text(),
            Parameters=[{"ParameterKey": "Vpc", "ParameterValue": vpc.id}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        (stack,) = stacks.describe_stacks()["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
        yield {"subnet-REPLACE": subnet.id, "sg-REPLACE": outputs["SecurityGroup"], "bucket": outputs["Bucket"]}


def filled(config: dict[str, Any], aws: dict[str, str]) -> dict[str, Any]:
    """Fill in what a user fills in; an image that moto knows."""
    text = yaml.safe_dump(config)
    for placeholder in ("subnet-REPLACE", "sg-REPLACE"):
        text = text.replace(placeholder, aws[placeholder])
    config = yaml.safe_load(text)
    image = boto3.client("ec2", REGION).describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for node in config["available_node_types"].values():
        assert node["node_config"]["ImageId"].startswith("resolve:ssm:"), "EC2 looks it up; moto can't"
        node["node_config"]["ImageId"] = image
    return dict(config)


def test_ray_accepts_the_file() -> None:
    config = prepare_config(copy.deepcopy(cluster_yaml()))
    validate_config(config)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}, "no work but drivers"
    assert "nightly" not in str(config)
    assert "ray-wheels" not in str(config), "Ray's own set-up would install another Ray"


def test_drivers_know_which_nodes_may_come() -> None:
    config = cluster_yaml()
    (said,) = re.findall(r"MAMMOFLOW_NODES='([^']+)'", " ".join(config["head_start_ray_commands"]))
    nodes = json.loads(said)
    assert {name: kind["nodes"] for name, kind in nodes.items()} == {
        name: config["available_node_types"][name]["max_workers"] for name in WORKERS
    }
    assert nodes["gpu"]["GPU"] == 1
    cluster = yaml.safe_load((ROOT / "deploy" / "raycluster.yaml").read_text())["spec"]
    (variable,) = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    nodes = json.loads(variable["value"])
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        kind = {"nodes": group["maxReplicas"], "CPU": int(limits["cpu"])}
        if "nvidia.com/gpu" in limits:
            kind["GPU"] = int(limits["nvidia.com/gpu"])
        assert nodes[group["groupName"]] == kind


def test_the_stack_is_as_cloudformation_wants_it() -> None:
    found = lint((ROOT / "deploy" / "aws.yaml").read_text(), config={"regions": [REGION]})
    assert [f"{each.rule.id} {each.message}" for each in found] == []


@pytest.mark.slow
def test_what_is_launched_on_aws(aws: dict[str, str]) -> None:
    config = prepare_config(filled(cluster_yaml(), aws))
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    assert config["available_node_types"]["cpu"]["resources"]["CPU"] == 16
    assert config["available_node_types"]["gpu"]["resources"]["GPU"] == 1
    config = aws_config.bootstrap_aws(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, node in config["available_node_types"].items():
        provider.create_node(node["node_config"], {"ray-user-node-type": name, "ray-node-kind": "worker"}, 1)
    instances = {
        {tag["Key"]: tag["Value"] for tag in each.tags}["ray-user-node-type"]: each
        for each in boto3.resource("ec2", REGION).instances.all()
    }
    assert {name: each.instance_type for name, each in instances.items()} == {"head": "m7i.xlarge", **WORKERS}
    lifecycles = {name: each.instance_lifecycle for name, each in instances.items()}
    assert lifecycles == {"head": None, "cpu": "spot", "gpu": "spot"}
    for name, each in instances.items():
        role = "head" if name == "head" else "worker"
        assert each.iam_instance_profile["Arn"].endswith(f"instance-profile/mammoflow-{role}")
        assert each.public_ip_address is None
        assert [group["GroupId"] for group in each.security_groups] == [aws["sg-REPLACE"]]
        assert each.subnet_id == aws["subnet-REPLACE"]


def test_no_port_is_open_to_anyone_outside(aws: dict[str, str]) -> None:
    (group,) = boto3.client("ec2", REGION).describe_security_groups(GroupIds=[aws["sg-REPLACE"]])["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    assert rule["IpRanges"] == rule["Ipv6Ranges"] == []
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [aws["sg-REPLACE"]]


def test_roles_grant_no_more_than_is_needed() -> None:
    """Of the template itself: moto makes policies but doesn't attach them."""
    made = cfn_yaml.load(str(ROOT / "deploy" / "aws.yaml"))["Resources"]
    worker, head = made["WorkerRole"]["Properties"], made["HeadRole"]["Properties"]
    assert set(worker) == {"RoleName", "AssumeRolePolicyDocument"}, "the bucket alone, by the policy UseBucket"
    assert [arn.rpartition("/")[2] for arn in head["ManagedPolicyArns"]] == ["AmazonSSMManagedInstanceCore"]
    (own,) = head["Policies"]
    granted = {
        str(action): each["Resource"] for each in own["PolicyDocument"]["Statement"] for action in [each["Action"]]
    }
    assert granted["iam:PassRole"] == {"Fn::GetAtt": ["WorkerRole", "Arn"]}
    reading, using = made["UseBucket"]["Properties"]["PolicyDocument"]["Statement"]
    assert "Bucket" in str(reading["Resource"])
    assert "Bucket" in str(using["Resource"])
    assert "*" not in {*reading["Action"], *using["Action"]}


def definition(kind: str) -> dict[str, Any]:
    """Return KubeRay's schema of a kind, in which an unknown field is an error."""
    path = DEFINITIONS / f"ray.io_{kind}.yaml"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
    _close(schema)
    schema["properties"]["metadata"] = {}
    return dict(schema)


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _close(each)


@pytest.mark.parametrize(("name", "kind"), [("raycluster", "rayclusters"), ("rayjob", "rayjobs")])
def test_kuberay_accepts_the_manifest(name: str, kind: str) -> None:
    manifest = yaml.safe_load((ROOT / "deploy" / f"{name}.yaml").read_text())
    validator = jsonschema.Draft202012Validator(definition(kind))
    assert [error.message for error in validator.iter_errors(manifest)] == []
    (manifest["spec"].get("rayClusterSpec") or manifest["spec"])["headGroupSpec"]["unknown"] = 1
    assert any("unknown" in error.message for error in validator.iter_errors(manifest))


def test_manifests_have_the_groups_of_cluster_yaml() -> None:
    types = cluster_yaml()["available_node_types"]
    cluster = yaml.safe_load((ROOT / "deploy" / "raycluster.yaml").read_text())["spec"]
    job = yaml.safe_load((ROOT / "deploy" / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    assert job == cluster, "one cluster, whether it stays or comes with a job"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {each["groupName"]: each for each in cluster["workerGroupSpecs"]}
    assert set(groups) == set(WORKERS)
    for name, group in groups.items():
        assert (group["minReplicas"], group["maxReplicas"]) == (types[name]["min_workers"], types[name]["max_workers"])


def test_nodes_that_vanish_are_given_up_as_soon_as_tested() -> None:
    launcher, image = (ROOT / name for name in ("cluster.yaml", "Dockerfile"))
    for name, value in PATIENCE.items():
        assert launcher.read_text().count(f"{name}={value}") == 2, "the head's command and the workers'"
        assert f"{name}={value}" in image.read_text()
