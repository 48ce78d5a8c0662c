"""Kafka by kafka-python's public `send()`: acks=all, a batch per AKTO_TRAFFIC_BATCH_SIZE records or
AKTO_TRAFFIC_BATCH_TIME_SECS, one future per record.

Choices, each for a measured reason (docs/decisions/0006): no idempotence with one request in flight - an idempotent
kafka-python 3.0.12 stops for good after a delivery time-out or one refused record; no delivery time-out of the
client's own - our queue decides what is given up; the broker version is stated, so that a start needs no broker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from collector.sink.destination import Batch, Destination

log = logging.getLogger("sink.kafka")

# Oldest broker generation that both Kafka 2.1+ and 4.x speak (KIP-896 removed everything older from 4.0).
API_VERSION = (2, 1)
IN_CLIENT_BYTES = 16 << 20  # kafka-python has no buffer limit of its own
MAX_REQUEST_BYTES = 4 << 20
RETRY_SECONDS = 0.5
CLOSE_SECONDS = 5.0


@dataclass(slots=True)
class _Pending:
    """A batch whose records are on their way."""

    batch: Batch
    left: int
    failed: int = 0


class Kafka(Destination):
    """``settings``: brokers, topic, compression, batch_records, batch_seconds."""

    def __init__(self, settings: dict[str, Any], *, lossless: bool, wake: Callable[[], None]) -> None:
        super().__init__(lossless=lossless, wake=wake)
        self.up = False
        self._settings = settings
        self._topic: str = settings["topic"]
        self._batch_records: int = settings["batch_records"]
        self._batch_seconds: float = settings["batch_seconds"]
        self._changed = threading.Condition()
        self._in_client = 0
        self._producer: KafkaProducer | None = None

    def _connect(self) -> KafkaProducer:
        codec = self._settings["compression"]
        return KafkaProducer(
            bootstrap_servers=self._settings["brokers"].split(","), client_id="collector", api_version=API_VERSION,
            acks="all", enable_idempotence=False, max_in_flight_requests_per_connection=1, retries=2**31 - 1,
            delivery_timeout_ms=2**31 - 1, request_timeout_ms=30000, linger_ms=5, batch_size=512 * 1024,
            max_request_size=MAX_REQUEST_BYTES, compression_type=None if codec == "none" else codec,
            max_block_ms=2000, reconnect_backoff_ms=100, reconnect_backoff_max_ms=1000, metrics_enabled=False)

    def deliver_forever(self) -> None:
        """Collect batches until one is due, then hand them over."""
        self._producer = self._connect()
        held: list[Batch] = []
        held_records = 0
        first_at = 0.0
        while True:
            batch = self._take(min(0.2, self._batch_seconds) if held else 0.2)
            if batch is not None:
                if not held:
                    first_at = time.monotonic()
                held.append(batch)
                held_records += batch.count
            due = held and (held_records >= self._batch_records or self._closing
                            or time.monotonic() - first_at >= self._batch_seconds)
            if due:
                for one in held:
                    self._hand_over(one)
                held, held_records = [], 0
            if self._closing and not held and batch is None and self._drained():
                break
            if self.gone:
                return
        try:
            self._producer.close(timeout=CLOSE_SECONDS)
        except KafkaError as error:
            log.warning("closing the producer: %s", error)

    def _drained(self) -> bool:
        with self._changed:
            if self._in_client:
                self._changed.wait(0.1)
            return not self._in_client

    def _hand_over(self, batch: Batch) -> None:
        assert self._producer is not None
        with self._changed:
            while self._in_client > IN_CLIENT_BYTES:
                self._changed.wait(0.5)
            self._in_client += len(batch.records)
        pending = _Pending(batch, batch.count)
        for record, details, _place in batch:
            headers = [("collection_details", details)] if details else None
            while True:
                try:
                    future = self._producer.send(self._topic, value=record, headers=headers)
                    break
                except KafkaError as error:
                    if not getattr(error, "retriable", False):
                        log.error("record refused: %s", error)
                        self._record_done(pending, error)
                        future = None
                        break
                    self.totals.errors += 1
                    self.up = False
                    log.warning("Kafka %s is away: %s; trying again", self._settings["brokers"], error)
                    time.sleep(RETRY_SECONDS)
            if future is not None:
                future.add_callback(self._sent, pending)
                future.add_errback(self._failed, pending)

    def _sent(self, pending: _Pending, _metadata: object) -> None:
        self.up = True
        self._record_done(pending, None)

    def _failed(self, pending: _Pending, error: BaseException) -> None:
        log.error("record lost: %s", error)
        self._record_done(pending, error)

    def _record_done(self, pending: _Pending, error: BaseException | None) -> None:
        with self._changed:
            pending.left -= 1
            if error is not None:
                pending.failed += 1
                self.totals.failed += 1
            else:
                self.totals.delivered += 1
            if pending.left:
                return
            self._in_client -= len(pending.batch.records)
            self._changed.notify_all()
        self._finished(pending.batch)

