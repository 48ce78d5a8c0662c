"""Records as Kafka's RecordBatches, read back by kafka-python's reader with its check of the checksum."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords

from collector.shards.codecs import codec
from tests.events import Conversation, ident, pipeline

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
MOST = 960 << 10
WALL_MS = 1_795_000_000_123


def conversation(name: str = "none", *, most: int = MOST) -> Conversation:
    pipe = pipeline(want_details=True)
    pipe.use_record_batches(*codec(name), most, 1 << 20)
    return Conversation(pipe)


def exchange(c: Conversation, path: str = "/p", body: bytes = b"x" * 100) -> None:
    c.request(f"GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def read(data: bytes | bytearray) -> list[Any]:
    records: list[Any] = []
    batches = list(MemoryRecords(bytes(data)))
    for batch in batches:
        assert batch.validate_crc()
        records += batch
    assert len(batches) == 1
    return records


def taken(c: Conversation) -> list[list[Any]]:
    """The records of all batches, with what is always true of them."""
    out = []
    while (one := c.pipe.take(WALL_MS)) is not None:
        where, index, details = one
        assert isinstance(where, bytes)
        records = read(where)
        assert len(index) == 32 * len(records) and details == b""
        assert [record.offset for record in records] == list(range(len(records)))
        assert all(record.timestamp == WALL_MS and record.key is None for record in records)
        out.append(records)
    assert c.pipe.pending() == c.pipe.pending_records() == 0
    return out


@pytest.mark.parametrize("name", CODECS)
def test_each_codec_gives_the_same_records(name: str) -> None:
    c, plain = conversation(name), Conversation(pipeline(want_details=True))
    for one in (c, plain):
        for number in range(50):
            exchange(one, f"/{number}", b"%d" % number * number)
    (records,) = taken(c)
    batch = plain.pipe.take()
    assert batch is not None
    lines, _index, details = batch
    assert b"".join(record.value + b"\n" for record in records) == lines
    assert b"".join(value for record in records for _name, value in record.headers) == details
    assert {name for record in records for name, _value in record.headers} == {"collection_details"}


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=40), most=st.integers(1, 20_000), name=st.sampled_from(CODECS)
)
def test_batches_have_their_bound_and_nothing_is_lost_or_moved(sizes: list[int], most: int, name: str) -> None:
    c = conversation(name, most=most)
    for number, size in enumerate(sizes):
        exchange(c, f"/{number}", b"a" * size)
    batches = taken(c)
    assert [json.loads(record.value)["path"] for records in batches for record in records] == [
        f"/{number}" for number in range(len(sizes))
    ]
    for records in batches:
        assert len(records) == 1 or sum(len(record.value) for record in records) <= most


def test_a_batch_lies_in_a_slot_while_one_is_free_and_fits() -> None:
    c = conversation()
    slot_bytes = 32 << 10
    memory = bytearray(2 * slot_bytes)
    c.pipe.use_slots(memory, 2, 512 << 10)

    def take(size: int) -> bytes | tuple[int, int]:
        exchange(c, body=b"x" * size)
        one = c.pipe.take(WALL_MS)
        assert one is not None
        if isinstance(one[0], tuple):
            slot, length = one[0]
            (record,) = read(memory[slot * slot_bytes :][:length])
            assert json.loads(record.value)["responsePayload"] == "x" * size
        return one[0]

    first, second = take(10), take(20)
    assert isinstance(first, tuple) and isinstance(second, tuple) and first[0] != second[0]
    assert isinstance(take(30), bytes)  # no slot is free
    c.pipe.release(first[0])
    assert isinstance(take(40_000), bytes)  # it does not fit
    again = take(50)
    assert isinstance(again, tuple) and again[0] == first[0]
    with pytest.raises(ValueError, match="slot"):
        c.pipe.release(5)


def test_a_record_without_details_has_no_header() -> None:
    pipe = pipeline(want_details=False)
    pipe.use_record_batches(*codec("lz4"), MOST, 1 << 20)
    c = Conversation(pipe)
    exchange(c)
    ((record,),) = taken(c)
    assert record.headers == []


def test_the_key_may_be_the_connection() -> None:
    pipe = pipeline(want_details=True)
    pipe.use_record_batches(*codec("zstd"), MOST, 1 << 20, True)
    conns = [Conversation(pipe, conn=ident(number, 9)) for number in (5, 0xABC)]
    for c in conns * 2:
        exchange(c)
    batch = pipe.take(WALL_MS)
    assert batch is not None and isinstance(batch[0], bytes)
    assert [record.key for record in read(batch[0])] == [b"%016x" % c.conn[0] for c in conns * 2]


def test_the_format_is_chosen_before_the_first_record() -> None:
    c = Conversation(pipeline())
    exchange(c)
    with pytest.raises(ValueError, match="too late"):
        c.pipe.use_record_batches(*codec("lz4"), MOST, 1 << 20)


def test_a_codec_that_fails_loses_nothing() -> None:
    pipe = pipeline()
    working = [False]

    def compress(records: memoryview) -> bytes:
        if not working[0]:
            raise MemoryError
        return bytes(records)

    pipe.use_record_batches(0, compress, MOST, 1 << 20)
    c = Conversation(pipe)
    exchange(c)
    with pytest.raises(MemoryError):
        c.pipe.take(WALL_MS)
    working[0] = True
    ((record,),) = taken(c)
    assert json.loads(record.value)["path"] == "/p"
