"""The Kafka destination with the real client: hand-over, settlement, refusal, a broker that goes and comes back."""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from crc32c import crc32c
from kafka import KafkaConsumer
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    KafkaAdminClient,
    NewTopic,
    ResourcePattern,
    ResourceType,
)
from kafka.errors import TopicAlreadyExistsError
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import TopicPartition

from collector import config
from collector.errors import ProtocolError
from collector.router import batches
from collector.sink.batch import Batch
from collector.sink.delivery import Delivery
from collector.sink.kafka import destination as kafka
from collector.sink.kafka import inside
from collector.sink.kafka.destination import Kafka, KafkaSettings
from collector.sink.kafka.held import Held
from collector.sink.kafka.security import Security
from collector.sink.spool import Spool
from tests.events import Conversation, one_line
from tests.live.harness import wait_for
from tests.live.kafka_broker import Broker, free_port, needs_broker

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::ResourceWarning")]


def batch(*records: bytes, details: bytes = b"") -> Batch:
    return Batch(
        b"".join(record + b"\n" for record in records),
        b"".join(batches.pack(len(record) + 1, len(details), (0, 0, 0)) for record in records),
        details * len(records),
    )


def finished(*records: bytes, details: bytes = b"", shard: int = 0, codec: int = 3, key: bytes | None = None) -> Batch:
    """As a shard makes it, but by the client's own builder."""
    builder = MemoryRecordsBuilder(2, codec, 1 << 30)
    for record in records:
        builder.append(round(time.time() * 1000), key, record, [("collection_details", details)] if details else [])
    builder.close()
    index = b"".join(batches.pack(len(record) + 1, len(details), (0, 0, 0)) for record in records)
    return Batch(bytes(builder.buffer()), index, batches.pack_origin(shard), None, batches.KAFKA)


def settings(brokers: str, topic: str = "t", *, idempotence: bool = False) -> KafkaSettings:
    return KafkaSettings(brokers=brokers, topic=topic, compression="lz4", idempotence=idempotence, node="n")


@contextmanager
def delivery(
    wanted: KafkaSettings,
    *,
    lossless: bool = False,
    queue_bytes: int = 64 << 20,
    security: Security | None = None,
    spool: Spool | None = None,
) -> Iterator[Delivery]:
    out = Delivery(
        lambda settled: Kafka(wanted, settled, security), lossless=lossless, wake=lambda: None, queue_bytes=queue_bytes
    )
    if spool is not None:
        out.use_spool(spool)
    out.start()
    try:
        yield out
    finally:
        out.close()
        out.give_up("the test is over")  # so that a broker that is not there ends nothing late
        out.join(20)
        out.close_spool()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    needs_broker()
    one = Broker(tmp_path_factory.mktemp("kafka"))
    one.start()
    yield one
    one.close()


def topic(
    broker: Broker, name: str, partitions: int = 1, message_bytes: int = 1_048_588, compression: str = "producer"
) -> str:
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    limits = {"max.message.bytes": str(message_bytes), "compression.type": compression}
    admin.create_topics([NewTopic(name, partitions, 1, topic_configs=limits)])
    admin.close()
    return name


def messages(broker: Broker, name: str, expected: int) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    return [(message.value, message.headers) for message in consumed(broker, name, expected)]


def consumed(broker: Broker, name: str, expected: int) -> list[Any]:
    consumer = KafkaConsumer(
        name, bootstrap_servers=broker.address, auto_offset_reset="earliest", group_id=None, consumer_timeout_ms=1500
    )
    out: list[Any] = []
    for _ in range(10):
        out.extend(consumer)
        if len(out) >= expected:
            break
    consumer.close()
    return out


def test_options_are_what_is_configured() -> None:
    loaded = config.load(
        {
            "AKTO_KAFKA_BROKER_MAL": "a:1,b:2",
            "COLLECTOR_KAFKA_TOPIC": "x",
            "AKTO_TRAFFIC_BATCH_SIZE": "7",
            "COLLECTOR_COMPRESSION": "zstd",
        }
    )
    wanted = Kafka.batches(loaded)
    assert (wanted.format, wanted.compression, wanted.records, wanted.seconds) == (batches.KAFKA, "zstd", 7, 10.0)
    assert KafkaSettings.from_message(Kafka.options(loaded)).brokers == "a:1,b:2"
    with pytest.raises(ProtocolError, match="misspelt"):
        Kafka.make({**Kafka.options(loaded), "misspelt": 1}, fd=None, notes={}, settled=lambda *_: False)


def test_without_a_broker_records_wait_then_the_oldest_give_way() -> None:
    with delivery(settings(f"127.0.0.1:{free_port()}"), queue_bytes=3000) as out:
        first, *others = (batch(b"x" * 999) for _ in range(5))
        out.submit(first)
        wait_for(lambda: out.totals.errors, 30)  # the client says so after two seconds
        for one in others:
            out.submit(one)
        assert not out.up and not out.gone and not out.settled()
        assert out.totals.dropped == 2 and out.done() == others[:2]


@pytest.mark.live
def test_every_record_arrives_with_its_details_and_is_settled(broker: Broker) -> None:
    name = topic(broker, "arrives")
    with delivery(settings(broker.address, name)) as out:
        given = [batch(b"a", b"b", details=b"host|GET|/"), batch(b"c")]
        for one in given:
            out.submit(one)
        wait_for(out.settled, 30)
        assert sorted(map(id, out.done())) == sorted(map(id, given))
        assert (out.totals.delivered, out.totals.failed, out.up) == (3, 0, True)
    details = [("collection_details", b"host|GET|/")]
    assert messages(broker, name, 3) == [(b"a", details), (b"b", details), (b"c", [])]


@pytest.mark.live
def test_a_record_that_is_refused_has_failed_and_the_others_arrive(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    name = topic(broker, "refuses")
    large = b"x" * (kafka.MAX_REQUEST_BYTES + 1)  # the client refuses it, and hands nothing over
    with delivery(settings(broker.address, name)) as out:
        one = batch(b"a", large, b"b")
        out.submit(one)
        wait_for(out.settled, 30)
        assert out.done() == [one]
        assert (out.totals.delivered, out.totals.failed, out.gone) == (2, 1, "")
    assert [record for record, _headers in messages(broker, name, 2)] == [b"a", b"b"]
    assert "record refused" in caplog.text


@pytest.mark.live
def test_a_record_that_the_broker_refuses_has_failed_and_delivery_goes_on(broker: Broker) -> None:
    name = topic(broker, "small", message_bytes=5000)
    with delivery(settings(broker.address, name)) as out:
        out.submit(Batch((data := bytes(range(11, 256)) * 40) + b"\n", batches.pack(len(data) + 1, 0, (0, 0, 0)), b""))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed) in ((0, 1), (1, 0))  # it may be compressed below the limit
        out.submit(batch(b"a"))
        wait_for(out.settled, 30)
        assert out.totals.delivered >= 1 and not out.gone


@pytest.mark.live
def test_the_client_holds_so_many_bytes_and_the_thread_waits(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "IN_CLIENT_BYTES", 1000)
    name = topic(broker, "holds")
    with delivery(settings(broker.address, name), lossless=True) as out:
        for n in range(50):
            out.submit(batch(*[b"%d" % n * 400] * 2))
        wait_for(out.settled, 60)
        assert out.totals.delivered == 100
        destination = out.destination
        assert isinstance(destination, Kafka) and destination._in_client == 0


@pytest.mark.live
@pytest.mark.parametrize("make", [batch, finished])
def test_a_broker_that_is_killed_and_comes_back_loses_nothing(broker: Broker, make: Callable[..., Batch]) -> None:
    name = topic(broker, f"killed-{make.__name__}")
    with delivery(settings(broker.address, name)) as out:
        out.submit(make(b"before"))
        wait_for(out.settled, 30)
        broker.kill()
        wait_for(lambda: not out.up, 3)  # though nothing is to be sent
        errors = out.totals.errors
        assert errors
        for n in range(20):
            out.submit(make(b"%d" % n))
        assert not out.settled()
        broker.start()
        wait_for(out.settled, 90)
        wait_for(lambda: out.up, 3)
        assert (out.totals.delivered, out.totals.failed, out.totals.dropped) == (21, 0, 0)
    got = [record for record, _headers in messages(broker, name, 21)]
    assert set(got) == {b"before", *(b"%d" % n for n in range(20))}


@pytest.mark.live
def test_a_broker_that_hangs_is_known_and_loses_nothing(broker: Broker) -> None:
    name = topic(broker, "hangs")
    with delivery(settings(broker.address, name)) as out:
        out.submit(finished(b"before"))
        wait_for(out.settled, 30)
        with broker.stopped():
            out.submit(finished(b"while"))
            wait_for(lambda: not out.up, 20)
        wait_for(out.settled, 30)
        wait_for(lambda: out.up, 3)
        assert (out.totals.delivered, out.totals.failed) == (2, 0)
    assert [record for record, _headers in messages(broker, name, 2)] == [b"before", b"while"]


def test_a_broker_that_is_absent_from_the_start_is_known() -> None:
    with delivery(settings(f"127.0.0.1:{free_port()}")) as out:
        assert not out.up
        wait_for(lambda: isinstance(out.destination, Kafka) and out.destination._producer, 30)
        wait_for(lambda: "no broker is connected" in (out.destination.check_health() or ""), 10)


@pytest.mark.live
def test_finished_batches_arrive_as_they_are_each_shard_s_in_a_partition(broker: Broker) -> None:
    name = topic(broker, "finished", partitions=3)
    with delivery(settings(broker.address, name)) as out:
        given = [finished(b"%d" % shard, b"x", details=b"h|GET|/", shard=shard) for shard in (0, 1, 2, 0)]
        for one in given:
            out.submit(one)
        wait_for(out.settled, 30)
        assert sorted(map(id, out.done())) == sorted(map(id, given))
        assert (out.totals.delivered, out.totals.failed, out.up) == (8, 0, True)
        assert isinstance(out.destination, Kafka) and out.destination._in_client == 0
    partitions: dict[int, list[bytes]] = {}
    for message in consumed(broker, name, 8):
        partitions.setdefault(message.partition, []).append(message.value)
        assert message.headers == [("collection_details", b"h|GET|/")]
    assert sorted(partitions.values()) == [[b"0", b"x", b"0", b"x"], [b"1", b"x"], [b"2", b"x"]]


def record(text: bytes, size: int, body: bytes = b"") -> bytes:
    """A record whose response has so many bytes: that compress badly, or ``body`` over and over."""
    c = Conversation()
    c.request(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % text)
    body = (body * size)[:size] or random.Random(size).randbytes(size // 2).hex().encode()
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)
    return one_line(c)


@pytest.mark.live
@pytest.mark.parametrize("told", [True, False], ids=["the brokers say the limit", "the brokers do not say the limit"])
def test_what_is_too_large_for_the_topic_is_taken_apart_and_cut(
    broker: Broker, told: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches and records that were made before the limit was known."""
    name = topic(broker, f"apart-{told}", message_bytes=9000)
    if not told:
        monkeypatch.setattr("collector.sink.kafka.probe.Probe.most_bytes", lambda _self, _topic: 0)
    small = [record(b"small/%d" % n, 1000) for n in range(8)]
    with delivery(settings(broker.address, name)) as out:
        wait_for(lambda: out.destination.largest == (9000 if told else 0))
        for n in range(2):
            out.submit(finished(*small[:4], record(b"large/%d" % n, 12_000), *small[4:], codec=0, key=b"connection"))
        out.submit(finished(record(b"large/2", 14_000)))
        out.submit(finished(b"after"))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed, out.gone) == (20, 0, "")
        assert isinstance(out.destination, Kafka) and out.destination._in_client == 0
        assert out.destination.largest == 9000 if told else 8192 <= out.destination.largest <= 16_000
    came = [message for message in consumed(broker, name, 20) if message.value != b"after"]
    assert {message.key for message in came if b"/large/2" not in message.value} == {b"connection"}
    got = sorted(message.value for message in came)
    assert [record for record in got if b"/small/" in record] == sorted([*small, *small])
    large = [json.loads(record) for record in got if b"/large/" in record]
    assert [one["path"] for one in large] == ["/large/0", "/large/1", "/large/2"]
    assert all(one["marks"] == '["response_body_cut"]' and len(one["responsePayload"]) > 4000 for one in large)
    assert caplog.text.count("max.message.bytes should be") == 1


@pytest.mark.live
@pytest.mark.parametrize("told", [True, False], ids=["the brokers say the limit", "the brokers do not say the limit"])
def test_where_the_broker_decompresses_batches_are_smaller_and_records_are_whole(
    broker: Broker, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batches are small as they are sent: their size is no measure of what a record may have."""
    name = topic(broker, f"decompresses-{told}", message_bytes=100_000, compression="uncompressed")
    if not told:
        monkeypatch.setattr("collector.sink.kafka.probe.Probe.most_bytes", lambda _self, _topic: 0)
    given = [record(b"%02d" % n, 20_000, b"the same ") for n in range(24)]
    with delivery(settings(broker.address, name)) as out:
        wait_for(lambda: out.destination.largest == (100_000 if told else 0))
        for n in range(0, 24, 12):
            out.submit(finished(*given[n : n + 12]))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed, out.gone) == (24, 0, "")
        assert out.destination.largest == (33_333 if told else 8192)
    assert sorted(value for value, _headers in messages(broker, name, 24)) == given


@pytest.mark.live
def test_an_idempotent_client_loses_no_record_beside_one_that_is_too_large(broker: Broker) -> None:
    """Which would end it, with all that it has: such batches are taken apart by another client."""
    name = topic(broker, "idempotent-apart", message_bytes=9000)
    small = [record(b"small/%d" % n, 1000) for n in range(20)]
    with delivery(settings(broker.address, name, idempotence=True)) as out:
        wait_for(lambda: out.destination.largest == 9000)
        for n in range(3):
            out.submit(finished(*small[:10], record(b"large/%d" % n, 12_000), os.urandom(9500), *small[10:], codec=0))
        out.submit(finished(b"after"))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed, out.gone) == (64, 3, "")
        assert isinstance(out.destination, Kafka) and out.destination._in_client == 0 and not out.destination._singles
    got = [message.value for message in consumed(broker, name, 64)]
    assert sorted(value for value in got if b"/small/" in value) == sorted(small * 3)


@pytest.mark.live
def test_a_batch_that_is_too_large_and_cannot_be_read_fails_alone(broker: Broker) -> None:
    name = topic(broker, "unreadable", message_bytes=9000)
    one = finished(os.urandom(20_000), os.urandom(10), codec=0)
    data = bytearray(one.records)
    data[22] = 1  # says gzip, and is not
    struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    one.records = bytes(data)
    with delivery(settings(broker.address, name)) as out:
        out.submit(one)
        out.submit(finished(b"after"))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed, out.gone) == (1, 2, "")


@pytest.mark.live
def test_a_new_client_sends_the_records_that_are_by_themselves_too(broker: Broker) -> None:
    name = topic(broker, "singles")
    with delivery(settings(broker.address, name)) as out:
        wait_for(lambda: out.destination.largest > 0)
        destination = out.destination
        assert isinstance(destination, Kafka)
        out.submit(batch(b"0"))  # the topic is known
        wait_for(out.settled)
        with broker.stopped():
            out.submit(batch(b"1", b"2", b"3"))
            wait_for(lambda: len(destination._singles) == 3)
            old = destination._producer
            destination._renew("a test")
            assert old is not None
            old.close(timeout=0)  # as its __del__ does: it does not wait for what it had, nor complain
        wait_for(out.settled, 60)
        assert (out.totals.delivered, out.totals.failed, out.gone) == (4, 0, "") and not destination._singles
    assert {message.value for message in consumed(broker, name, 4)} == {b"0", b"1", b"2", b"3"}


@pytest.fixture(scope="module")
def broker_with_rights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """It grants and denies; what nothing is said of is everybody's."""
    needs_broker()
    one = Broker(tmp_path_factory.mktemp("rights"))
    with (one.directory / "server.properties").open("a") as file:
        file.write("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n")
        file.write("allow.everyone.if.no.acl.found=true\n")
    one.start()
    yield one
    one.close()


@pytest.mark.live
@pytest.mark.parametrize("make", [batch, finished], ids=["singles", "batches"])
def test_the_right_to_write_is_taken_away_and_given_back(broker_with_rights: Broker, make: Callable[..., Batch]) -> None:
    broker, name = broker_with_rights, f"rights-{make.__name__}"
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    resource = ResourcePattern(ResourceType.TOPIC, name)
    denied = ACL("User:ANONYMOUS", "*", ACLOperation.WRITE, ACLPermissionType.DENY, resource)
    with delivery(settings(broker.address, topic(broker, name))) as out:
        out.submit(make(b"before"))
        wait_for(out.settled, 30)
        everything = ACL("User:ANONYMOUS", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, resource)
        admin.create_acls([everything, denied])
        expected = {b"before"}

        def refused() -> bool:
            """Another batch: does the broker know by now?"""
            records = b"a%d" % len(expected), b"b%d" % len(expected)
            out.submit(make(*records))
            expected.update(records)
            return not out.up or out.totals.failed > 0

        wait_for(refused, 30)
        out.submit(make(b"meanwhile"))
        admin.delete_acls([ACLFilter("User:ANONYMOUS", "*", ACLOperation.WRITE, ACLPermissionType.DENY, resource)])
        admin.close()
        expected.add(b"meanwhile")
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed, out.gone) == (len(expected), 0, "")
        wait_for(lambda: out.up, 5)
    assert {message.value for message in consumed(broker, name, len(expected))} == expected


@pytest.mark.live
def test_a_record_that_cannot_be_cut_has_failed_and_the_others_arrive(broker: Broker) -> None:
    name = topic(broker, "uncut", message_bytes=5000)
    with delivery(settings(broker.address, name)) as out:
        out.submit(finished(b"before", os.urandom(6000), b"behind"))
        out.submit(finished(os.urandom(6000)))
        out.submit(finished(b"after"))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed, out.gone) == (3, 2, "")
    assert sorted(record for record, _headers in messages(broker, name, 3)) == [b"after", b"before", b"behind"]


@pytest.mark.live
def test_a_batch_that_is_damaged_has_failed_and_the_others_arrive(broker: Broker) -> None:
    name = topic(broker, "damaged")
    one = finished(b"a" * 100, codec=0)
    one.records = bytes(one.records[:-50]) + b"b" + bytes(one.records[-49:])
    with delivery(settings(broker.address, name)) as out:
        out.submit(one)
        out.submit(finished(b"after"))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed, out.gone) == (1, 1, "")
    assert [record for record, _headers in messages(broker, name, 1)] == [b"after"]


@pytest.mark.live
def test_a_client_that_is_not_as_it_was_known_gets_record_by_record(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kafka.producer.record_accumulator.RecordAccumulator.drain", lambda *_a, **_k: {0: []})
    name = topic(broker, "slow-way")
    with delivery(settings(broker.address, name)) as out:
        wait_for(lambda: "inside is not as expected" in caplog.text, 30)
        monkeypatch.undo()
        out.submit(finished(b"a", b"b", details=b"h|GET|/", key=b"k"))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed) == (2, 0)
    details = [("collection_details", b"h|GET|/")]
    got = [(message.key, message.value, message.headers) for message in consumed(broker, name, 2)]
    assert got == [(b"k", b"a", details), (b"k", b"b", details)]


@pytest.mark.live
def test_an_idempotent_client_that_has_stopped_for_good_is_replaced(broker: Broker) -> None:
    """After one refusal it sends nothing any more (kafka-python 3.0.12)."""
    name = topic(broker, "replaced", message_bytes=5000)
    with delivery(settings(broker.address, name, idempotence=True)) as out:
        out.submit(finished(b"before"))
        wait_for(out.settled, 30)
        out.submit(finished(os.urandom(6000)))
        for n in range(5):
            out.submit(finished(b"%d" % n))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed) == (6, 1)
    assert {record for record, _headers in messages(broker, name, 6)} == {b"before", *(b"%d" % n for n in range(5))}


@pytest.mark.live
def test_a_client_that_hangs_is_replaced(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    name = topic(broker, "hanging-client")
    with delivery(settings(broker.address, name)) as out:
        out.submit(finished(b"before"))
        wait_for(out.settled, 30)
        assert isinstance(out.destination, Kafka) and out.destination._producer is not None
        out.destination._producer._accumulator.muted.add(TopicPartition(name, 0))  # as if a request were never answered
        monkeypatch.setattr(kafka, "STUCK_SECONDS", 2.0)
        out.submit(finished(b"stuck"))
        out.submit(finished(b"behind"))
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed) == (3, 0)
    assert [record for record, _headers in messages(broker, name, 3)] == [b"before", b"stuck", b"behind"]


@pytest.mark.live
@pytest.mark.parametrize("fewer", [False, True], ids=["answer-lost", "topic-made-anew"])
def test_a_partition_that_stands_still_while_others_go_on_is_noticed(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, fewer: bool
) -> None:
    name = topic(broker, f"one-stands-{fewer}", partitions=3)
    with delivery(settings(broker.address, name)) as out:
        destination = out.destination
        assert isinstance(destination, Kafka)
        numbers = {shard: (destination._first_partition + shard) % 3 for shard in range(3)}
        still = next(shard for shard, number in numbers.items() if number == 2)
        out.submit(finished(b"before", shard=still))
        wait_for(out.settled, 30)
        assert destination._producer is not None
        destination._producer._accumulator.muted.add(TopicPartition(name, 2))  # as if an answer could not be read
        out.submit(finished(b"stands", shard=still))
        wait_for(lambda: destination._held, 30)
        if fewer:
            admin = KafkaAdminClient(bootstrap_servers=broker.address)
            admin.delete_topics([name])
            admin.close()
            wait_for(lambda: made_anew(broker, name), 30)
        monkeypatch.setattr(kafka, "STUCK_SECONDS", 3.0)
        others = 0
        deadline = time.monotonic() + 60
        while out.totals.delivered < 2 + others or not destination._clients:
            assert time.monotonic() < deadline
            if not destination._clients and others < out.totals.delivered:  # there always is an acknowledgement
                out.submit(finished(b"other", shard=next(shard for shard, number in numbers.items() if number == 0)))
                others += 1
            time.sleep(0.01)
        wait_for(out.settled, 30)
        assert (out.totals.delivered, out.totals.failed) == (2 + others, 0)
    assert b"stands" in {record for record, _headers in messages(broker, name, others + 1)}


@pytest.mark.live
def test_a_batch_that_was_damaged_on_the_way_is_sent_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    name = topic(broker, "damaged-on-the-way")
    damaged: list[bool] = []

    class Wire(inside.Finished):
        """One byte of the first request is another one there."""

        def buffer(self) -> bytes:
            data = bytearray(super().buffer())
            if not damaged:
                damaged.append(True)
                data[-1] ^= 1
            return bytes(data)

    with delivery(settings(broker.address, name)) as out:
        out.submit(finished(b"before"))
        wait_for(out.settled, 30)
        monkeypatch.setattr(inside, "Finished", Wire)
        out.submit(finished(b"damaged"))
        wait_for(out.settled, 30)
        assert damaged and (out.totals.delivered, out.totals.failed) == (2, 0)
    assert [record for record, _headers in messages(broker, name, 2)] == [b"before", b"damaged"]


def made_anew(broker: Broker, name: str) -> bool:
    try:
        topic(broker, name, partitions=1)
    except TopicAlreadyExistsError:  # it is still being deleted
        return False
    return True


@pytest.mark.live
def test_what_was_refused_goes_out_at_once_when_the_broker_takes_it_again(broker: Broker) -> None:
    """Batches that have waited for longer than the topic takes: they get the time at which they are sent."""
    name = topic(broker, "too-old")
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.alter_configs([ConfigResource("TOPIC", name, {"message.timestamp.before.max.ms": "60000"})])
    admin.close()
    with delivery(settings(broker.address, name)) as out:
        for n in range(60):
            one = finished(b"%d" % n, details=b"h|GET|/")
            one.records = inside.with_time(one.records, round(time.time() * 1000) - 600_000)
            out.submit(one)
        wait_for(lambda: out.totals.delivered == 60, 15)
        assert out.totals.failed == 0
        wait_for(lambda: out.up, 5)
        assert not out.destination.check_health()
    got = consumed(broker, name, 60)
    assert {message.value for message in got} == {b"%d" % n for n in range(60)}
    assert all(message.headers == [("collection_details", b"h|GET|/")] for message in got)
    assert all(abs(message.timestamp / 1000 - time.time()) < 60 for message in got)


def test_a_topic_that_cannot_be_used_is_away_though_brokers_are_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that records go to the spool."""
    monkeypatch.setattr(inside, "connected", lambda _producer: True)
    with delivery(settings(f"127.0.0.1:{free_port()}")) as out:
        out.submit(finished(b"a"))
        wait_for(lambda: out.totals.errors, 30)
        assert not wait_for(lambda: out.up, 3, quiet=True)
        assert "cannot be used" in (out.destination.check_health() or "")


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_client_that_cannot_be_replaced_for_want_of_descriptors_stays_until_it_can(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes connections, and says nothing
        one = Kafka(settings(f"127.0.0.1:{server.getsockname()[1]}"), lambda *_: True)
        one.open()
        try:
            before, held = one._producer, finished(b"held")
            one._held[held] = Held(0, time.monotonic() - 3600, 0)
            one._acknowledged -= 3600
            monkeypatch.setattr(inside, "connected", lambda _producer: True)
            with no_descriptors():
                assert "no new Kafka client: [Errno 24] Too many open files" in str(one.check_health())
            assert one._producer is before and list(one._held) == [held]
            one.check_health()
            assert one._producer is not before and [back.batch for back in one._back] == [held]
        finally:
            one.close()


def test_what_is_with_the_client_at_the_end_is_counted() -> None:
    with delivery(settings(f"127.0.0.1:{free_port()}")) as out:
        for make in (batch, finished):
            out.submit(make(b"a", b"b"))
        wait_for(lambda: out.totals.errors, 30)
        out.close()
        assert out.abandon() == 4 == out.totals.failed
        assert out.abandon() == 0


@pytest.mark.parametrize("format", [batches.JSON_LINES, batches.KAFKA])
def test_what_is_malformed_takes_no_room_in_the_client_for_ever(format: str) -> None:
    with delivery(settings(f"127.0.0.1:{free_port()}")) as out:
        one = Batch(b"abc\n", batches.pack(3, 0, (0, 0, 0)), b"", None, format)
        out.submit(one)
        wait_for(out.settled, 30)
        assert out.done() == [one] and out.totals.failed == 1
        assert isinstance(out.destination, Kafka) and out.destination._in_client == 0


@pytest.mark.live
def test_a_quota_is_no_reason_for_a_new_client(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker says how long to wait, longer than an answer may take; then all goes on."""
    monkeypatch.setattr(kafka, "STUCK_SECONDS", 2.0)
    name = topic(broker, "quota")
    broker.alter("--entity-type", "clients", "--entity-default", "--add-config", "producer_byte_rate=20000")
    try:
        with delivery(settings(broker.address, name)) as out:
            destination = out.destination
            assert isinstance(destination, Kafka)
            for _ in range(3):
                out.submit(finished(os.urandom(200_000), codec=0))
                time.sleep(0.1)
            wait_for(lambda: destination._producer is not None and destination._inside.throttled(destination._producer), 20)
            begin = time.monotonic()
            wait_for(out.settled, 60)
            assert time.monotonic() - begin > 2 * kafka.STUCK_SECONDS
            assert (out.totals.delivered, out.totals.errors, out.up, destination._clients) == (3, 0, True, 0)
    finally:
        broker.alter("--entity-type", "clients", "--entity-default", "--delete-config", "producer_byte_rate")
    assert len(consumed(broker, name, 3)) == 3
