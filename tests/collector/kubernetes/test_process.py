"""What the loader is told, in which order, and what is not told twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collector.kubernetes import wire
from collector.kubernetes.pods import Pod, parse_pod
from collector.kubernetes.process import Following, parse_namespace
from collector.kubernetes.selection import Scope


class Told:
    """Takes so many messages at a time."""

    def __init__(self, scope: Scope = Scope()) -> None:  # noqa: B008 - frozen
        self.room = 1000
        self.messages: list[dict[str, Any]] = []
        self.following = Following(scope, self._tell)

    def _tell(self, message: bytes) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self.messages.append(json.loads(message))
        return True

    def take(self) -> list[dict[str, Any]]:
        """What has come since the last call."""
        self.following.send()
        taken, self.messages = self.messages, []
        return taken


def document(uid: str, namespace: str = "shop", **changes: Any) -> dict[str, Any]:
    """A pod as the API server tells of it."""
    metadata = {"uid": uid, "name": f"pod-{uid}", "namespace": namespace, **changes}
    status = {"containerStatuses": [{"name": "app", "containerID": f"containerd://{uid * 64}"[:77]}]}
    return {"metadata": metadata, "status": status}


def pod(uid: str, namespace: str = "shop", **changes: Any) -> Pod | None:
    """What is made of it."""
    return parse_pod(document(uid, namespace, **changes))


def namespace(name: str, **labels: str) -> tuple[str, dict[str, str]]:
    """Likewise."""
    return parse_namespace({"metadata": {"name": name, "labels": labels}})


@pytest.fixture
def told() -> Told:
    found = Told(Scope(everything=False))
    found.following.all_again()
    return found


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message.get("uid") or message["kind"] for message in messages]


def test_nothing_before_both_lists_are_there(told: Told) -> None:
    """What a namespace says decides, so a pod is not told of before its namespace can be."""
    told.following.heard("pods", "replace", [pod("1"), pod("2")])
    assert told.take() == []
    told.following.heard("namespaces", "replace", [namespace("shop", **{"wallarm-mirror": "enabled"})])
    messages = told.take()
    assert kinds(messages) == ["all", "1", "2", "done"]
    assert all(next(iter(message["containers"].values()))[2] for message in messages[1:3])


def listed(told: Told) -> None:
    """Both lists have come."""
    told.following.heard("namespaces", "replace", [namespace("shop")])
    told.following.heard("pods", "replace", [pod("1"), pod("2")])
    assert kinds(told.take()) == ["all", "1", "2", "done"]


def test_only_what_has_changed(told: Told) -> None:
    listed(told)
    told.following.heard("pods", "put", pod("2", labels={"a": "b"}))
    told.following.heard("pods", "remove", pod("1"))
    told.following.heard("pods", "remove", pod("9"))
    assert [(message["kind"], message["uid"]) for message in told.take()] == [("pod", "2"), ("gone", "1")]
    assert told.take() == []


def test_a_pod_whose_namespace_is_not_known_waits_for_it(told: Told) -> None:
    listed(told)
    told.following.heard("pods", "put", pod("3", namespace="other"))
    assert told.take() == [] and not told.following.waiting
    told.following.heard("namespaces", "put", namespace("other", **{"wallarm-mirror": "enabled"}))
    (message,) = told.take()
    assert (message["uid"], message["otherwise"]) == ("3", True)


def test_a_container_that_is_not_known_yet_may_be_a_sidecar() -> None:
    found = Told(Scope(sidecars=frozenset({"istio-proxy"})))
    found.following.all_again()
    found.following.heard("namespaces", "replace", [namespace("shop")])
    both = {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}
    one = {"containers": [{"name": "app"}]}
    pods = [parse_pod({**document(uid), "spec": spec, "status": {}}) for uid, spec in (("1", both), ("2", one))]
    found.following.heard("pods", "replace", pods)
    assert [message["otherwise"] for message in found.take()[1:3]] == [False, True]


def test_a_label_of_a_namespace_concerns_its_pods(told: Told) -> None:
    listed(told)
    told.following.heard("namespaces", "put", namespace("shop"))
    assert told.take() == [], "nothing new"
    told.following.heard("namespaces", "put", namespace("shop", **{"wallarm-mirror": "enabled"}))
    messages = told.take()
    assert kinds(messages) == ["1", "2"] and all(message["otherwise"] for message in messages)
    told.following.heard("namespaces", "remove", namespace("shop"))
    assert not any(message["otherwise"] for message in told.take())


def test_a_new_list_says_who_is_gone(told: Told) -> None:
    listed(told)
    told.following.heard("pods", "replace", [pod("2")])
    assert ("gone", "1") in [(message["kind"], message["uid"]) for message in told.take()]
    told.following.heard("namespaces", "replace", [namespace("shop", **{"wallarm-mirror": "enabled"})])
    assert kinds(told.take()) == ["2"]


def test_whoever_is_new_is_told_all_again(told: Told) -> None:
    listed(told)
    told.following.heard("pods", "remove", pod("1"))
    told.following.all_again()
    assert kinds(told.take()) == ["all", "2", "done"]


def test_while_there_is_no_room_the_newest_state_waits(told: Told) -> None:
    listed(told)
    told.room = 0
    for number in range(10):
        told.following.heard("pods", "put", pod("2", labels={"number": str(number)}))
    assert told.take() == [] and told.following.waiting
    told.room = 5
    (message,) = told.take()
    assert message["labels"] == '{"number":"9"}' and not told.following.waiting


def test_a_pod_that_is_too_large_keeps_its_name() -> None:
    found = Told()
    found.following.all_again()
    statuses = [{"name": f"c{i}" + "x" * 50, "containerID": f"c://{i:064x}", "image": "i" * 200} for i in range(2000)]
    large = parse_pod({**document("1"), "status": {"containerStatuses": statuses}})
    found.following.heard("namespaces", "replace", [namespace("shop")])
    found.following.heard("pods", "replace", [large])
    _all, message, _done = found.take()
    told = wire.unpack(message)
    assert (told.pod.name, told.pod.containers) == ("pod-1", {})


def test_an_annotation_that_is_no_hash_does_not_keep_a_pod_from_being_told_of() -> None:
    found = Told()
    found.following.all_again()
    annotations = {"kubernetes.io/config.hash": "x" * 220_000, "kubernetes.io/config.mirror": "0" * 32}
    found.following.heard("namespaces", "replace", [namespace("shop")])
    found.following.heard("pods", "replace", [pod("1", annotations=annotations)])
    _all, message, _done = found.take()
    assert wire.unpack(message).pod.annotations == {"kubernetes.io/config.mirror": "0" * 32}


def test_odd_values_are_said_once(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    listed(told)
    for _ in range(3):
        told.following.heard("pods", "put", pod("2", annotations={"mirror.wallarm.com/enabled": "yes"}))
        told.take()
    assert caplog.text.count("neither enabled nor disabled") == 1


@pytest.mark.parametrize("what", [None, 1, [], {}, {"metadata": 1}, {"metadata": {"uid": 7}}, {"metadata": {"labels": []}}])
def test_objects_that_are_none(told: Told, what: Any) -> None:
    listed(told)
    for kind in ("put", "remove"):
        told.following.heard("pods", kind, parse_pod(what))
        told.following.heard("namespaces", kind, parse_namespace(what))
    assert told.take() == []
