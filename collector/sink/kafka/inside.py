"""What we use of kafka-python's inside: a finished batch is put where its own are, behind the partition's others.

Retries, leaders, order, TLS and SASL stay the client's; `send()`, which costs 18 to 25 us a record, is not called
(docs/decisions/0022). None of this is public, so the version is pinned, and `check` tries all of it before it is relied on.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator

from crc32c import crc32c
from kafka import KafkaProducer
from kafka.producer.producer_batch import FinalState, ProducerBatch
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.producer.sender import Sender
from kafka.record.memory_records import MemoryRecords
from kafka.structs import TopicPartition

_LENGTH_FROM, _MAGIC_AT, _MAGIC, _CRC_AT, _CRC_FROM, _HEADER_BYTES = 12, 16, 2, 17, 21, 61
_PRODUCER = struct.Struct(">qhi")  # id, epoch, first sequence number
_PRODUCER_AT = 43
_TIMES = struct.Struct(">qq")  # of the first record, and the latest
_TIMES_AT = 27


class Finished:
    """Stands where the client has the builder of a batch's records: a RecordBatch that is complete."""

    def __init__(self, data: bytes | memoryview, count: int) -> None:
        self._data: bytes | bytearray | memoryview = data
        self._count = count
        self.producer_id, self.producer_epoch, self.base_sequence = -1, -1, -1

    def append(self, *_record: object) -> None:
        """Nothing more goes in."""
        return

    def is_full(self) -> bool:
        """It need not wait for company."""
        return True

    def close(self) -> None:
        """It is."""

    def next_offset(self) -> int:
        """Number of records."""
        return self._count

    def size_in_bytes(self) -> int:
        """As it is sent."""
        return len(self._data)

    def compression_rate(self) -> float:
        """Only asked for the client's own metrics."""
        return 1.0

    def buffer(self) -> bytes | bytearray | memoryview:
        """What is sent."""
        return self._data

    def set_producer_state(self, producer_id: int, epoch: int, sequence: int, _transactional: bool) -> None:
        """Enter the numbers of an idempotent producer: in a copy, the original is its shard's."""
        self.producer_id, self.producer_epoch, self.base_sequence = producer_id, epoch, sequence
        data = bytearray(self._data)
        _PRODUCER.pack_into(data, _PRODUCER_AT, producer_id, epoch, sequence)
        struct.pack_into(">I", data, _CRC_AT, crc32c(memoryview(data)[_CRC_FROM:]))
        self._data = data


class Aborted(Exception):
    """The client has given the batch up for a reason that need not be the batch's: what another one met, or its own end."""


class FinishedBatch(ProducerBatch):  # type: ignore[misc]
    """A batch of the client's with records that are not its own."""

    record_count = 1  # so that the client never splits it, which would lose the callback


def place(
    producer: KafkaProducer,
    partition: TopicPartition,
    data: bytes | memoryview,
    count: int,
    done: Callable[[Exception | None], None],
) -> None:
    """Hand a RecordBatch of so many records over. ``done`` is called once, by the client's thread, with what went wrong;
    until then ``data`` must stay as it is.
    """
    accumulator = producer._accumulator
    batch = FinishedBatch(partition, Finished(data, count))

    def completed(result: tuple[int, int, Callable[[int], Exception] | None]) -> None:
        _base_offset, _time, error_of = result
        error = error_of(0) if error_of is not None else None
        done(Aborted(str(error)) if batch.final_state is FinalState.ABORTED else error)

    batch.produce_future.add_callback(completed)
    with accumulator._tp_lock(partition):
        accumulator._batches[partition].append(batch)
        accumulator._incomplete.add(batch)
    if partition not in accumulator.muted:  # else a request is under way, and its answer wakes the client up
        producer._sender.wakeup()


def connected(producer: KafkaProducer) -> bool:
    """Is any broker connected now?"""
    return any(connection.connected for connection in list(producer._sender._client._manager._conns.values()))


def throttled(producer: KafkaProducer) -> bool:
    """Has a broker told the client to send nothing for a while (a quota, KIP-219), and is it not over?"""
    now = time.monotonic()
    return any(each._throttle_time > now for each in list(producer._sender._client._manager._conns.values()))


def away(producer: KafkaProducer, partition: TopicPartition) -> bool:
    """Is the broker away that leads a partition? Not when there is no such partition."""
    leader = producer._metadata.leader_for_partition(partition)
    if leader is None:
        return False
    connection = producer._sender._client._manager._conns.get(leader)
    return connection is None or not connection.connected


def intact(data: bytes | memoryview) -> bool:
    """Are length, version and checksum of a RecordBatch what they should be?"""
    return (
        len(data) >= _HEADER_BYTES
        and int.from_bytes(data[_LENGTH_FROM - 4 : _LENGTH_FROM]) == len(data) - _LENGTH_FROM
        and data[_MAGIC_AT] == _MAGIC
        and int.from_bytes(data[_CRC_AT:_CRC_FROM]) == crc32c(data[_CRC_FROM:])
    )


def with_time(data: bytes | memoryview, wall_ms: int) -> bytes:
    """A RecordBatch of a shard's, all records of which have one time, with another one (Unix milliseconds)."""
    out = bytearray(data)
    _TIMES.pack_into(out, _TIMES_AT, wall_ms, wall_ms)
    struct.pack_into(">I", out, _CRC_AT, crc32c(memoryview(out)[_CRC_FROM:]))
    return bytes(out)


def look_for_brokers(producer: KafkaProducer) -> None:
    """Let a client that has nothing to send connect all the same."""
    with contextlib.suppress(RuntimeError):  # one whose thread is ending connects to nobody any more
        producer._metadata.request_update()
        producer._sender.wakeup()


def discard(producer: KafkaProducer) -> None:
    """End a client without waiting for what it holds."""
    producer._unregister_cleanup()
    producer._sender.force_close()
    producer._closed = True  # or its __del__ waits for what it holds, wherever the garbage is collected, and raises


def records(data: bytes | memoryview) -> Iterator[tuple[bytes | None, bytes, list[tuple[str, bytes]]]]:
    """(key, value, headers) of each record of a RecordBatch. Raises whatever the client does about one that is damaged."""
    for batch in MemoryRecords(bytes(data)):
        for record in batch:
            yield record.key, record.value, record.headers


class _OneBroker:
    """As much of the client's view of a cluster as `check` needs."""

    def __init__(self, partition: TopicPartition) -> None:
        self._partition = partition

    def leader_for_partition(self, _partition: TopicPartition) -> int:
        return 0

    def partitions_for_broker(self, _broker: int) -> set[TopicPartition]:
        return {self._partition}


class _Producer:
    """As much of a producer."""

    def __init__(self) -> None:
        self._accumulator = RecordAccumulator()
        self._sender = self
        self._transaction_manager = None

    def wakeup(self) -> None:
        pass


def check(made: KafkaProducer) -> str:
    """Why a finished batch cannot be handed to this client; "" if it can. Goes all the way to the request's bytes and back
    to the callback, with parts of its own and without a network.
    """
    partition = TopicPartition("t", 0)
    data, results = b"finished" * 16, list[Exception | None]()
    producer, cluster = _Producer(), _OneBroker(partition)
    try:
        place(producer, partition, data, 3, results.append)
        if producer._accumulator.ready(cluster)[0] != {0}:
            return "the batch is not ready to be sent"
        batches = producer._accumulator.drain(cluster, [0], 1 << 20)[0]
        request = Sender._produce_request(producer, 0, -1, 1000, batches)
        if data not in bytes(request.encode(version=7)):
            return "the batch is not in the request"
        batches[0].complete(5, -1)
        if results != [None]:
            return f"the callback was given {results!r:.80}"
        parts = made._accumulator, made._sender.force_close, made._metadata.request_update, made._unregister_cleanup
        if not isinstance(parts[0], RecordAccumulator):
            return "the producer has another accumulator"
        connected(made)
        throttled(made)
        away(made, partition)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
