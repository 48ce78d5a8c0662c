"""The cluster, a broker on its node, and what is observed there.

Nothing is skipped: scripts/test-kubernetes promises a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kubernetes.cluster import end_namespace, get
from tests.kubernetes.shop import Shop
from tests.kubernetes.topic import NAME, Topic
from tests.live.kafka_broker import Broker
from tests.live.numbered import make_topic


@pytest.fixture(scope="session")
def node() -> tuple[str, str]:
    """Name and address of the one node."""
    nodes = get("nodes")["items"]
    assert len(nodes) == 1, "these tests know what is on the node only when there is no other"
    addresses = {one["type"]: one["address"] for one in nodes[0]["status"]["addresses"]}
    return nodes[0]["metadata"]["name"], addresses["InternalIP"]


@pytest.fixture(scope="session")
def broker(node: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Kafka, as a process of the node: pods reach it at the node's address."""
    one = Broker(tmp_path_factory.mktemp("kafka"), host=node[1])
    one.start()
    make_topic(one.address, NAME)
    yield one
    one.close()


@pytest.fixture(scope="session")
def topic(broker: Broker) -> Iterator[Topic]:
    """All that the broker gets, in all tests."""
    one = Topic(broker.address)
    yield one
    one.close()


@pytest.fixture(scope="session")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Shop]]:
    """Two namespaces: one with the label that has it captured, and one without."""
    labelled = Shop(tmp_path_factory.mktemp("shop"), "shop", **{"ebpf-api-collector/capture": "enabled"})
    other = Shop(tmp_path_factory.mktemp("other"), "other")
    yield labelled, other
    end_namespace(labelled.namespace, other.namespace)
