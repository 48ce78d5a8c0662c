"""A real Kafka broker: every record arrives, in Akto's form, also when the broker is killed under load."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient, NewTopic

from tests.events import validate
from tests.live.harness import Collector, Program, wait_for
from tests.live.kafka_broker import Broker, needs_broker
from tests.live.test_capture import http

pytestmark = [pytest.mark.live, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    needs_broker()
    b = Broker(tmp_path_factory.mktemp("kafka"))
    b.start()
    yield b
    b.close()


def topic(broker: Broker, name: str) -> str:
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics([NewTopic(name, 3, 1)])
    admin.close()
    return name


def consume(broker: Broker, name: str, expected: int, seconds: float = 20) -> list:
    """At least ``expected`` messages, as soon as the topic has them, and all that it has then."""
    consumer = KafkaConsumer(name, bootstrap_servers=broker.address, auto_offset_reset="earliest", group_id=None)
    out: list = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for messages in consumer.poll(timeout_ms=100).values():
            out.extend(messages)
        # a topic of these tests has no transactions, and nothing is removed from it: every offset is a message
        if len(out) >= expected and len(out) == sum(consumer.end_offsets(consumer.assignment()).values()):
            break
    consumer.close()
    return out


@pytest.fixture(scope="module")
def replayed(corpora: Path) -> tuple[list[str], list[str]]:
    """Recordings, and the records that a replay of them prints."""
    files = [str(path) for path in sorted((corpora / "libhtp" / "files").glob("*.jsonl"))]
    run = [sys.executable, "-m", "collector", "replay", *files]
    return files, subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_replay_to_kafka_is_what_replay_prints(broker: Broker, replayed: tuple[list[str], list[str]], codec: str) -> None:
    name = topic(broker, f"replay-{codec}")
    files, printed = replayed
    run = [sys.executable, "-m", "collector", "replay", *files]
    env = {
        **os.environ,
        "AKTO_KAFKA_BROKER_MAL": broker.address,
        "COLLECTOR_KAFKA_TOPIC": name,
        "COLLECTOR_COMPRESSION": codec,
    }
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    messages = consume(broker, name, len(printed))
    assert sorted(m.value.decode() for m in messages) == sorted(printed)
    detailed = 0
    for message in messages:
        record = validate(json.loads(message.value))
        assert message.key is None
        headers = dict(message.headers)
        if "collection_details" in headers:
            detailed += 1
            text = headers["collection_details"].decode("utf-8", "replace")
            assert text == f"{record['request']['host']}|{record['method']}|{record['path']}"
    assert detailed >= 10


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_what_is_captured_arrives_whole_and_in_order(live: None, broker: Broker, tmp_path: Path, codec: str) -> None:
    name = topic(broker, f"live-{codec}")
    c = Collector(
        tmp_path,
        "--output",
        "kafka",
        AKTO_KAFKA_BROKER_MAL=broker.address,
        COLLECTOR_KAFKA_TOPIC=name,
        COLLECTOR_COMPRESSION=codec,
        COLLECTOR_SHARDS="2",
        AKTO_TRAFFIC_BATCH_SIZE="50",
        AKTO_TRAFFIC_BATCH_TIME_SECS="0.5",
    )
    server = Program("echo")
    try:
        for connection in range(4):
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                for n in range(60):
                    http(sock, b"GET /%d/%d HTTP/1.1\r\nHost: h\r\n\r\n" % (connection, n))
        messages = consume(broker, name, 480)  # the last of them when they are half a second old
    finally:
        server.close()
        code = c.stop()
    assert code == 0 and len(messages) == 480, c.log()[-2000:]
    assert len(consume(broker, name, 480)) == 480  # none came behind them
    order: dict[tuple[str, str], list[int]] = {}
    for message in messages:
        record = validate(json.loads(message.value))
        _, connection_, number = record["path"].split("/")
        order.setdefault((record["direction"], connection_), []).append(int(number))
        assert message.headers == [("collection_details", f"h|GET|{record['path']}".encode())] and message.key is None
    assert len(order) == 8 and all(numbers == list(range(60)) for numbers in order.values())
    assert len({message.partition for message in messages}) <= 2  # a shard has one


def test_broker_killed_under_load_loses_nothing(live: None, broker: Broker, tmp_path: Path) -> None:
    name = topic(broker, "killed")
    c = Collector(
        tmp_path,
        "--output",
        "kafka",
        AKTO_KAFKA_BROKER_MAL=broker.address,
        COLLECTOR_KAFKA_TOPIC=name,
        AKTO_TRAFFIC_BATCH_TIME_SECS="0.2",
    )
    server = Program("echo")
    sent = 0
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            for phase in range(3):
                for _ in range(300):
                    http(sock, b"GET /kafka/%d HTTP/1.1\r\nHost: h\r\n\r\n" % sent)
                    sent += 1
                if phase == 0:
                    broker.kill()
                if phase == 1:
                    assert c.page("healthz").startswith("ok")
                    broker.start()
        code = None
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and c.metric("collector_delivered_records_total") < 2 * sent:
            time.sleep(0.2)
        assert c.metric("collector_dropped_records_total") == 0
        code = c.stop()
    finally:
        server.close()
        c.stop()
    assert code == 0, c.log()[-2000:]
    paths = [json.loads(m.value) for m in consume(broker, name, 2 * sent)]
    got = {(r["direction"], r["path"]) for r in paths if "/kafka/" in r["path"]}
    assert got == {(d, f"/kafka/{i}") for d in "12" for i in range(sent)}


def counted(collector: Collector, *names: str) -> int:
    return int(sum(collector.metric(f"collector_{name}") for name in names))


def test_an_outage_longer_than_memory_and_a_restart_lose_nothing(live: None, broker: Broker, tmp_path: Path) -> None:
    """The broker is absent at the start; a collector whose sink was killed with -9 ends, and the next one delivers."""
    name = topic(broker, "outage")
    broker.kill()
    settings = {
        "AKTO_KAFKA_BROKER_MAL": broker.address,
        "COLLECTOR_KAFKA_TOPIC": name,
        "COLLECTOR_SPOOL_DIR": str(tmp_path / "spool"),
        "AKTO_TRAFFIC_BATCH_SIZE": "20",
        "AKTO_TRAFFIC_BATCH_TIME_SECS": "0.2",
    }
    server = Program("echo")
    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            for _ in range(count):
                http(sock, b"GET /outage/%d HTTP/1.1\r\nHost: h\r\n\r\n" % sent)
                sent += 1

    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    try:
        first = Collector(tmp_path / "first", "--output", "kafka", **settings)
        try:
            send(200)
            # all but the batch that is tried now
            wait_for(lambda: counted(first, "records_total") >= 2 * sent and counted(first, "spool_records") > 0, 20)
            os.kill(first.child("sink.process"), 9)
            send(200)
            wait_for(lambda: counted(first, "records_total") >= 2 * sent and counted(first, "spool_records") > 200, 30)
            assert counted(first, "dropped_records_total", "failed_records_total", "delivered_records_total") == 0
            send(20)  # these are in memory when it ends
        finally:
            code = first.stop()
        assert code == 0 and "in the spool" in first.log(), first.log()[-2000:]
        second = Collector(tmp_path / "second", "--output", "kafka", **settings)
        try:
            send(10)
            broker.start()
            wait_for(lambda: counted(second, "delivered_records_total") >= 2 * sent, 60)
            wait_for(lambda: counted(second, "spool_records") == 0, 10)
        finally:
            code = second.stop()
    finally:
        server.close()
    assert code == 0, second.log()[-2000:]
    records = [json.loads(m.value) for m in consume(broker, name, 2 * sent)]
    records = [record for record in records if "/outage/" in record["path"]]
    assert {(r["direction"], r["path"]) for r in records} == {(d, f"/outage/{i}") for d in "12" for i in range(sent)}
    assert len({r["recordId"] for r in records}) == 2 * sent  # a copy has the same
