"""Kafka by kafka-python's public `send()`: acks=all, one future per record.

Choices, each for a measured reason (docs/decisions/0006): no idempotence with one request in flight - an idempotent
kafka-python 3.0.12 stops for good after a delivery time-out or one refused record; no delivery time-out of the
client's own - our queue decides what is given up; the broker version is stated, so that a start needs no broker.

When batches leave is the queue's business (AKTO_TRAFFIC_BATCH_SIZE, AKTO_TRAFFIC_BATCH_TIME_SECS), when a failed
attempt is repeated that of the retry policy. The client is loaded by the process that delivers, and by no other.
"""

from __future__ import annotations

import itertools
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from collector.config import Config
from collector.errors import ConfigError, DestinationError
from collector.router import batches
from collector.settings import Message
from collector.sink.batch import Batch
from collector.sink.destination import Destination, Notes, Settled
from collector.sink.queue import Linger

if TYPE_CHECKING:
    from kafka import KafkaProducer

log = logging.getLogger("sink.kafka")

# Oldest broker generation that both Kafka 2.1+ and 4.x speak (KIP-896 removed everything older from 4.0).
API_VERSION = (2, 1)
IN_CLIENT_BYTES = 16 << 20  # kafka-python has no buffer limit of its own
MAX_REQUEST_BYTES = 4 << 20
RETRY_SECONDS = 0.5
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings(Message):
    """What the destination is told. ``brokers`` is HOST:PORT[,HOST:PORT...]; a batch leaves at so many records or
    seconds.
    """

    brokers: str
    topic: str
    compression: str
    batch_records: int
    batch_seconds: float


class Kafka(Destination):
    """See the module. ``batch.at`` counts records that the client has, or that were refused."""

    kind = metavar = "kafka"
    accepts = frozenset({batches.JSON_LINES})
    wants_details = True
    up_at_start = False

    def __init__(self, settings: KafkaSettings, settled: Settled) -> None:
        super().__init__(settled)
        self._settings = settings
        self.linger = Linger(settings.batch_records, settings.batch_seconds)
        self._room = threading.Condition()
        self._in_client = 0  # bytes of batches that the client has, and no acknowledgement of the last record
        self._current: Batch | None = None  # the batch that is being handed over
        self._producer: KafkaProducer | None = None
        # now, before the process drops its privileges: after that it may not be able to read the files
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        self._client, self._client_error = KafkaProducer, KafkaError

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

    @classmethod
    def describe(cls, output: str, config: Config) -> str:
        """For the start line."""
        return f"Kafka {config.brokers} topic {config.COLLECTOR_KAFKA_TOPIC}"

    @classmethod
    def options(cls, config: Config) -> dict[str, Any]:
        """As `KafkaSettings`."""
        return KafkaSettings(
            brokers=config.brokers,
            topic=config.COLLECTOR_KAFKA_TOPIC,
            compression=config.COLLECTOR_COMPRESSION,
            batch_records=config.AKTO_TRAFFIC_BATCH_SIZE,
            batch_seconds=config.AKTO_TRAFFIC_BATCH_TIME_SECS,
        ).to_message()

    @classmethod
    def make(cls, options: dict[str, Any], *, fd: int | None, notes: Notes, settled: Settled) -> Self:
        """See the base class."""
        return cls(KafkaSettings.from_message(options), settled)

    def open(self) -> None:
        """Make the client, which connects by itself."""
        codec = self._settings.compression
        self._producer = self._client(
            bootstrap_servers=self._settings.brokers.split(","),
            client_id="collector",
            api_version=API_VERSION,
            acks="all",
            enable_idempotence=False,
            max_in_flight_requests_per_connection=1,
            retries=2**31 - 1,
            delivery_timeout_ms=2**31 - 1,
            request_timeout_ms=30000,
            linger_ms=5,
            batch_size=512 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
            compression_type=None if codec == "none" else codec,
            max_block_ms=2000,
            reconnect_backoff_ms=100,
            reconnect_backoff_max_ms=1000,
            metrics_enabled=False,
        )

    def deliver(self, batch: Batch) -> None:
        """Hand the records to the client, waiting while it has too many; its futures settle them."""
        assert self._producer is not None
        if self._current is not batch:
            with self._room:
                self._room.wait_for(lambda: self._in_client <= IN_CLIENT_BYTES)
                self._in_client += len(batch.records)
            self._current = batch
        for record, details, _place in itertools.islice(batch, batch.at, None):
            headers = [("collection_details", details)] if details else None
            try:
                future = self._producer.send(self._settings.topic, value=record, headers=headers)
            except self._client_error as error:
                if getattr(error, "retriable", False):
                    raise DestinationError(
                        f"Kafka {self._settings.brokers}: brokers unreachable: {error}",
                        retriable=True,
                        retry_seconds=RETRY_SECONDS,
                        attempts_at_end=None,
                    ) from None
                batch.at += 1
                log.error("record refused: %s", error)
                self._settle(batch, 0, 1)
            else:
                batch.at += 1
                future.add_callback(self._sent, batch)
                future.add_errback(self._failed, batch)
        self._current = None

    def give_up(self, batch: Batch) -> None:
        """The records that the client has not got; those that it has are settled by their futures."""
        self._settle(batch, 0, batch.count - batch.at)

    def close(self) -> None:
        """Close the client."""
        if self._producer is not None:
            try:
                self._producer.close(timeout=CLOSE_SECONDS)
            except self._client_error as error:
                log.warning("closing the producer: %s", error)

    def _sent(self, batch: Batch, _metadata: object) -> None:
        self._settle(batch, 1, 0)

    def _failed(self, batch: Batch, error: BaseException) -> None:
        log.error("record lost: %s", error)
        self._settle(batch, 0, 1)

    def _settle(self, batch: Batch, delivered: int, failed: int) -> None:
        size = len(batch.records)  # once it is settled, its memory is its shard's again
        if self.settled(batch, delivered, failed):
            with self._room:
                self._in_client -= size
                self._room.notify_all()
