"""The Helm chart: nothing is recorded until it is selected, and then with the names of its pods."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.kubernetes.cluster import end_namespace, get, helm, kubectl, logs, roll_out
from tests.kubernetes.shop import AUTHORITY, KEYS, PLAIN, TLS, Shop
from tests.kubernetes.topic import Topic
from tests.kubernetes.traces import nothing_is_left, processes
from tests.live.harness import wait_for
from tests.live.kafka_broker import Broker
from tests.live.test_adversity import loaded_programs

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]

CHART = ROOT / "deploy" / "helm" / "ebpf-api-collector"
RELEASE, NAMESPACE = "collector", "ebpf-api-collector"
SELECTOR = f"app.kubernetes.io/instance={RELEASE}"
CAPTURE = "ebpf-api-collector/capture"
PROMISED_SECONDS = 2  # within which a changed label or annotation acts
KINDS = (
    *("daemonsets", "deployments", "pods", "configmaps", "secrets", "services", "serviceaccounts"),
    *("roles", "rolebindings", "clusterroles", "clusterrolebindings", "poddisruptionbudgets"),
)


def ours() -> list[str]:
    """Objects in all namespaces that are the release's, by its label."""
    found = [get(kind, "-A", "-l", SELECTOR)["items"] for kind in KINDS]
    return [f"{one['kind']}/{one['metadata']['name']}" for items in found for one in items]


@pytest.fixture(scope="module")
def installed(broker: Broker) -> Iterator[str]:
    """The name of its DaemonSet, ready. In the end it is taken away, and nothing must be left."""
    assert not processes(), "another collector is on the node"
    programs = loaded_programs()
    values = {
        "config.kafka.brokers": broker.address.replace(",", "\\,"),
        "config.agent.mirror.responseBodies": "true",
        "config.policy.preset": "off",  # bodies as they were, to compare them
        "env.AKTO_TRAFFIC_BATCH_TIME_SECS": "1",
        "env.AKTO_LOG_LEVEL": "INFO",
    }
    settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    helm("install", RELEASE, str(CHART), "-n", NAMESPACE, "--create-namespace", "--wait", *settings)
    (daemonset,) = get("daemonsets", "-n", NAMESPACE, "-l", SELECTOR)["items"]
    name = str(daemonset["metadata"]["name"])
    roll_out(f"ds/{name}", NAMESPACE)
    yield name
    helm("uninstall", RELEASE, "-n", NAMESPACE, "--wait")
    assert wait_for(lambda: ours() == [], 60, quiet=True), ours()
    assert nothing_is_left(programs), (processes(), programs, loaded_programs())
    end_namespace(NAMESPACE)


def test_its_pod_is_ready(installed: str) -> None:
    lines = kubectl("-n", NAMESPACE, "get", "pods", "-l", SELECTOR, "--no-headers").splitlines()
    assert [line.split()[1:4] for line in lines] == [["1/1", "Running", "0"]]


def test_a_labelled_namespace_is_recorded_and_another_is_not(installed: str, shops: tuple[Shop, Shop], topic: Topic) -> None:
    labelled, other = shops
    mark = uuid.uuid4().hex
    assert other.say(*(f"GET /{mark}/other/{n}" for n in range(50))) == ["200"] * 50
    assert labelled.say(*(f"GET /{mark}/shop/{n}" for n in range(50))) == ["200"] * 50
    assert len(topic.wait(f"{mark}/shop", 100)) == 100, logs(NAMESPACE, SELECTOR)
    # what is made later is sent later, so the first namespace's would be there
    labelled.say(f"GET /{mark}/last")
    topic.wait(f"{mark}/last", 2)
    assert topic.records(f"{mark}/other") == []


def test_a_record_has_the_names_of_both_pods(installed: str, shops: tuple[Shop, Shop], topic: Topic) -> None:
    shop, mark = shops[0], uuid.uuid4().hex
    assert shop.say(f"GET /{mark}") == ["200"]
    served, called = sorted(topic.wait(mark, 2), key=lambda record: record["direction"])
    for record, here, there, container in ((served, "server", "client", "plain"), (called, "client", "server", "client")):
        assert (record["namespace"], record["pod"], record["container"]) == (shop.namespace, here, container)
        assert (record["peerNamespace"], record["peerPod"]) == (shop.namespace, there)


def test_a_request_for_etc_passwd_is_recorded_with_its_status_and_pod(
    installed: str, shops: tuple[Shop, Shop], topic: Topic
) -> None:
    shop, mark = shops[0], uuid.uuid4().hex
    curl = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is")
    target = f"http://{shop.server.address}:{PLAIN}/etc/passwd?{mark}"
    assert shop.client.run(*curl, target) == "404"
    (record,) = (one for one in topic.wait(mark, 2) if one["direction"] == "1")
    assert (record["path"], record["statusCode"]) == (f"/etc/passwd?{mark}", "404")
    assert (record["namespace"], record["pod"], record["marks"]) == (shop.namespace, "server", "[]")


def test_mutual_tls_is_recorded_in_clear(installed: str, shops: tuple[Shop, Shop], topic: Topic) -> None:
    shop, mark = shops[0], uuid.uuid4().hex
    client = shop.client.talk("python3", "/programs/client.py", shop.server.address, str(TLS), KEYS, AUTHORITY)
    for n in range(20):
        assert client.say(f'POST /{mark}/{n} {{"n":"{mark}"}}') == "201"
    client.end()
    records = topic.wait(mark, 40)
    assert len(records) == 40
    for record in records:
        assert record["requestPayload"] == record["responsePayload"] == f'{{"n":"{mark}"}}'
        assert (record["tls"], record["statusCode"], record["marks"]) == ("true", "201", "[]")
        here, there = ("server", "client") if record["direction"] == "1" else ("client", "server")
        assert (record["pod"], record["peerPod"]) == (here, there)


def test_annotations_act_on_a_live_connection(installed: str, shops: tuple[Shop, Shop], topic: Topic) -> None:
    other, mark = shops[1], uuid.uuid4().hex
    client = other.client.talk("python3", "/programs/client.py", other.server.address, str(PLAIN))
    assert client.say(f"GET /{mark}/before") == "200"
    expected = []
    for n, value in enumerate(("enabled", "disabled", "enabled", "")):
        other.server.annotate(f"{CAPTURE}={value}" if value else f"{CAPTURE}-")
        time.sleep(PROMISED_SECONDS)  # the promise itself: by now it acts
        for m in range(3):
            assert client.say(f"GET /{mark}/{n}/{m}") == "200"
        if value == "enabled":
            expected += [f"/{mark}/{n}/{m}" for m in range(3)]
            topic.wait(f"{mark}/{n}/", 3)
    client.end()
    shops[0].say(f"GET /{mark}/last")
    topic.wait(f"{mark}/last", 2)
    found = [record for record in topic.records(mark) if not record["path"].endswith("last")]
    assert sorted(record["path"] for record in found) == expected
    assert {(record["direction"], record["pod"]) for record in found} == {("1", "server")}


def test_a_restart_loses_nothing_that_was_made(installed: str, shops: tuple[Shop, Shop], topic: Topic) -> None:
    mark = uuid.uuid4().hex
    assert shops[0].say(*(f"GET /{mark}/{n}" for n in range(500))) == ["200"] * 500
    kubectl("-n", NAMESPACE, "rollout", "restart", f"ds/{installed}")
    roll_out(f"ds/{installed}", NAMESPACE)
    assert len(topic.wait(mark, 1000)) == 1000
    # and the new one captures
    assert shops[0].say(f"GET /{mark}/after") == ["200"]
    topic.wait(f"{mark}/after", 2)
