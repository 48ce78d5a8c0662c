"""Faults of brokers and networks while numbered records are delivered: what was made is delivered or counted as lost.

FAULT_SECONDS says how long a fault lasts (5): docs/reliability.md has the figures for 30.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from collector.sink.delivery import Delivery
from collector.sink.kafka.destination import KafkaSettings
from collector.sink.spool import Spool
from collector.sink.spool_directory import prepare
from tests.collector.sink.kafka.test_destination import consumed, delivery, finished
from tests.conftest import skip_or_fail
from tests.live.harness import wait_for
from tests.live.kafka_broker import Broker, needs_broker

pytestmark = [pytest.mark.live, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::ResourceWarning")]
SECONDS = float(os.environ.get("FAULT_SECONDS", "2"))  # that a fault lasts, once it was noticed
BATCH, SHARDS = 20, 3
FIGURES = Path("build/faults")


def settings(brokers: str, topic: str) -> KafkaSettings:
    return KafkaSettings(brokers=brokers, topic=topic, compression="lz4", node="n")


@dataclass
class Load:
    """Batches of numbered records, fifty a second, of each shard in turn."""

    out: Delivery
    made: int = 0
    numbers: Counter[int] = field(default_factory=Counter)  # by shard

    def __enter__(self) -> Load:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        shard = 0
        while not self._end.wait(0.02):
            shard = (shard + 1) % SHARDS
            first = self.numbers[shard]
            self.numbers[shard] += BATCH
            self.made += BATCH
            self.out.submit(finished(*(b"%d %d" % (shard, first + n) for n in range(BATCH)), shard=shard))
            self.out.done()


def offsets(broker: Broker, topic: str) -> int:
    """How many records Kafka has."""
    consumer = KafkaConsumer(bootstrap_servers=broker.address, group_id=None)
    ends = consumer.end_offsets([TopicPartition(topic, partition) for partition in range(SHARDS)])
    consumer.close()
    return sum(ends.values())


def judge(load: Load, broker: Broker, topic: str, fault: str) -> dict[str, int]:
    """Everything is settled: compare what is said with what is in Kafka. The figures."""
    totals = load.out.totals
    messages = consumed(broker, topic, totals.delivered)
    order: dict[int, list[int]] = {}
    for message in messages:
        shard, number = map(int, message.value.split())
        order.setdefault(shard, []).append(number)
    distinct = sum(len(set(numbers)) for numbers in order.values())
    figures = {
        "made": load.made,
        "delivered": totals.delivered,
        "failed": totals.failed,
        "dropped": totals.dropped,
        "in_kafka": distinct,
        "offsets": offsets(broker, topic),
        "twice": len(messages) - distinct,
        "out_of_order": sum(b < a for numbers in order.values() for a, b in zip(numbers, numbers[1:], strict=False)),
    }
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{fault}.json").write_text(json.dumps(figures) + "\n")
    assert totals.delivered + totals.failed + totals.dropped == load.made, figures
    assert distinct == totals.delivered, figures
    return figures


@pytest.fixture(scope="module")
def one_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    needs_broker()
    one = Broker(tmp_path_factory.mktemp("kafka"))
    yield one
    one.close()


@pytest.fixture
def broker(one_broker: Broker) -> Broker:
    """It runs, whatever a test before has left."""
    if not one_broker.answers():
        one_broker.kill()
        one_broker.start()
    return one_broker


@pytest.fixture
def little_in_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the rest waits in front of it: in memory, or on disk."""
    monkeypatch.setattr("collector.sink.kafka.destination.IN_CLIENT_BYTES", 5_000)


def topic(broker: Broker, name: str, replicas: list[int] | None = None) -> str:
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    if replicas is None:
        admin.create_topics([NewTopic(name, SHARDS, 1)])
    else:
        assignment = {n: replicas[n % 2 :] + replicas[: n % 2] for n in range(SHARDS)}
        admin.create_topics([NewTopic(name, replica_assignments=assignment, topic_configs={"min.insync.replicas": "1"})])
    admin.close()
    return name


def partitions(broker: Broker, name: str) -> list[dict[str, Any]]:
    """As the broker knows them: who leads each, and who is in step with it. Empty when it cannot say so now."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(KafkaError), contextlib.closing(KafkaAdminClient(bootstrap_servers=broker.address)) as admin:
        (described,) = admin.describe_topics([name])
        found += described["partitions"]
    return found


def settled(out: Delivery) -> None:
    wait_for(out.queue.idle, 120)
    wait_for(lambda: out.up, 10)


def test_a_broker_is_killed(broker: Broker) -> None:
    name = topic(broker, "fault-killed")
    with delivery(settings(broker.address, name)) as out:
        with Load(out) as load:
            wait_for(lambda: out.totals.delivered, 30)
            broker.kill()
            wait_for(lambda: not out.up, 3)
            time.sleep(SECONDS)
            broker.start()
            wait_for(lambda: out.up, 60)
        settled(out)
        assert judge(load, broker, name, "killed")["delivered"] == load.made


def test_a_broker_hangs(broker: Broker) -> None:
    name = topic(broker, "fault-hangs")
    with delivery(settings(broker.address, name)) as out:
        with Load(out) as load:
            wait_for(lambda: out.totals.delivered, 30)
            with broker.stopped():
                wait_for(lambda: not out.up, 4)
                time.sleep(SECONDS)
            wait_for(lambda: out.up, 60)
        settled(out)
        assert judge(load, broker, name, "hangs")["delivered"] == load.made


@pytest.mark.usefixtures("little_in_the_client")
def test_a_broker_is_away_for_longer_than_memory_lasts(broker: Broker) -> None:
    """Without a spool the oldest give way, and are counted."""
    name = topic(broker, "fault-memory")
    with delivery(settings(broker.address, name), queue_bytes=10_000) as out:
        with Load(out) as load:
            wait_for(lambda: out.totals.delivered, 30)
            broker.kill()
            wait_for(lambda: out.totals.dropped >= 10 * BATCH, 30)
            broker.start()
            wait_for(lambda: out.up, 60)
        settled(out)
        figures = judge(load, broker, name, "memory")
        assert figures["dropped"] and not figures["failed"]


@pytest.mark.usefixtures("little_in_the_client")
def test_the_same_with_a_spool(broker: Broker, tmp_path: Path) -> None:
    name = topic(broker, "fault-spool")
    fd = prepare(str(tmp_path / "spool"))
    spool = Spool(fd, limit_bytes=1 << 26)
    os.close(fd)
    with delivery(settings(broker.address, name), queue_bytes=10_000, spool=spool) as out:
        with Load(out) as load:
            wait_for(lambda: out.totals.delivered, 30)
            broker.kill()
            wait_for(lambda: out.spooled is not None and out.spooled.spooled_records >= 10 * BATCH, 30)
            time.sleep(SECONDS)
            broker.start()
            wait_for(lambda: out.up, 60)
        wait_for(lambda: spool.records == 0, 60)
        settled(out)
        assert judge(load, broker, name, "spool")["delivered"] == load.made


def test_leaders_change(tmp_path: Path) -> None:
    """Three brokers; those that lead are killed one after the other."""
    needs_broker()
    brokers: list[Broker] = []
    with contextlib.ExitStack() as stack:
        for node in (1, 2, 3):
            (tmp_path / str(node)).mkdir()
            brokers.append(Broker(tmp_path / str(node), node=node, first=brokers[0] if brokers else None))
            stack.callback(brokers[-1].close)
        for one in brokers:
            one.start()
        name = topic(brokers[0], "fault-leaders", replicas=[2, 3])

        def all_have(what: Callable[[dict[str, Any]], bool]) -> bool:
            found = partitions(brokers[0], name)
            return len(found) == SHARDS and all(map(what, found))

        with delivery(settings(",".join(one.address for one in brokers), name)) as out:
            with Load(out) as load:
                wait_for(lambda: out.totals.delivered, 60)
                for one in brokers[1:]:
                    one.kill()
                    wait_for(lambda dead=one.node: all_have(lambda p: p["leader_id"] not in (-1, dead)), 60)  # type: ignore[misc]
                    time.sleep(SECONDS)
                    before = out.totals.delivered
                    wait_for(lambda before=before: out.totals.delivered > before + SHARDS * BATCH, 60)  # type: ignore[misc]
                    one.start()
                    wait_for(lambda: all_have(lambda p: len(p["isr_nodes"]) == 2), 60)
            settled(out)
            assert judge(load, brokers[0], name, "leaders")["delivered"] == load.made


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace 10.213.77.2 that we reach, as 10.213.77.1, by the device kafka0."""
    name = f"kafka-{os.getpid()}"
    inside = ["ip", "-n", name]
    try:
        subprocess.run(["ip", "netns", "add", name], check=True)
    except (OSError, subprocess.CalledProcessError):
        skip_or_fail("cannot make a network namespace")
    try:
        subprocess.run(["ip", "link", "add", "kafka0", "type", "veth", "peer", "name", "kafka1", "netns", name], check=True)
        for command in (
            ["ip", "addr", "add", "10.213.77.1/24", "dev", "kafka0"],
            ["ip", "link", "set", "kafka0", "up"],
            [*inside, "addr", "add", "10.213.77.2/24", "dev", "kafka1"],
            [*inside, "link", "set", "kafka1", "up"],
            [*inside, "link", "set", "lo", "up"],
        ):
            subprocess.run(command, check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_the_network_is_cut(namespace: str, tmp_path: Path) -> None:
    """No connection is refused or reset: nothing comes, and nothing goes."""
    needs_broker()
    broker = Broker(tmp_path, host="10.213.77.2", inside=("ip", "netns", "exec", namespace))
    try:
        broker.start()
        name = topic(broker, "fault-cut")
        with delivery(settings(broker.address, name)) as out:
            with Load(out) as load:
                wait_for(lambda: out.totals.delivered, 30)
                subprocess.run(["ip", "link", "set", "kafka0", "down"], check=True)
                wait_for(lambda: not out.up, 4)
                time.sleep(SECONDS)
                subprocess.run(["ip", "link", "set", "kafka0", "up"], check=True)
                wait_for(lambda: out.up, 60)
            settled(out)
            assert judge(load, broker, name, "cut")["delivered"] == load.made
    finally:
        broker.close()
