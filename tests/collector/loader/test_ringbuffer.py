"""The consumer side of a ring, alone, on memory of the same layout; tests/bpf has the kernel's own."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader.ringbuffer import Ring, RingView, memfd_ring

SIZE = 4096
BUSY, DISCARD = 1 << 31, 1 << 30


def record(data: bytes, flags: int = 0) -> bytes:
    return (struct.pack("=II", len(data) | flags, 0) + data).ljust((len(data) + 15) // 8 * 8, b"\0")


@pytest.fixture
def fd() -> Iterator[int]:
    made = memfd_ring(SIZE)
    yield made
    os.close(made)


def test_nothing_is_ready_in_an_empty_ring(fd: int) -> None:
    ring = Ring(fd, SIZE, memfd=True)
    assert ring.next_span(1000) is None and ring.drain(1000) is None
    assert (ring.pending(), ring.produced(), ring.announced, ring.size) == (0, 0, 0, SIZE)


def test_a_span_is_whole_records_and_is_announced_once(fd: int) -> None:
    ring, view = Ring(fd, SIZE, memfd=True), RingView(fd, SIZE, memfd=True)
    one, two = record(b"one"), record(b"and two more")
    assert ring.put(one) and ring.put(two)
    assert ring.next_span(1000) == (0, len(one + two))
    assert ring.next_span(1000) is None and ring.pending() == len(one + two)
    assert bytes(view.view(0, len(one + two))) == ring.copy(0, len(one + two)) == one + two
    ring.release(len(one))
    assert ring.pending() == len(two) and ring.high_water == len(one + two)
    ring.release(0)  # an older acknowledgement says nothing new
    assert ring.pending() == len(two)


def test_one_record_at_least_and_else_no_more_than_asked_for(fd: int) -> None:
    ring = Ring(fd, SIZE, memfd=True)
    records = [record(bytes(100)) for _ in range(3)]
    for each in records:
        ring.put(each)
    n = len(records[0])
    assert [ring.next_span(1), ring.next_span(2 * n - 1), ring.next_span(10 * n)] == [(0, n), (n, n), (2 * n, n)]


def test_what_the_kernel_is_still_writing_ends_a_span(fd: int) -> None:
    ring = Ring(fd, SIZE, memfd=True)
    ring.put(record(b"done") + record(b"being written", BUSY) + record(b"behind"))
    assert ring.next_span(1000) == (0, 16)
    assert ring.next_span(1000) is None


def test_a_discarded_record_is_part_of_its_span(fd: int) -> None:
    ring = Ring(fd, SIZE, memfd=True)
    data = record(b"given up", DISCARD) + record(b"kept")
    ring.put(data)
    assert ring.drain(1000) == data and ring.pending() == 0


def test_a_full_ring_takes_nothing_until_room_is_given_back(fd: int) -> None:
    ring = Ring(fd, SIZE, memfd=True)
    half = record(bytes(SIZE // 2 - 8))
    assert ring.put(half) and ring.put(half) and not ring.put(half)
    ring.next_span(SIZE)
    assert not ring.put(half)  # announced is not done with
    ring.release(len(half))
    assert ring.put(half)


def test_a_new_life_begins_where_the_last_one_had_released(fd: int) -> None:
    ring = Ring(fd, SIZE, memfd=True)
    ring.put(record(b"one") + record(b"two"))
    ring.next_span(1000)
    ring.release(16)
    assert Ring(fd, SIZE, memfd=True).next_span(1000) == (16, 16)


@pytest.mark.parametrize("size", [0, 1, 2048, 5000, 6144])
def test_a_ring_is_a_power_of_two_and_at_least_a_page(fd: int, size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Ring(fd, size, memfd=True)


@pytest.mark.parametrize("length", [0, SIZE + 1])
def test_no_view_is_longer_than_its_ring(fd: int, length: int) -> None:
    with pytest.raises(ValueError, match="longer"):
        RingView(fd, SIZE, memfd=True).view(0, length)


def test_no_descriptor_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        Ring(-1, SIZE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        RingView(-1, SIZE)


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 2000)), max_size=60))
def test_everything_comes_out_in_order_round_and_round(steps: list[tuple[int, int]]) -> None:
    fd = memfd_ring(SIZE)
    try:
        ring, view = Ring(fd, SIZE, memfd=True), RingView(fd, SIZE, memfd=True)
        put = out = b""
        for number, (size, most) in enumerate(steps):
            data = record(bytes([number % 256]) * size)
            if ring.put(data):
                put += data
            span = ring.next_span(most)
            if span is not None:
                assert span[0] == len(out)
                out += bytes(view.view(*span))
                ring.release(sum(span))
        while (rest := ring.drain(1 << 20)) is not None:
            out += rest
        assert out == put and ring.pending() == 0
    finally:
        os.close(fd)
