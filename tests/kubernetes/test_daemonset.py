"""deploy/daemonset.yaml as it is, but for the broker's address: one file, and everything on the node is recorded."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.kubernetes.cluster import end_namespace, kubectl, logs, make_namespace, pods, roll_out
from tests.kubernetes.shop import Shop
from tests.kubernetes.topic import Topic
from tests.kubernetes.traces import nothing_is_left, processes
from tests.live.kafka_broker import Broker
from tests.live.test_adversity import loaded_programs

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]

MANIFEST = ROOT / "deploy" / "daemonset.yaml"
NAMESPACE = "akto"


@pytest.fixture(scope="module")
def installed(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """The DaemonSet of the file, ready."""
    text, changed = re.subn(r'"<\w+>:9092"', f'"{broker.address}"', MANIFEST.read_text())
    assert changed == 1
    objects = list(yaml.safe_load_all(text))
    assert [one["kind"] for one in objects] == ["DaemonSet"]
    file: Path = tmp_path_factory.mktemp("daemonset") / "daemonset.yaml"
    file.write_text(text)
    assert not processes(), "another collector is on the node"
    programs = loaded_programs()
    make_namespace(NAMESPACE)
    kubectl("apply", "--validate=strict", "-n", NAMESPACE, "-f", str(file))
    roll_out("ds/" + objects[0]["metadata"]["name"], NAMESPACE)
    yield objects[0]
    kubectl("delete", "-n", NAMESPACE, "-f", str(file), "--timeout=90s")
    end_namespace(NAMESPACE)
    assert nothing_is_left(programs), (processes(), programs, loaded_programs())


def labels(daemonset: dict) -> str:
    """Its pods' labels, as a selector."""
    return ",".join(f"{name}={value}" for name, value in daemonset["spec"]["selector"]["matchLabels"].items())


def test_its_pod_is_ready(installed: dict) -> None:
    lines = kubectl("-n", NAMESPACE, "get", "pods", "-l", labels(installed), "--no-headers").splitlines()
    assert [line.split()[1:4] for line in lines] == [["1/1", "Running", "0"]]


def test_what_two_pods_say_is_recorded_in_full(installed: dict, shops: tuple[Shop, Shop], topic: Topic) -> None:
    for shop in shops:
        mark = uuid.uuid4().hex
        body = '{"order":"' + mark + '"}'
        said = [f"GET /{mark}/{n}" for n in range(50)] + [f"POST /{mark}/new {body}", f"GET /missing/{mark}"]
        assert shop.say(*said) == ["200"] * 50 + ["201", "404"]
        records = topic.wait(mark, 2 * len(said))
        assert all(record["marks"] == "[]" for record in records), logs(NAMESPACE, labels(installed))
        for direction in "12":
            ours = [record for record in records if record["direction"] == direction]
            requests = sorted(f"{record['method']} {record['path']}" for record in ours)
            assert requests == sorted(line.partition(" {")[0] for line in said)
            (new,) = (record for record in ours if record["path"].endswith("/new"))
            assert new["requestPayload"] == new["responsePayload"] == body and new["statusCode"] == "201"
            (missing,) = (record for record in ours if record["path"].startswith("/missing"))
            assert missing["statusCode"] == "404" and missing["destIp"].startswith(shop.server.address + ":")


def test_records_that_wait_are_delivered_when_its_pod_is_deleted(
    installed: dict, shops: tuple[Shop, Shop], topic: Topic
) -> None:
    (pod,) = pods(NAMESPACE, labels(installed))
    mark = uuid.uuid4().hex
    assert shops[0].say(*(f"GET /{mark}/{n}" for n in range(20))) == ["200"] * 20
    kubectl("-n", NAMESPACE, "delete", "pod", pod["metadata"]["name"], "--timeout=90s")
    assert len(topic.wait(mark, 40)) == 40
    roll_out("ds/" + installed["metadata"]["name"], NAMESPACE)
