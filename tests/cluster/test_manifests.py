"""What `ray up`, Kubernetes, AWS and Docker are given, checked without any of them."""

import copy
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
CRDS = Path(os.environ.get("DEEPLAB_SHARED", ROOT.parent / "shared")) / "kuberay-crds"
MANIFESTS = sorted((ROOT / "cluster" / "kuberay").glob("*.yaml"))
# AWS's key ids, any 40 characters in a row that could be a secret key, and private keys.
SECRETS = re.compile(r"(AKIA|ASIA)[A-Z0-9]{16}|(?<![\w+/=])[\w+]{40}(?![\w+/=])|BEGIN [A-Z ]*PRIVATE KEY")


def _cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray-cluster.yaml").read_text())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the check wanted the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
class TestAwsCluster:
    def test_ray_accepts_it(self) -> None:
        validate_config(prepare_config(_cluster()))

    @pytest.mark.parametrize(
        "where", [(), ("docker",), ("auth",), ("available_node_types", "gpu"), ("available_node_types", "head")]
    )
    def test_ray_refuses_a_typo(self, where: tuple[str, ...]) -> None:
        config = _cluster()
        place = config
        for key in where:
            place = place[key]
        place["max_wrokers"] = 1
        with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
            validate_config(prepare_config(config))

    def test_ray_refuses_a_head_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match="head_node_type"):
            validate_config(prepare_config(_cluster() | {"head_node_type": "haed"}))

    def test_the_head_is_on_demand_and_does_no_work_and_workers_are_spot(self) -> None:
        types = _cluster()["available_node_types"]
        head = types.pop("head")
        assert head["resources"] == {"CPU": 0}
        assert "InstanceMarketOptions" not in head["node_config"]
        assert set(types) == {"gpu", "cpu"}
        for worker in types.values():
            assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
            assert worker["min_workers"] == 0
            assert worker["max_workers"] > 0

    def test_every_node_has_a_role_and_no_key(self) -> None:
        config = _cluster()
        for node_type in config["available_node_types"].values():
            assert node_type["node_config"]["IamInstanceProfile"]["Name"]
            assert "KeyName" not in node_type["node_config"]
        assert "aws_credentials" not in config["provider"]

    def test_every_node_wants_the_token_and_reports_nothing(self) -> None:
        config = _cluster()
        options = config["docker"]["run_options"]
        assert "--env RAY_AUTH_MODE=token" in options
        assert "--env RAY_USAGE_STATS_ENABLED=0" in options
        (token,) = [option.split("=")[1] for option in options if "RAY_AUTH_TOKEN_PATH" in option]
        assert token in config["file_mounts"]

    def test_the_region_is_the_same_everywhere(self) -> None:
        config = _cluster()
        region = config["provider"]["region"]
        zones = config["provider"]["availability_zone"].split(",")
        assert all(zone[:-1] == region for zone in zones)
        assert f"--env AWS_REGION={region}" in config["docker"]["run_options"]


def _ray_version() -> str:
    (version,) = re.findall(r'"ray\[[^"]*>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    return version


def test_all_of_them_name_the_ray_and_python_of_the_project() -> None:
    image = f"rayproject/ray:{_ray_version()}.0-py311-gpu"
    assert _cluster()["docker"]["image"] == image
    assert f"FROM {image}\n" in (ROOT / "cluster" / "Dockerfile").read_text()
    for manifest in MANIFESTS:
        assert f"rayVersion: {_ray_version()}.0\n" in manifest.read_text()


def test_the_image_is_built_from_files_that_are_there_and_sent() -> None:
    copied = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", (ROOT / "cluster" / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources >= {"pyproject.toml", "deeplab_ray", "jobs"}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources <= sent
    assert all((ROOT / source).exists() for source in sources)


def test_no_file_for_a_cluster_holds_anything_like_a_key() -> None:
    files = [ROOT / "ray-cluster.yaml", *(p for p in (ROOT / "cluster").rglob("*") if p.is_file())]
    assert len(files) >= 5
    for file in files:
        assert not SECRETS.search(file.read_text()), file


@pytest.mark.parametrize(
    "secret", ["AKIA" + "A1" * 8, "key: " + "wJalrXUtnF" * 4, "-----BEGIN RSA " + "PRIVATE KEY-----"]
)
def test_a_key_would_be_found(secret: str) -> None:
    assert SECRETS.search(f"a line\n{secret}\n")


def test_the_policy_allows_one_bucket_and_nothing_else() -> None:
    policy = json.loads((ROOT / "cluster" / "iam-policy.json").read_text())
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert statement["Resource"] in ("arn:aws:s3:::YOUR-BUCKET", "arn:aws:s3:::YOUR-BUCKET/*")
        for action in statement["Action"]:
            assert re.fullmatch(r"s3:[A-Z][A-Za-z]+", action), action


def _strict(schema: Any) -> Any:
    """A CRD's schema as plain JSON schema in which what is not named is refused, as kubectl would."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        plain.pop("anyOf", None)
        plain["type"] = ["integer", "string"]
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and not is_open:
        plain["additionalProperties"] = False
    return plain


def _schema(kind: str, api_version: str) -> dict[str, Any]:
    # A megabyte, for which the loader in Python takes 4 s.
    crd = yaml.load((CRDS / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == api_version.removeprefix("ray.io/")]
    schema = _strict(version["schema"]["openAPIV3Schema"])
    # The CRD leaves metadata to Kubernetes.
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return schema


def _documents(manifest: Path) -> list[dict[str, Any]]:
    return [
        d for d in yaml.safe_load_all(manifest.read_text(encoding="utf-8")) if d["apiVersion"].startswith("ray.io/")
    ]


@pytest.mark.skipif(not CRDS.is_dir(), reason="KubeRay's CRDs are not there (DEEPLAB_SHARED/kuberay-crds)")
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_kuberay_accepts_it_and_refuses_typos(manifest: Path) -> None:
    (document,) = _documents(manifest)
    validator = jsonschema.Draft7Validator(_schema(document["kind"], document["apiVersion"]))
    assert [error.message for error in validator.iter_errors(document)] == []

    places = [
        ("spec",),
        ("spec", "authOptions"),
        ("spec", "headGroupSpec"),
        ("spec", "workerGroupSpecs", 0),
        ("spec", "workerGroupSpecs", 1, "template", "spec"),
        ("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0),
        ("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "env", 2, "valueFrom", "secretKeyRef"),
    ]
    for path in places:
        spoilt = copy.deepcopy(document)
        place: Any = spoilt
        for key in path:
            place = place[key]
        place["tpyo"] = "x"
        assert any("tpyo" in error.message for error in validator.iter_errors(spoilt)), path


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_pods_want_the_token_and_take_keys_from_a_secret(manifest: Path) -> None:
    (document,) = _documents(manifest)
    spec = document["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert [group["groupName"] for group in spec["workerGroupSpecs"]] == ["gpu", "cpu"]
    pods = [group["template"]["spec"] for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]]
    for pod in pods:
        (container,) = pod["containers"]
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["RAY_USAGE_STATS_ENABLED"]["value"] == "0"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert environment[name]["valueFrom"]["secretKeyRef"]["optional"] is True
            assert "value" not in environment[name]
    gpus = [pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", "0") for pod in pods]
    assert gpus == ["0", "1", "0"]
