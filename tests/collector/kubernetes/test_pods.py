"""Objects of the API as they come, and whose a container is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.attribution.containers import Place
from collector.kubernetes.pods import Container, Index, Pod, parse_pod

ID, NEXT, SIDECAR = "a1" * 32, "b2" * 32, "c3" * 32
HASH = "0123456789abcdef0123456789abcdef"


def document(uid: str = "u1", **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {
            "uid": uid,
            "name": "shop-7d4b9c6f5-x2x9z",
            "namespace": "shop",
            "labels": {"app": "shop", "pod-template-hash": "7d4b9c6f5"},
            "annotations": {"a": "b"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-7d4b9c6f5", "controller": True}],
        },
        "spec": {
            "nodeName": "node-1",
            "serviceAccountName": "shop",
            "containers": [{"name": "app", "image": "shop:1"}],
            "initContainers": [{"name": "proxy", "image": "mesh:2", "restartPolicy": "Always"}],
        },
        "status": {
            "containerStatuses": [{"name": "app", "image": "docker.io/shop:1", "containerID": f"containerd://{ID}"}],
            "initContainerStatuses": [{"name": "proxy", "containerID": f"containerd://{SIDECAR}"}],
        },
    }
    for path, value in changes.items():
        at = made
        *parents, last = path.split("__")
        for name in parents:
            at = at[name]
        at[last] = value
    return made


def pod(uid: str = "u1", **changes: Any) -> Pod:
    found = parse_pod(document(uid, **changes))
    assert found is not None
    return found


def test_a_pod() -> None:
    found = pod()
    assert (found.namespace, found.name, found.node, found.service_account) == (
        "shop",
        "shop-7d4b9c6f5-x2x9z",
        "node-1",
        "shop",
    )
    assert found.containers == {ID: Container("app", "shop:1"), SIDECAR: Container("proxy", "mesh:2")}
    assert found.workload == "Deployment/shop"


@pytest.mark.parametrize(
    ("owners", "labels", "workload"),
    [
        ([], {}, ""),
        ([{"kind": "ReplicaSet", "name": "web-5", "controller": True}], {}, "ReplicaSet/web-5"),
        ([{"kind": "DaemonSet", "name": "log", "controller": True}], {}, "DaemonSet/log"),
        ([{"kind": "Job", "name": "clean-29012345", "controller": True}], {}, "CronJob/clean"),
        ([{"kind": "Job", "name": "clean-now", "controller": True}], {}, "Job/clean-now"),
        ([{"kind": "X", "name": "x"}, {"kind": "StatefulSet", "name": "db", "controller": True}], {}, "StatefulSet/db"),
        ("no list", {}, ""),
    ],
)
def test_who_has_made_it(owners: Any, labels: Any, workload: str) -> None:
    assert pod(metadata__ownerReferences=owners, metadata__labels=labels).workload == workload


def test_a_container_before_and_after_a_restart() -> None:
    statuses = [
        {
            "name": "app",
            "containerID": f"cri-o://{NEXT}",
            "lastState": {"terminated": {"containerID": f"cri-o://{ID}"}},
        }
    ]
    assert set(pod(status__containerStatuses=statuses).containers) == {ID, NEXT, SIDECAR}


def test_a_container_that_has_not_started() -> None:
    index = Index()
    index.put(pod(status__containerStatuses=[{"name": "app", "containerID": ""}]))
    assert index.find(Place("", (ID,))) is None
    found = index.find(Place("u1", (ID,)))
    assert found is not None and found.pod.uid == "u1" and found.container is None
    index.put(pod())
    found = index.find(Place("u1", (ID,)))
    assert found is not None and found.container == Container("app", "shop:1")


def test_the_candidate_that_a_pod_lists_is_it() -> None:
    index = Index()
    index.put(pod())
    found = index.find(Place("", ("d4" * 32, ID)))
    assert found is not None and found.container == Container("app", "shop:1")


def test_a_static_pod_is_found_by_the_hash_of_its_configuration() -> None:
    index = Index()
    index.put(pod(metadata__annotations={"kubernetes.io/config.mirror": HASH}))
    found = index.find(Place(HASH, ("d4" * 32,)))
    assert found is not None and found.pod.uid == "u1"


def test_pods_that_are_gone_are_remembered_for_a_while() -> None:
    index = Index(gone_pods=2)
    for number in range(4):
        one = f"{number:064x}"
        index.put(pod(f"u{number}", status__containerStatuses=[{"name": "app", "containerID": f"a://{one}"}]))
    for number in range(4):
        index.remove(f"u{number}")
    there = [index.find(Place("", (f"{number:064x}",))) is not None for number in range(4)]
    assert there == [False, False, True, True] and len(index) == 0


def test_a_new_list_says_what_was_deleted_meanwhile() -> None:
    index = Index(gone_pods=0)
    index.put(pod("u1"))
    index.put(pod("u2", status={}))
    index.keep_only(["u2"])
    assert len(index) == 1 and index.find(Place("", (ID,))) is None


def test_what_the_selection_asks() -> None:
    index = Index()
    index.put_namespace("shop", {"wallarm-mirror": "enabled"})
    index.put(pod())
    found = index.find(Place("", (ID,)))
    assert found is not None
    asked = index.candidate(found)
    assert (asked.namespace, asked.node, asked.container) == ("shop", "node-1", "app")
    assert asked.namespace_labels == {"wallarm-mirror": "enabled"} and asked.pod_labels["app"] == "shop"
    index.remove_namespace("shop")
    assert index.candidate(found).namespace_labels == {}


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda one: st.lists(one, max_size=2) | st.dictionaries(st.text(max_size=4), one, max_size=2),
    max_leaves=5,
)
PATHS = st.sampled_from(
    ["metadata", "spec", "status", "metadata__labels", "metadata__ownerReferences", "spec__containers"]
    + ["status__containerStatuses", "status__initContainerStatuses", "metadata__annotations", "spec__nodeName"]
)


@given(PATHS, ANY)
def test_objects_of_another_shape_are_read_as_far_as_they_go(path: str, value: Any) -> None:
    found = parse_pod(document(**{path: value}))
    if found is not None:
        Index().put(found)


@given(ANY)
def test_anything_is_read(value: Any) -> None:
    assert parse_pod(value) is None
