"""What the process that follows the API server tells the loader: one message for each pod, over a SOCK_SEQPACKET socket.

    {"kind": "all"}              from here on all pods that there are, again: this side, or the other one, is new
    {"kind": "pod", ...}         one that is new or has changed (Told)
    {"kind": "gone", "uid": U}   one that was deleted
    {"kind": "done"}             these were all: what was known before and did not come is gone

The sender has no privilege, so the loader believes it in nothing but this: what does not fit is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collector.errors import ProtocolError
from collector.kubernetes.pods import CONFIG_HASHES, HASH_LETTERS, Container, Pod

LIMIT = 200_000  # bytes of a message: the kernel takes 212,992 by default (net.core.wmem_default)
LABELS_BYTES = 8192  # of a pod, as JSON: beyond that a record says nothing of them
_TEXTS = ("uid", "namespace", "name", "node", "service_account", "workload", "labels")


@dataclass(frozen=True, slots=True)
class Told:
    """A pod, and which of its containers are captured, by id; ``otherwise``: one that it has not told of yet; ``named``: the
    same where its name is known from elsewhere. ``labels``: all, as JSON text; empty when that is longer than LABELS_BYTES.
    """

    pod: Pod
    selected: Mapping[str, bool]
    otherwise: bool
    labels: str = ""
    named: Mapping[str, bool] = field(default_factory=dict)


def pack(told: Told) -> bytes:
    """The message. What is too long in it is left out."""
    pod = told.pod
    document = {
        "kind": "pod",
        "uid": pod.uid,
        "namespace": pod.namespace,
        "name": pod.name,
        "node": pod.node,
        "service_account": pod.service_account,
        "workload": pod.workload,
        "labels": told.labels,
        "hashes": {
            name: pod.annotations[name]
            for name in CONFIG_HASHES
            if name in pod.annotations and len(pod.annotations[name]) <= HASH_LETTERS
        },
        "containers": {
            container: [described.name, described.image, told.selected.get(container, told.otherwise)]
            for container, described in pod.containers.items()
        },
        "otherwise": told.otherwise,
        "named": dict(told.named),
        "addresses": list(pod.addresses),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def labels_text(labels: Mapping[str, str]) -> str:
    """As in Told."""
    text = json.dumps(labels, separators=(",", ":"), ensure_ascii=False, sort_keys=True) if labels else ""
    return text if len(text.encode(errors="replace")) <= LABELS_BYTES else ""


def unpack(document: Mapping[str, Any]) -> Told:
    """Of a message of kind `pod`. Raises ProtocolError."""
    try:
        texts = {name: document[name] for name in _TEXTS}
        containers, hashes, addresses = document["containers"], document["hashes"], document["addresses"]
        otherwise, named = document["otherwise"], dict(document["named"])
        if not all(isinstance(text, str) for text in (*texts.values(), *hashes, *hashes.values(), *addresses, *containers)):
            raise ProtocolError("a pod: texts are wanted")
        described, selected = dict[str, Container](), dict[str, bool]()
        for container, (name, image, chosen) in containers.items():
            if not isinstance(name, str) or not isinstance(image, str) or not isinstance(chosen, bool):
                raise ProtocolError("a pod: a container that is none")
            described[container], selected[container] = Container(name, image), chosen
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"a pod: {type(error).__name__}") from None
    if not all(isinstance(chosen, bool) for chosen in named.values()):
        raise ProtocolError("a pod: truth values are wanted")
    if not isinstance(otherwise, bool) or not texts["uid"]:
        raise ProtocolError("a pod: without name")
    labels = texts.pop("labels")
    pod = Pod(**texts, annotations=hashes, containers=described, addresses=tuple(addresses))
    return Told(pod, selected, otherwise, labels, named)
