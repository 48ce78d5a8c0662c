"""Batches in memory shared with the sink: the same bytes wherever they lie, no slot used twice, lives kept apart."""

from __future__ import annotations

import os
from typing import Any

import pytest

from collector import abi
from collector.errors import ProtocolError
from collector.router import slots
from tests.events import GET, Conversation, pipeline

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def exchange(c: Conversation, size: int = 100) -> None:
    c.request(GET)
    c.response(ANSWER % size + b"x" * size)


def batch(c: Conversation) -> tuple[Any, bytes, bytes]:
    taken = c.pipe.take()
    assert taken is not None
    return taken


def in_memory(count: int, slot_bytes: int = 65536) -> tuple[Conversation, bytearray]:
    pipe = pipeline()
    memory = bytearray(count * slot_bytes)
    pipe.use_slots(memory, count, 32768)
    return Conversation(pipe), memory


def test_records_are_the_same_in_a_slot_and_on_the_heap() -> None:
    c, memory = in_memory(2)
    plain = Conversation()
    for one in (c, plain):
        exchange(one)
        exchange(one, 0)
    (slot, length), index, _ = batch(c)
    records, plain_index, _ = batch(plain)
    assert bytes(memory[slot * 65536 : slot * 65536 + length]) == records
    assert index == plain_index


def test_a_slot_is_not_written_before_it_is_given_back() -> None:
    c, memory = in_memory(2)
    held = {}
    for _ in range(2):
        exchange(c)
        (slot, length), _, _ = batch(c)
        held[slot] = bytes(memory[slot * 65536 : slot * 65536 + length])
    assert set(held) == {0, 1}
    exchange(c)
    records, _, _ = batch(c)
    assert isinstance(records, bytes)  # no slot is free: the batch goes through the socket
    for slot, records in held.items():
        assert bytes(memory[slot * 65536 : slot * 65536 + len(records)]) == records
    c.pipe.release(1)
    exchange(c)
    assert batch(c)[0][0] == 1


def test_a_record_too_large_for_its_slot_moves_the_batch_to_the_heap() -> None:
    c, _ = in_memory(1, 16384)
    exchange(c)
    exchange(c, 20000)  # may need six times that
    records, index, _ = batch(c)
    assert isinstance(records, bytes) and records.count(b"\n") == 2 == len(index) // 32
    exchange(c)
    assert batch(c)[0][0] == 0  # the slot had come back


def test_feeding_stops_at_a_full_batch() -> None:
    c, _ = in_memory(2)
    span, position = [], 0
    answer = ANSWER % 2000 + b"x" * 2000
    for number in range(40):
        span += [
            abi.pack_data(c.conn, abi.IN, number * len(GET), GET, ts_ns=c.now),
            abi.pack_data(c.conn, abi.OUT, number * len(answer), answer, ts_ns=c.now),
        ]
    data, batches = b"".join(span), 0
    while position < len(data):
        position = c.pipe.feed(data, 0, position)
        if position < len(data):
            (slot, length), _, _ = batch(c)
            assert 32768 < length <= 32768 + 4096
            c.pipe.release(slot)
            batches += 1
    assert batches >= 2 and c.counters()["records"] == 40


@pytest.mark.parametrize(("count", "size"), [(0, 65536), (65, 65 * 4096), (2, 4096)])
def test_unfit_memory_is_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="slots"):
        pipeline().use_slots(bytearray(size), count, 1000)


def test_the_sink_reads_what_the_shard_wrote_and_keeps_lives_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = slots.Reader()
    written = {}
    for life in range(3):
        fd = slots.create(2)
        memory = slots.Writer(os.dup(fd)).memory
        memory[slots.SLOT_BYTES : slots.SLOT_BYTES + 6] = b"life %d" % life
        written[life] = memory
        reader.add(7, life, os.dup(fd))
        os.close(fd)
        if life == 0:
            held = reader.records(slots.pack(7, 0, 1, 6))
    assert bytes(reader.records(slots.pack(7, 2, 1, 6))) == b"life 2"
    assert bytes(reader.records(slots.pack(7, 1, 1, 6))) == b"life 1"
    assert not reader.knows(slots.pack(7, 0, 1, 6)) and not reader.knows(slots.pack(6, 2, 1, 6))
    reader.forget_old()
    assert reader.knows(slots.pack(7, 1, 1, 6))  # not yet
    monkeypatch.setattr(slots, "OLD_SECONDS", -1.0)
    reader.forget_old()
    assert reader.knows(slots.pack(7, 2, 1, 6)) and not reader.knows(slots.pack(7, 1, 1, 6))
    assert bytes(held) == b"life 0"  # a batch that is held keeps its memory
    for frame in (slots.pack(7, 0, 1, 6), slots.pack(7, 2, 2, 6), slots.pack(7, 2, 0, slots.SLOT_BYTES + 1), b"x"):
        with pytest.raises(ProtocolError):
            reader.records(frame)
    with pytest.raises(TypeError):
        held[0] = 0  # read-only


def test_pages_of_slots_that_are_not_needed_any_more_are_given_back() -> None:
    fd = slots.create(4)
    writer = slots.Writer(os.dup(fd))

    def blocks() -> int:
        return os.fstat(fd).st_blocks * 512

    for slot in range(4):  # a busy time: all slots at once
        writer.memory[slot * slots.SLOT_BYTES : slot * slots.SLOT_BYTES + 8192] = bytes(8192)
        writer.used(slot, 3 - slot)
    assert blocks() == 4 * 8192
    writer.give_back([3, 2, 1, 0])
    assert blocks() == 4 * 8192
    writer.used(0, 3)  # a quiet time: one slot is enough
    writer.give_back([3, 2, 1, 0])
    assert blocks() == 8192
    os.close(fd)


def test_a_slot_that_is_not_out_cannot_come_back() -> None:
    c, _ = in_memory(2)
    exchange(c)
    slot = batch(c)[0][0]
    c.pipe.release(slot)
    for wrong in (slot, 1, 2, 64, 1000):
        with pytest.raises(ValueError, match="not out"):
            c.pipe.release(wrong)


def test_the_memory_cannot_be_resized_under_the_sink() -> None:
    fd = slots.create(4)
    try:
        for size in (0, slots.SLOT_BYTES * 8):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
    finally:
        os.close(fd)
