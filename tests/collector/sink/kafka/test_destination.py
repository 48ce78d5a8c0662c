"""The Kafka destination with the real client: hand-over, settlement, refusal, a broker that goes and comes back."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient, NewTopic

from collector import config
from collector.errors import ProtocolError
from collector.router import batches
from collector.sink.batch import Batch
from collector.sink.delivery import Delivery
from collector.sink.kafka import destination as kafka
from collector.sink.kafka.destination import Kafka, KafkaSettings
from tests.conftest import skip_or_fail
from tests.live.harness import wait_for
from tests.live.kafka_broker import Broker, free_port

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::ResourceWarning")]


def batch(*records: bytes, details: bytes = b"") -> Batch:
    return Batch(
        b"".join(record + b"\n" for record in records),
        b"".join(batches.pack(len(record) + 1, len(details), (0, 0, 0)) for record in records),
        details * len(records),
    )


def settings(brokers: str, topic: str = "t", *, records: int = 1, seconds: float = 0.0) -> KafkaSettings:
    return KafkaSettings(brokers=brokers, topic=topic, compression="lz4", batch_records=records, batch_seconds=seconds)


@contextmanager
def delivery(wanted: KafkaSettings, *, lossless: bool = False, queue_bytes: int = 64 << 20) -> Iterator[Delivery]:
    out = Delivery(lambda settled: Kafka(wanted, settled), lossless=lossless, wake=lambda: None, queue_bytes=queue_bytes)
    out.start()
    try:
        yield out
    finally:
        out.close()
        out.give_up("the test is over")  # so that a broker that is not there ends nothing late
        out.join(20)


@pytest.fixture(autouse=True)
def garbage() -> Iterator[None]:
    """The client leaves sockets behind that it could not connect: let them go here, where that is known."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if shutil.which("java") is None or shutil.which("mvn") is None:
        skip_or_fail("needs java and mvn for a Kafka broker")
    one = Broker(tmp_path_factory.mktemp("kafka"))
    one.start()
    yield one
    one.close()


def topic(broker: Broker, name: str, **limits: str) -> str:
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics([NewTopic(name, 1, 1, topic_configs=limits)])
    admin.close()
    return name


def messages(broker: Broker, name: str, expected: int) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    consumer = KafkaConsumer(
        name, bootstrap_servers=broker.address, auto_offset_reset="earliest", group_id=None, consumer_timeout_ms=1500
    )
    out: list[tuple[bytes, list[tuple[str, bytes]]]] = []
    for _ in range(10):
        out.extend((message.value, message.headers) for message in consumer)
        if len(out) >= expected:
            break
    consumer.close()
    return out


def test_options_are_what_is_configured() -> None:
    loaded = config.load({"AKTO_KAFKA_BROKER_MAL": "a:1,b:2", "COLLECTOR_KAFKA_TOPIC": "x", "AKTO_TRAFFIC_BATCH_SIZE": "7"})
    made = Kafka.make(Kafka.options(loaded), fd=None, notes={}, settled=lambda _batch, _delivered, _failed: False)
    assert made.linger.records == 7 and made.linger.seconds == 10.0
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
def test_batches_leave_together_when_there_are_enough_records(broker: Broker) -> None:
    name = topic(broker, "lingers")
    with delivery(settings(broker.address, name, records=3, seconds=3600)) as out:
        out.submit(batch(b"a"))
        out.submit(batch(b"b"))
        assert out.queue.take(0.5) is None  # nor does the thread get one
        out.submit(batch(b"c"))
        wait_for(lambda: out.totals.delivered == 3, 30)
        out.submit(batch(b"d"))
        out.close()
        wait_for(out.settled, 30)
    assert [record for record, _headers in messages(broker, name, 4)] == [b"a", b"b", b"c", b"d"]


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
    name = topic(broker, "small", **{"max.message.bytes": "5000"})
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
def test_a_broker_that_is_killed_and_comes_back_loses_nothing(broker: Broker) -> None:
    name = topic(broker, "killed-alone")
    with delivery(settings(broker.address, name)) as out:
        out.submit(batch(b"before"))
        wait_for(out.settled, 30)
        broker.kill()
        for n in range(20):
            out.submit(batch(b"%d" % n))
        assert not out.settled()
        broker.start()
        wait_for(out.settled, 90)
        assert (out.totals.delivered, out.totals.failed, out.totals.dropped) == (21, 0, 0)
    got = [record for record, _headers in messages(broker, name, 21)]
    assert set(got) == {b"before", *(b"%d" % n for n in range(20))}


def test_what_is_malformed_takes_no_room_in_the_client_for_ever() -> None:
    with delivery(settings(f"127.0.0.1:{free_port()}")) as out:
        one = Batch(b"abc\n", batches.pack(3, 0, (0, 0, 0)), b"")
        out.submit(one)
        wait_for(out.settled, 30)
        assert out.done() == [one] and out.totals.failed == 1
        assert isinstance(out.destination, Kafka) and out.destination._in_client == 0
