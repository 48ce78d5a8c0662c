"""Kafka by kafka-python: acks=all, batches that the shards have built and compressed, one acknowledgement for each.

A batch in format KAFKA goes into the client as it is (inside.py). `send()`, record by record, is what remains for JSON
lines (a replay), for a batch that is larger than the topic takes, and for a client whose inside is not as we know it.

Choices, each for a measured reason (docs/decisions/0006, 0022): no idempotence unless it is asked for, with one request in
flight - an idempotent kafka-python 3.0.12 stops for good after a delivery time-out or one refused record; no delivery
time-out of the client's own - our queue decides what is given up; the broker version is stated, so that a start needs no
broker. A batch that comes back is handed over again unless it is at fault itself; a client that is connected and has
acknowledged nothing for a while is replaced, and what it held is handed to the new one.

When batches leave is the shards' business, when a failed attempt is repeated that of the retry policy. The client is loaded
by the process that delivers, and by no other.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from collector.config import Config
from collector.errors import CollectorError, ConfigError, DestinationError, ProtocolError
from collector.router import batches
from collector.settings import BatchSettings, Message
from collector.sink.batch import Batch
from collector.sink.destination import Destination, Notes, Settled
from collector.sink.kafka import security
from collector.sink.kafka.cut import cut
from collector.sink.kafka.held import Held, Returned, Single
from collector.sink.kafka.security import Security

if TYPE_CHECKING:
    from kafka import KafkaProducer

log = logging.getLogger("sink.kafka")

# Oldest broker generation that both Kafka 2.1+ and 4.x speak (KIP-896 removed everything older from 4.0).
API_VERSION = (2, 1)
IN_CLIENT_BYTES = 16 << 20  # kafka-python has no buffer limit of its own
MAX_REQUEST_BYTES = 4 << 20
# A request costs as much as hundreds of records, so a batch is large: as it is sent it is below what a topic takes by
# default (max.message.bytes: 1,048,588), and compression makes JSON four to eight times smaller. Where it does not, a batch
# has fewer.
LARGEST_BATCH_BYTES = 960 << 10
BATCH_BYTES = {"none": 896 << 10}
COMPRESSED_BATCH_BYTES = 3584 << 10
RETRY_SECONDS = 0.5
ROOM_SECONDS = 0.2
_CUTS = 8  # so often a record is made shorter, while nobody says to what length
_BESIDE_BYTES = 160  # of a batch of one record, beside its value and the texts of its headers
CLOSE_SECONDS = 5.0
REQUEST_SECONDS = 30.0
TROUBLE_SECONDS = 1.5  # without an acknowledgement while one is due, or without a connection
STUCK_SECONDS = REQUEST_SECONDS + 15.0  # connected, and without an acknowledgement while one is due: a fault of the client


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings(Message):
    """What the destination is told. ``brokers`` is HOST:PORT[,HOST:PORT...]; ``node`` lets nodes spread over partitions."""

    brokers: str
    topic: str
    compression: str
    idempotence: bool = False
    node: str = ""


class Kafka(Destination):
    """See the module. ``batch.at`` counts records that the client has, or that were refused; a whole batch counts as one."""

    kind = metavar = "kafka"
    accepts = frozenset({batches.JSON_LINES, batches.KAFKA})
    wants_details = True
    takes_orphans = False  # a record without method and path is no endpoint to who reads the topic
    up_at_start = False
    network = True

    def __init__(
        self, settings: KafkaSettings, settled: Settled, security: Security | None = None, notes: Notes | None = None
    ) -> None:
        super().__init__(settled)
        self._security, self._notes = security or Security(), notes
        self._settings = settings
        self._room = threading.Condition()
        self._most_in_client = IN_CLIENT_BYTES
        self._in_client = 0  # bytes of batches that the client has, and no acknowledgement of the last record
        self._current: Batch | None = None  # the batch that is being handed over
        self._held: dict[Batch, Held] = {}
        self._back: collections.deque[Returned] = collections.deque()
        self._singles: dict[int, Single] = {}  # by identity: that a client has
        self._again: collections.deque[Single] = (
            collections.deque()
        )  # to be sent again: they came back, or their client went
        self._complaint = ""  # why a batch came back that is not at fault, until the next acknowledgement
        self._not_before = 0.0  # when one of those that came back is tried again
        self._unusable = ""  # why the topic's partitions are not known, until they are
        self._clients = 0
        self._apart = False  # has it been said that batches are too large for the topic?
        self._acknowledged = self._connected = self._asked = time.monotonic()
        self._acknowledged_of: dict[int, float] = {}  # by partition
        self._throttled = 0.0  # when a broker had told the client to wait last: a quota is not evaded with another client
        self._taken = 0.0  # when a broker has taken a batch, whatever became of the client
        # now, before the process drops its privileges: after that it may not be able to read the files
        from kafka import errors
        from kafka.structs import TopicPartition

        from collector.sink.kafka import causes, client, inside, limit

        self._errors: Any = errors
        self._too_large = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
        self._at_fault = (
            errors.CorruptRecordError,
            errors.InvalidRecordError,
            errors.UnsupportedForMessageFormatError,
        )
        self._inside = inside
        self._partition = functools.partial(TopicPartition, settings.topic)
        self._fast = True
        self._first_partition = zlib.crc32(settings.node.encode())
        self._connections = client.Client
        self._causes = causes.Causes(lambda: self._security, settings.brokers)
        self._limit = limit.TopicLimit(self._causes.configured, settings.topic, lambda: self._security)
        self._producer: KafkaProducer | None = None
        self._plain: KafkaProducer | None = None  # of records that are sent by themselves, where the other is idempotent

    # -- before there is a sink

    @classmethod
    def claims(cls, output: str) -> bool:
        """The word `kafka`."""
        return output == "kafka"

    @classmethod
    def default(cls, config: Config) -> str:
        """When brokers are named."""
        return "kafka" if config.brokers else ""

    @classmethod
    def check(cls, output: str, config: Config, named: str) -> None:
        """There must be a broker."""
        if not config.brokers:
            raise ConfigError(f"{named}: needs AKTO_KAFKA_BROKER_MAL=HOST:PORT")
        security.check(config)

    @classmethod
    def open_output(cls, output: str, config: Config, *, shared: bool) -> int | None:
        """What `security.read` finds, if there is to be TLS or a login. Raises ConfigError."""
        return security.hand_over(security.read(config)) if security.wanted(config) else None

    @classmethod
    def reopens(cls, output: str, config: Config) -> bool:
        """Files may have been renewed."""
        return security.wanted(config)

    @classmethod
    def made_of(cls, output: str, config: Config) -> tuple[str, ...]:
        """Certificates, keys and secrets."""
        return security.files(config)

    @classmethod
    def describe(cls, output: str, config: Config) -> str:
        """For the start line."""
        return f"Kafka {config.brokers} topic {config.COLLECTOR_KAFKA_TOPIC}"

    @classmethod
    def batches(cls, config: Config) -> BatchSettings:
        """RecordBatches, ready as Akto's variables say."""
        size = BATCH_BYTES.get(config.COLLECTOR_COMPRESSION, COMPRESSED_BATCH_BYTES)
        return BatchSettings(
            format=batches.KAFKA,
            compression=config.COLLECTOR_COMPRESSION,
            size=size,
            most=size + (64 << 10),
            largest=LARGEST_BATCH_BYTES,
            keys=config.COLLECTOR_KAFKA_KEY == "connection",
            records=config.AKTO_TRAFFIC_BATCH_SIZE,
            seconds=config.AKTO_TRAFFIC_BATCH_TIME_SECS,
        )

    @classmethod
    def options(cls, config: Config) -> dict[str, Any]:
        """As `KafkaSettings`."""
        return KafkaSettings(
            brokers=config.brokers,
            topic=config.COLLECTOR_KAFKA_TOPIC,
            compression=config.COLLECTOR_COMPRESSION,
            idempotence=config.COLLECTOR_KAFKA_IDEMPOTENCE,
            node=os.uname().nodename,
        ).to_message()

    # -- in the sink

    @classmethod
    def make(cls, options: dict[str, Any], *, fd: int | None, notes: Notes, settled: Settled) -> Self:
        """See the base class."""
        secured = Security.of(fd)
        secured.note(notes)
        return cls(KafkaSettings.from_message(options), settled, secured, notes)

    def bound(self, most_bytes: int) -> None:
        """See the base class."""
        self._most_in_client = min(IN_CLIENT_BYTES, most_bytes)

    def open(self) -> None:
        """Make the client, which connects by itself."""
        self._causes.start()
        self._producer = self._client(idempotence=self._settings.idempotence)
        why = self._inside.check(self._producer)
        if why:
            self._fast = False
            log.warning("kafka-python's inside is not as expected (%s): each record is sent by itself, which is slow", why)

    def _client(self, *, idempotence: bool) -> KafkaProducer:
        """Raises DestinationError."""
        from kafka import KafkaProducer

        codec = self._settings.compression
        made = functools.partial(
            KafkaProducer,
            bootstrap_servers=self._settings.brokers.split(","),
            client_id="collector",
            api_version=API_VERSION,
            acks="all",
            enable_idempotence=idempotence,
            max_in_flight_requests_per_connection=1,
            retries=2**31 - 1,
            delivery_timeout_ms=2**31 - 1,
            request_timeout_ms=round(REQUEST_SECONDS * 1000),
            linger_ms=5,
            batch_size=512 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
            compression_type=None if codec == "none" else codec,
            max_block_ms=2000,
            reconnect_backoff_ms=100,
            reconnect_backoff_max_ms=1000,
            metrics_enabled=False,
            kafka_client=self._connections,
            **self._security.client(),
        )
        try:
            return made()
        except (OSError, RuntimeError) as error:  # no descriptors, memory or threads are left
            raise DestinationError(
                f"no new Kafka client: {error}", retriable=True, retry_seconds=RETRY_SECONDS, attempts_at_end=None
            ) from None

    def reopen(self, fd: int, number: int) -> None:
        """Files were renewed: the next connections are made with what they hold now (`check_health` sees to it), those that
        there are go on.
        """
        if self._notes is not None:
            self._notes["output_number"] = number
        try:
            self._security = Security.of(fd)
        except CollectorError as error:
            log.error("certificates and secrets stay as they are: %s", error)
            return
        finally:
            os.close(fd)
        if self._notes is not None:
            self._security.note(self._notes)
        log.info("certificates and secrets renewed")

    def deliver(self, batch: Batch) -> None:
        """Hand the batch to the client, waiting while it has too much; its future settles it."""
        self._hand_back()
        if self._current is not batch:
            with self._room:
                if not self._room.wait_for(lambda: self._in_client <= self._most_in_client, ROOM_SECONDS):
                    raise DestinationError(
                        "the Kafka client has no room", retriable=True, retry_seconds=0.0, attempts_at_end=None, busy=True
                    )
                self._in_client += len(batch.records)
            self._current = batch
        if batch.format == batches.KAFKA and self._fast:
            self._place(batch, batch.records)
        else:
            self._send(batch)
        self._current = None

    def _place(self, batch: Batch, data: bytes | memoryview) -> None:
        """A RecordBatch, as it is. Raises DestinationError, and then it is not handed over."""
        assert self._producer is not None
        number = self._partition_of(batch)
        batch.at = 1
        with self._room:
            self._held[batch] = Held(self._clients, time.monotonic(), number)
        done = functools.partial(self._done, batch, self._clients)
        self._inside.place(self._producer, self._partition(number), data, batch.count, done)

    def _partition_of(self, batch: Batch) -> int:
        """That of its shard. Raises DestinationError while the topic is not known."""
        assert self._producer is not None
        shard = batches.unpack_origin(batch.details)
        try:
            partitions = max(1, len(self._producer.partitions_for(self._settings.topic)))
        except self._errors.KafkaError as error:
            raise self._unreachable(error) from None
        self._unusable = ""
        return (self._first_partition + shard) % partitions

    def _unreachable(self, error: Exception) -> DestinationError:
        assert self._producer is not None
        self._causes.look()
        what = "brokers unreachable"
        if self._inside.connected(self._producer):
            what = f"topic {self._settings.topic} cannot be used"
        self._unusable = f"Kafka {self._settings.brokers}: {what}: {error}"
        return DestinationError(
            self._unusable,
            retriable=True,
            retry_seconds=RETRY_SECONDS,
            attempts_at_end=None,
        )

    def _send(self, batch: Batch) -> None:
        """Record by record. Raises DestinationError, and then some may be handed over."""
        assert self._producer is not None
        partition = self._partition_of(batch) if batch.format == batches.KAFKA else None
        for key, value, headers in itertools.islice(self._records(batch), batch.at, None):
            self._send_one(Single(batch, key, value, headers, partition))
            batch.at += 1

    def _send_one(self, one: Single) -> None:
        """A record, with shorter bodies if the topic would not take it. Raises DestinationError, and then it is not handed
        over.
        """
        most = self._limit.record_bytes - _BESIDE_BYTES - sum(len(name) + len(text) for name, text in one.headers)
        if self._limit.record_bytes and len(one.value) > most:
            one.value = cut(one.value, most) or one.value
        producer, client = self._for_singles(), self._clients
        with self._room:
            one.client, one.since, one.error = client, time.monotonic(), None
            self._singles[id(one)] = one
        try:
            future = producer.send(self._settings.topic, one.value, one.key, one.headers, one.partition)
        except self._errors.KafkaError as error:
            self._came_back(one, client)
            if getattr(error, "retriable", False):
                raise self._unreachable(error) from None
            log.error("record refused: %s", error)
            self._settle(one.batch, 0, 1)
        else:
            future.add_callback(self._sent, one, client)
            future.add_errback(self._failed, one, client)

    def _for_singles(self) -> KafkaProducer:
        """The client, unless one record that is too large would end it with all that it has."""
        assert self._producer is not None
        if not self._settings.idempotence:
            return self._producer
        if self._plain is None:
            self._plain = self._client(idempotence=False)
        return self._plain

    def _records(self, batch: Batch) -> Iterator[tuple[bytes | None, bytes, list[tuple[str, bytes]]]]:
        """(key, value, headers) of each record. Raises ProtocolError for a RecordBatch that cannot be read."""
        if batch.format == batches.KAFKA:
            try:
                yield from self._inside.records(batch.records)
            except (self._errors.KafkaError, ValueError, LookupError, AssertionError, TypeError, OSError) as error:
                raise ProtocolError(f"cannot be taken apart: {type(error).__name__}") from None  # its words may quote it
            return
        for record, details, _place in batch:
            yield None, record, [("collection_details", details)] if details else []

    def _hand_back(self) -> None:
        """Hand over again what came back, unless it is at fault itself: one batch or record now and then, and as soon as the
        broker has taken any since, all. Raises DestinationError; then it is tried again.
        """
        for _ in range(len(self._again)):
            one = self._again[0]
            if one.error is not None and one.since + RETRY_SECONDS > self._taken:
                self._complaint = f"Kafka {self._settings.brokers}: {one.error}"
                if time.monotonic() < self._not_before:
                    break
                self._not_before = time.monotonic() + RETRY_SECONDS
            self._send_one(one)
            self._again.popleft()
        while self._back:
            returned = self._back[0]
            batch, error = returned.batch, returned.error
            if isinstance(error, self._too_large):
                if self._settings.idempotence:
                    self._renew(str(error))  # after one refusal it sends nothing any more
                try:
                    self._send_apart(batch, error)
                except ProtocolError as problem:
                    log.error("a batch of %d records is lost: %s", batch.count, problem)
                    self._settle(batch, 0, batch.count - batch.at)
            elif isinstance(error, self._at_fault) and not self._was_damaged_on_the_way(returned):
                hint = "; a compacted topic needs COLLECTOR_KAFKA_KEY=connection"
                keyless = isinstance(error, self._errors.InvalidRecordError)
                log.error("a batch of %d records is lost: %s%s", batch.count, error, hint if keyless else "")
                self._settle(batch, 0, batch.count)
            else:
                if returned.since + RETRY_SECONDS > self._taken:
                    self._complaint = f"Kafka {self._settings.brokers}: {error}"
                    if time.monotonic() < self._not_before:
                        return
                    if self._settings.idempotence:
                        self._renew(str(error))  # after one refusal it sends nothing any more
                    self._not_before = time.monotonic() + RETRY_SECONDS
                if isinstance(error, self._errors.InvalidTimestampError):
                    batch.records = self._inside.with_time(batch.records, time.time_ns() // 1_000_000)
                self._place(batch, batch.records)
            self._back.popleft()

    def _was_damaged_on_the_way(self, returned: Returned) -> bool:
        return isinstance(returned.error, self._errors.CorruptRecordError) and self._inside.intact(returned.batch.records)

    def _send_apart(self, batch: Batch, error: Exception) -> None:
        """A batch that is larger than the topic takes: record by record, in smaller batches of the client's."""
        self._limit.refused(len(batch.records))
        if not self._apart:
            self._apart = True
            log.warning(
                "topic %s does not take batches of %d bytes (%s): those that were made are taken apart, the next are"
                " smaller, and records that are larger are cut; its max.message.bytes should be 1 MiB, as by default",
                self._settings.topic,
                len(batch.records),
                error,
            )
        self._send(batch)

    def _renew(self, why: str) -> None:
        """Another client, which gets what this one holds. Raises DestinationError, and then nothing has changed."""
        made = self._client(idempotence=self._settings.idempotence)
        log.warning("%s: a new Kafka client", why)
        old, now = self._producer, time.monotonic()
        with self._room:
            self._clients += 1
            held = list(self._held)
            self._held.clear()
            self._again.extend(self._singles.values())
            self._singles.clear()
        plain, self._plain = self._plain, None
        self._producer = made
        self._acknowledged = now
        self._acknowledged_of.clear()
        for gone in filter(None, (old, plain)):
            self._inside.discard(gone)
        unusable: DestinationError | None = None  # each attempt takes seconds
        for batch in held:
            try:
                if unusable is not None:
                    raise unusable
                self._place(batch, bytes(batch.records))  # the old client may still read what the batch lies in
            except DestinationError as error:
                unusable = error
                self._back.append(Returned(batch, error, time.monotonic()))

    def give_up(self, batch: Batch) -> None:
        """The records that the client has not got; those that it has are settled by their futures."""
        whole = batch.format == batches.KAFKA and self._fast
        self._settle(batch, 0, (0 if batch.at else batch.count) if whole else batch.count - batch.at)

    def forget(self, batch: Batch) -> None:
        """See the base class."""
        if self._current is batch:
            self._current = None
            with self._room:
                self._in_client -= len(batch.records)
                self._room.notify_all()

    def check_health(self) -> str | None:
        """Hand over again what came back; see that the client lives, looks for brokers, and knows what files hold that were
        renewed; then see the base class.
        """
        assert self._producer is not None
        self._security.renew(self._producer)
        brokers = f"Kafka {self._settings.brokers}"
        with contextlib.suppress(DestinationError):
            self._hand_back()
        now = time.monotonic()
        if self._inside.connected(self._producer):
            self._connected = now
            self._limit.look(now)
        elif now - self._asked > RETRY_SECONDS:
            self._asked = now
            self._inside.look_for_brokers(self._producer)
        if self._inside.throttled(self._producer):
            self._throttled = now
        waits = self._waits(now)
        if now - self._connected < TROUBLE_SECONDS:
            stuck = self._stuck(now)
            try:
                if waits > STUCK_SECONDS:
                    self._renew(f"{brokers}: nothing was acknowledged for {waits:.0f} s")
                elif stuck:
                    self._renew(f"{brokers}: nothing was acknowledged of partition {stuck[0]} for {STUCK_SECONDS:.0f} s")
            except DestinationError as error:
                return f"{brokers}: {error}"
        if now - self._connected > TROUBLE_SECONDS:
            self._causes.look()
            return f"{brokers}: no broker is connected"
        if waits > TROUBLE_SECONDS:
            return f"{brokers}: nothing was acknowledged for {TROUBLE_SECONDS} s"
        return self._complaint or self._unusable

    def _waits(self, now: float) -> float:
        """Seconds for which an acknowledgement is due."""
        with self._room:
            since = [held.since for held in self._held.values()] + [one.since for one in self._singles.values()]
        return now - max(min(since, default=now), self._acknowledged, self._throttled)

    @property
    def largest(self) -> int:
        """See the base class."""
        return self._limit.bytes

    def _stuck(self, now: float) -> list[int]:
        """Partitions of which an acknowledgement is long due, while others may go on, and no broker that is away is the
        reason: an answer that the client could not read, or a topic that was made anew with fewer partitions.
        """
        oldest: dict[int, float] = {}
        with self._room:
            for held in self._held.values():
                since = max(held.since, self._acknowledged_of.get(held.partition, 0.0), self._throttled)
                oldest[held.partition] = min(oldest.get(held.partition, since), since)
        return [
            partition
            for partition, since in oldest.items()
            if now - since > STUCK_SECONDS and not self._inside.away(self._producer, self._partition(partition))
        ]

    def close(self) -> None:
        """Close the client."""
        for client in filter(None, (self._producer, self._plain)):
            try:
                client.close(timeout=CLOSE_SECONDS)
            except Exception as error:  # it waits first, and then it has closed nothing
                log.warning("closing the Kafka client: %s", error)
                self._inside.discard(client)
        self._causes.stop()

    # -- what the client says, in its thread

    def _done(self, batch: Batch, client: int, error: Exception | None) -> None:
        """A RecordBatch is acknowledged, or came back."""
        with self._room:
            held = self._held.get(batch)
            if held is None or held.client != client:
                return  # it was replaced, and what it held is somebody else's
            del self._held[batch]
        now = time.monotonic()
        if error is None:
            self._acknowledged = self._taken = self._acknowledged_of[held.partition] = now
            self._complaint = ""
            self._settle(batch, batch.count, 0)
        else:
            batch.at = 0
            self._not_before = now + RETRY_SECONDS
            self._back.append(Returned(batch, error, now))

    def _sent(self, one: Single, client: int, _metadata: object) -> None:
        if self._came_back(one, client):
            self._acknowledged = self._taken = time.monotonic()
            self._complaint = ""
            self._settle(one.batch, 1, 0)

    def _failed(self, one: Single, client: int, error: BaseException) -> None:
        if not self._came_back(one, client):
            return
        if isinstance(error, self._too_large) and one.attempts < _CUTS:
            one.attempts += 1
            self._limit.refused_record(len(one.value))
            self._again.append(one)
        elif isinstance(error, self._too_large + self._at_fault) and not isinstance(error, self._errors.CorruptRecordError):
            log.error("record lost: %s", error)
            self._settle(one.batch, 0, 1)
        else:  # not the record's fault, so it waits as a batch does; the client made the checksum, the network broke it
            one.error, one.since = error, time.monotonic()
            self._again.append(one)

    def _came_back(self, one: Single, client: int) -> bool:
        """The client is done with a record. False when it was replaced meanwhile, and another one has it."""
        with self._room:
            if one.client != client:
                return False
            return self._singles.pop(id(one), None) is not None

    def _settle(self, batch: Batch, delivered: int, failed: int) -> None:
        size = len(batch.records)  # once it is settled, its memory is its shard's again
        if self.settled(batch, delivered, failed):
            with self._room:
                self._in_client -= size
                self._room.notify_all()
