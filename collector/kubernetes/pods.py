"""The pods of this node and the namespaces, as the API server tells of them (core/v1 Pod, Namespace), and whose container
that is.

A container may be asked for before its pod is known, and after it is gone: pods that were deleted are remembered for a
while, for the last bytes of their processes are read after that.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from collector.attribution.containers import Place
from collector.kubernetes.selection import Candidate

GONE_PODS = 1024  # that are remembered; the oldest give way
CONFIG_HASHES = ("kubernetes.io/config.mirror", "kubernetes.io/config.hash")  # of static pods: what their paths say
HASH_LETTERS = 64
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True, slots=True)
class Container:
    """Of a pod. ``image`` as the pod asks for it."""

    name: str
    image: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """What is known of a pod. ``workload``: kind and name of who has made it, `Deployment/shop`, or empty. ``containers``:
    by container id, those that have started. ``addresses``: its own; none where it has the node's. ``names``:
    of all containers that it is to have.
    """

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    service_account: str = ""
    workload: str = ""
    containers: Mapping[str, Container] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    lasting: frozenset[str] | None = None  # of those that are not of the beginning alone; None: not known


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> dict[str, str]:
    return {name: text for name, text in _mapping(value).items() if isinstance(text, str)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _listed(value: Any) -> Iterable[Mapping[str, Any]]:
    return [_mapping(one) for one in value] if isinstance(value, list) else []


def parse_pod(document: Any, annotations: Collection[str] | None = None) -> Pod | None:
    """A Pod object of the API; None when it has no name or UID. What else is missing or of another type counts as absent.
    ``annotations``: the names of those that are kept, beside CONFIG_HASHES; None for all.
    """
    metadata, spec, status = (_mapping(_mapping(document).get(part)) for part in ("metadata", "spec", "status"))
    uid, name = _text(metadata.get("uid")), _text(metadata.get("name"))
    if not uid or not name:
        return None
    labels = _texts(metadata.get("labels"))
    return Pod(
        uid=uid,
        namespace=_text(metadata.get("namespace")),
        name=name,
        labels=labels,
        annotations={
            name: text
            for name, text in _texts(metadata.get("annotations")).items()
            if annotations is None or name in annotations or name in CONFIG_HASHES and len(text) <= HASH_LETTERS
        },
        node=_text(spec.get("nodeName")),
        service_account=_text(spec.get("serviceAccountName")),
        workload=_workload(metadata, labels),
        containers=_containers(spec, status),
        addresses=_addresses(spec, status),
        names=tuple(
            _text(one.get("name"))
            for part in ("containers", "initContainers", "ephemeralContainers")
            for one in _listed(spec.get(part))
        ),
        lasting=frozenset(_text(one.get("name")) for one in _listed(spec.get("containers"))) or None,
    )


def _addresses(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[str, ...]:
    """Its own: not the node's, nor those that it had before it ended."""
    if spec.get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return ()
    return tuple(filter(None, (_text(one.get("ip")) for one in _listed(status.get("podIPs")))))


def _workload(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """The controller (OwnerReference); a ReplicaSet that has the hash of a Deployment's template in its name is the
    Deployment's, and a Job that has a time in minutes at its end a CronJob's.
    """
    for owner in _listed(metadata.get("ownerReferences")):
        kind, name = _text(owner.get("kind")), _text(owner.get("name"))
        if not owner.get("controller") or not kind or not name:
            continue
        template = labels.get("pod-template-hash")
        before, dash, last = name.rpartition("-")
        if kind == "ReplicaSet" and template and dash and last == template:
            return f"Deployment/{before}"
        if kind == "Job" and dash and before and len(last) == 8 and last.isdigit():
            return f"CronJob/{before}"
        return f"{kind}/{name}"
    return ""


def _containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Container]:
    """`containerID` is `runtime://id`, and empty until the container has started."""
    images = {
        _text(one.get("name")): _text(one.get("image"))
        for part in ("containers", "initContainers", "ephemeralContainers")
        for one in _listed(spec.get(part))
    }
    found: dict[str, Container] = {}
    for part in _STATUSES:
        for one in _listed(status.get(part)):
            name = _text(one.get("name"))
            states = (one, *(_mapping(_mapping(one.get(state)).get("terminated")) for state in ("state", "lastState")))
            for state in states:  # the one that runs, and the one before a restart
                container = _text(state.get("containerID")).rpartition("://")[2]
                if container and name:
                    found.setdefault(container, Container(name, images.get(name) or _text(one.get("image"))))
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """Whose a process is. ``container`` is None when the pod is known and has not told of that container yet."""

    pod: Pod
    container: Container | None


class Index:
    """All that is known, by what is asked for. Not thread-safe."""

    def __init__(self, gone_pods: int = GONE_PODS) -> None:
        self._gone_pods = gone_pods
        self._pods: dict[str, Pod] = {}
        self._gone: collections.OrderedDict[str, Pod] = collections.OrderedDict()
        self._of_container: dict[str, str] = {}  # container id -> UID
        self._of_hash: dict[str, str] = {}  # of the configuration of a static pod -> UID
        self._namespaces: dict[str, Mapping[str, str]] = {}

    def put(self, pod: Pod) -> None:
        """A pod that is new or has changed."""
        before = self._pods.get(pod.uid) or self._gone.pop(pod.uid, None)
        if before is not None:
            self._forget_names(before)
        self._pods[pod.uid] = pod
        self._of_container.update(dict.fromkeys(pod.containers, pod.uid))
        self._of_hash.update({text: pod.uid for name in CONFIG_HASHES if (text := pod.annotations.get(name))})

    def remove(self, uid: str) -> list[str]:
        """A pod that was deleted; the UIDs of those that are not remembered any longer."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return []
        self._gone[uid] = pod
        forgotten = []
        while len(self._gone) > self._gone_pods:
            forgotten.append(self._gone.popitem(last=False)[1])
            self._forget_names(forgotten[-1])
        return [one.uid for one in forgotten]

    def keep_only(self, uids: Iterable[str]) -> None:
        """A new list has come: what is not in it was deleted meanwhile."""
        for uid in set(self._pods) - set(uids):
            self.remove(uid)

    def put_namespace(self, name: str, labels: Mapping[str, str]) -> bool:
        """A namespace that is new or has changed. Are its labels others than before?"""
        before, self._namespaces[name] = self._namespaces.get(name), dict(labels)
        return before != labels

    def remove_namespace(self, name: str) -> None:
        """One that was deleted."""
        self._namespaces.pop(name, None)

    def namespaces(self) -> set[str]:
        """Their names."""
        return set(self._namespaces)

    def find(self, place: Place) -> Found | None:
        """The first of the candidates that a pod lists; or the pod of the path, which has not told of its container yet."""
        for container in place.containers:
            uid = self._of_container.get(container)
            pod = self._of(uid) if uid else None
            if pod is not None:
                return Found(pod, pod.containers.get(container))
        pod = self._of(place.pod) or self._of(self._of_hash.get(place.pod, ""))
        return None if pod is None else Found(pod, None)

    def candidate(self, found: Found) -> Candidate:
        """What the selection asks of it."""
        pod = found.pod
        return Candidate(
            namespace=pod.namespace,
            namespace_labels=self._namespaces.get(pod.namespace, {}),
            pod_labels=pod.labels,
            pod_annotations=pod.annotations,
            node=pod.node,
            container=found.container.name if found.container else "",
            beside=pod.lasting,
        )

    def __contains__(self, uid: str) -> bool:
        """Is there that pod? Not: was there."""
        return uid in self._pods

    def __len__(self) -> int:
        return len(self._pods)

    def _of(self, uid: str) -> Pod | None:
        return self._pods.get(uid) or self._gone.get(uid)

    def _forget_names(self, pod: Pod) -> None:
        for container in pod.containers:
            if self._of_container.get(container) == pod.uid:
                del self._of_container[container]
        for name in CONFIG_HASHES:
            text = pod.annotations.get(name, "")
            if self._of_hash.get(text) == pod.uid:
                del self._of_hash[text]
