"""A hundred pods that start, ask something by programs that live for a moment, and end, while others talk: whose each
request was, is in its path.
"""

from __future__ import annotations

import collections
import threading
import time
import uuid
from typing import Any

import pytest

from tests.kubernetes.cluster import apply, get, helm, kubectl, roll_out
from tests.kubernetes.shop import IMAGE, PLAIN, Shop
from tests.kubernetes.test_chart import CHART, NAMESPACE, RELEASE, installed  # noqa: F401 - a fixture
from tests.kubernetes.topic import Topic

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1200)]

PODS, AT_ONCE, REQUESTS = 100, 20, 3
ASK = 'for n in 1 2 3; do curl -s -o /dev/null "http://$SERVER/$MARK/$NAME/$n" || exit; done'


def short_lived(name: str, server: str, mark: str) -> dict[str, Any]:
    """A pod that asks and ends."""
    said = {"SERVER": f"{server}:{PLAIN}", "MARK": mark}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "churn"}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "once",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", ASK],
                    "env": [
                        *({"name": key, "value": value} for key, value in said.items()),
                        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    ],
                }
            ],
        },
    }


def test_a_hundred_pods_that_start_and_end(
    installed: str,  # noqa: F811
    shops: tuple[Shop, Shop],
    topic: Topic,
) -> None:
    shop, mark = shops[0], uuid.uuid4().hex
    server = shop.server.address
    # everything: else the first moments of a pod are not seen, until the loader has looked at it (docs/kubernetes.md)
    everything = [
        word for name in ("allNamespaces", "hostProcesses") for word in ("--set", f"config.agent.mirror.{name}=true")
    ]
    # and CPU enough: with half a core connections are left out, and counted, while twenty containers come at once
    enough = ["--set", "agent.resources.limits.cpu=2"]
    helm("upgrade", RELEASE, str(CHART), "-n", NAMESPACE, "--reuse-values", "--wait", *everything, *enough)
    roll_out(f"ds/{installed}", NAMESPACE)
    talking = threading.Event()

    def talk() -> None:
        client = shop.client.talk("python3", "/programs/client.py", server, str(PLAIN))
        while not talking.is_set():
            assert client.say(f"GET /load-{mark}") == "200"
        client.end()

    load = threading.Thread(target=talk)
    load.start()
    try:
        for first in range(0, PODS, AT_ONCE):
            names = [f"churn-{number}" for number in range(first, first + AT_ONCE)]
            apply(*(short_lived(name, server, mark) for name in names), namespace=shop.namespace)
            deadline = time.monotonic() + 180
            while time.monotonic() < deadline:
                phases = collections.Counter(
                    pod["status"]["phase"] for pod in get("pods", "-n", shop.namespace, "-l", "app=churn")["items"]
                )
                if phases["Succeeded"] == AT_ONCE:
                    break
                time.sleep(0.5)
            assert phases == {"Succeeded": AT_ONCE}
            kubectl("-n", shop.namespace, "delete", "pods", "-l", "app=churn", "--timeout=120s", seconds=150)
    finally:
        talking.set()
        load.join(30)
    records = topic.wait(f"/{mark}/", 2 * PODS * REQUESTS, 60)
    asked = [record for record in records if record["path"].startswith(f"/{mark}/")]
    called = [record for record in asked if record["direction"] == "2"]
    served = [record for record in asked if record["direction"] == "1"]

    def owner(record: dict[str, Any]) -> str:
        return str(record["path"].split("/")[2])

    wrong = [record for record in called if record.get("pod") not in (None, owner(record))]
    wrong += [record for record in called if record.get("container") not in (None, "once")]
    wrong += [record for record in served if (record["pod"], record["container"]) != ("server", "plain")]
    wrong += [record for record in served if record.get("peerPod") not in (None, owner(record))]
    nameless = sum("pod" not in record for record in called)
    without_peer = sum("peerPod" not in record for record in served)
    assert wrong == []
    assert len(called) == len(served) == PODS * REQUESTS
    assert nameless == 0, f"{nameless} called without a pod; {without_peer} served without a peer"
