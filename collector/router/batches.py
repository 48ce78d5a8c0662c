"""A batch on its way from a shard to the sink: records, their index, and what belongs beside them.

    records     JSON_LINES: the records back to back, each ends with a newline
                KAFKA: a RecordBatch (version 2) as Kafka's protocol has it, compressed (collector/shards/kafka.pyx)
    index       one entry for each record, in their order: what an ordered or a record-wise destination needs to know
    details     JSON_LINES: the `collection_details` header values of a Kafka message, back to back; empty when nobody
                wants them. KAFKA: the number of the shard, which all its batches share a partition by

    offset  size  entry of the index (32 bytes, host order)
    0       4     bytes of the record, its newline included
    4       4     bytes of its details
    8       8     end of the exchange, ns of CLOCK_MONOTONIC
    16      8     connection (conn_id)
    24      8     position of the request's first byte in its stream

The shard writes the same entry as a C struct. The three last numbers give records their order in a replay.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from collector.errors import ProtocolError

# Formats. All batches of a start of the collector have the same: its destination's choice.
JSON_LINES = "jsonlines"
KAFKA = "kafka-v2"

INDEX_FORMAT = "=IIQQQ"
_ENTRY = struct.Struct(INDEX_FORMAT)
_ORIGIN = struct.Struct("=I")
ENTRY_BYTES = _ENTRY.size

Place = tuple[int, int, int]  # end ns, connection, stream position


def pack(record_bytes: int, details_bytes: int, place: Place) -> bytes:
    """One entry of an index; see the module."""
    return _ENTRY.pack(record_bytes, details_bytes, *place)


def pack_origin(shard: int) -> bytes:
    """The details of a KAFKA batch; see the module."""
    return _ORIGIN.pack(shard)


def unpack_origin(details: bytes | memoryview) -> int:
    """The reverse. Raises ProtocolError."""
    try:
        return int(_ORIGIN.unpack(details)[0])
    except struct.error:
        raise ProtocolError(f"the origin of a batch has {len(details)} bytes") from None


def count(index: bytes | memoryview) -> int:
    """Number of records. Raises ProtocolError when the index ends inside an entry."""
    records, rest = divmod(len(index), ENTRY_BYTES)
    if rest:
        raise ProtocolError(f"the index of a batch has {len(index)} bytes")
    return records


def first_end_ns(index: bytes | memoryview) -> int:
    """The end of the exchange of the first record, which is about the oldest, ns of CLOCK_MONOTONIC."""
    return int(_ENTRY.unpack_from(index)[2])


def ends_ns(index: bytes | memoryview) -> list[int]:
    """The end of the exchange of each record, ns of CLOCK_MONOTONIC. Raises ProtocolError when it ends inside an entry."""
    count(index)
    return [place[0] for _size, _beside, *place in _ENTRY.iter_unpack(index)]


def check(records: bytes | memoryview, index: bytes | memoryview, details: bytes | memoryview) -> None:
    """Raise ProtocolError when the index does not describe exactly these bytes."""
    count(index)
    sizes = [(size, beside) for size, beside, *_place in _ENTRY.iter_unpack(index)]
    if (
        any(not size for size, _beside in sizes)
        or sum(size for size, _beside in sizes) != len(records)
        or sum(beside for _size, beside in sizes) != len(details)
    ):
        raise ProtocolError("the index of a batch does not describe its records")


def iterate(
    records: bytes | memoryview, index: bytes | memoryview, details: bytes | memoryview
) -> Iterator[tuple[bytes, bytes, Place]]:
    """Each record of a JSON_LINES batch without its newline, its details, and its place in the order. Raises
    ProtocolError, before the first record, when the index does not describe exactly these bytes.
    """
    check(records, index, details)
    at = details_at = 0
    for size, beside, *place in _ENTRY.iter_unpack(index):
        end, details_end = at + size, details_at + beside
        yield bytes(records[at : end - 1]), bytes(details[details_at:details_end]), (place[0], place[1], place[2])
        at, details_at = end, details_end
