"""The manifests that are applied as they are: the names of Akto's DaemonSet, and what Kubernetes takes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from collector import config
from collector.errors import ConfigError
from tests.conftest import ROOT
from tests.deploy import kubernetes
from tests.deploy.manifests import problems

FILES = [ROOT / "deploy" / name for name in ("daemonset.yaml", "daemonset-least-privilege.yaml")]
NAMES = [path.stem for path in FILES]


def only(path: Path) -> dict[str, Any]:
    """The one object of a file."""
    (found,) = kubernetes.read(path.read_text())
    return found


def pod(daemonset: dict[str, Any]) -> dict[str, Any]:
    """What its pods are to be."""
    found: dict[str, Any] = daemonset["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("version", kubernetes.VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_kubernetes_takes_it(path: Path, version: str) -> None:
    one = only(path)
    assert kubernetes.complaints(one, version) == [] and problems(one) == []


def test_what_kubernetes_would_refuse_is_refused() -> None:
    good = only(FILES[0])
    for keys, value in (
        (("spec", "template", "spec", "hostPid"), True),
        (("spec", "template", "spec", "containers", 0, "resources", "limit"), {}),
        (("spec", "template", "spec", "terminationGracePeriodSeconds"), "45"),
        (("spec", "template", "spec", "containers", 0, "env", 0, "value"), 10),
        (("kind",), "Daemonset"),
    ):
        bad = copy.deepcopy(good)
        place: Any = bad
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        for version in kubernetes.VERSIONS:
            assert kubernetes.complaints(bad, version), keys
    del good["spec"]["selector"]
    assert "'selector' is a required property" in kubernetes.complaints(good, "1.22")[0]


def test_a_name_twice_in_a_mapping_is_an_error() -> None:
    with pytest.raises(yaml.MarkedYAMLError, match="twice"):
        kubernetes.read("a: 1\nb: 2\na: 3\n")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_it_can_stand_where_aktos_daemonset_stands(path: Path) -> None:
    """Requirements 2 to 17 of that document: names, labels, host settings, resources, variables and mounts."""
    one = only(path)
    assert (one["apiVersion"], one["kind"], one["metadata"]["name"]) == ("apps/v1", "DaemonSet", "akto-k8s")
    label = {"app": "akto-collector"}
    assert one["metadata"]["labels"] == one["spec"]["selector"]["matchLabels"] == label
    assert one["spec"]["template"]["metadata"]["labels"] == label
    spec = pod(one)
    assert spec["hostNetwork"] and spec["hostPID"] and spec["dnsPolicy"] == "ClusterFirstWithHostNet"
    (container,) = spec["containers"]
    assert container["name"] == "mirror-api-logging"
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "50Mi"},
        "limits": {"cpu": "500m", "memory": "1Gi"},
    }
    said = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert said["AKTO_TRAFFIC_BATCH_TIME_SECS"] == "10" and said["AKTO_TRAFFIC_BATCH_SIZE"] == "100"
    assert said["AKTO_KAFKA_BROKER_MAL"] == "<AKTO_NLB_IP>:9092"
    paths = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in spec["volumes"]}
    mounts = {
        mount["mountPath"]: (paths[mount["name"]], mount.get("readOnly", False)) for mount in container["volumeMounts"]
    }
    assert {path: mounts[path] for path in ("/lib/modules", "/sys/kernel", "/host")} == {
        "/lib/modules": ("/lib/modules", True),
        "/sys/kernel": ("/sys/kernel", True),
        "/host": ("/", True),
    }
    if path == FILES[0]:
        assert {"SYS_PTRACE", "SYS_ADMIN"} <= set(container["securityContext"]["capabilities"]["add"])


def test_privileges() -> None:
    whole, least = (pod(only(path))["containers"][0]["securityContext"] for path in FILES)
    assert whole["privileged"] is True
    assert least.get("privileged", False) is False and least["capabilities"]["drop"] == ["ALL"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_of_the_node_is_written(path: Path) -> None:
    spec = pod(only(path))
    of_node = {volume["name"] for volume in spec["volumes"] if "hostPath" in volume}
    mounts = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] in of_node]
    assert mounts and all(mount.get("readOnly") for mount in mounts)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_collector_takes_its_variables(path: Path) -> None:
    container = pod(only(path))["containers"][0]
    assert {variable["name"] for variable in container["env"]} <= config.known_names()
    said = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    read = config.load({**said, "AKTO_KAFKA_BROKER_MAL": said["AKTO_KAFKA_BROKER_MAL"].replace("<AKTO_NLB_IP>", "10.0.0.1")})
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    written = {read.COLLECTOR_SPOOL_DIR, read.COLLECTOR_RUNTIME_DIR, read.COLLECTOR_PROGRAM_CACHE, "/tmp"}
    assert written <= mounts, "the image cannot be written to"
    assert not [text for text in read.warnings if "unknown" in text]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_broker_that_nobody_has_set_is_refused(path: Path) -> None:
    """The placeholder must not become a name that is looked up for ever."""
    said = {variable["name"]: variable.get("value") for variable in pod(only(path))["containers"][0]["env"]}
    with pytest.raises(ConfigError, match="AKTO_KAFKA_BROKER_MAL"):
        config.load({"AKTO_KAFKA_BROKER_MAL": said["AKTO_KAFKA_BROKER_MAL"]})


def test_the_image_is_of_this_version() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for path in FILES:
        _name, _, tag = pod(only(path))["containers"][0]["image"].partition(":")
        assert f'version = "{tag}"' in project
