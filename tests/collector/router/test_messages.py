"""The layout of messages: what was packed comes back, anything else is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import ProtocolError
from collector.router import messages
from collector.router.messages import Acknowledgement, Header
from collector.router.numbers import Numbers

TOKEN = b"12345678"
WORDS = st.integers(0, (1 << 64) - 1)
NUMBERS = st.integers(0, 1 << 62)


def numbers(bounds: list[int]) -> Numbers:
    """A set with these bounds, an odd count of them."""
    below, *rest = sorted(bounds)
    return Numbers(below, list(zip(rest[::2], rest[1::2], strict=True)))


some_numbers = (
    st.lists(st.integers(1, 1 << 62), min_size=1, max_size=9, unique=True)
    .filter(lambda bounds: len(bounds) % 2)
    .map(numbers)
)


@given(
    st.integers(messages.HELLO, messages.FILE),
    WORDS,
    WORDS,
    NUMBERS,
    NUMBERS,
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, (1 << 32) - 1),
)
def test_headers_come_back(
    kind: int, epoch: int, session: int, number: int, transmission: int, wall: int, file: int
) -> None:
    packed = messages.pack(
        TOKEN, kind, epoch, session, number=number, transmission=transmission, wall_offset_ns=wall, file=file
    )
    assert messages.unpack(packed, TOKEN) == Header(kind, epoch, session, number, transmission, wall, file)
    with pytest.raises(ProtocolError, match="token"):
        messages.unpack(packed, b"87654321")


def test_damaged_headers_are_refused() -> None:
    good = messages.pack(TOKEN, messages.DATA, 1, 2, number=3)
    assert messages.unpack(good, TOKEN).number == 3
    for bad in (
        b"",
        good[:-1],
        good + b"x",
        b"XXXX" + good[4:],
        good[:4] + b"\x00" + good[5:],
        good[:4] + b"\x09" + good[5:],
        good[:32] + b"\xff" * 8 + good[40:],
        good[:40] + b"\xff" * 8 + good[48:],
    ):
        with pytest.raises(ProtocolError):
            messages.unpack(bad, TOKEN)


@given(WORDS, some_numbers, some_numbers)
def test_acknowledgements_come_back(window: int, done: Numbers, received: Numbers) -> None:
    said = Acknowledgement(window, done, received)
    assert messages.unpack_acknowledgement(said.pack()) == said


def test_an_acknowledgement_is_bounded_and_leaves_the_highest_ranges_out() -> None:
    scattered = Numbers(1, [(n, n + 1) for n in range(3, 9000, 2)])
    said = messages.unpack_acknowledgement(Acknowledgement(0, scattered, Numbers()).pack())
    ranges = list(said.done.ranges())
    assert ranges == list(scattered.ranges())[: messages.MAX_RANGES] and said.done.below == 1


@given(st.binary(max_size=120), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), some_numbers)
def test_any_bytes_are_an_acknowledgement_in_order_or_refused(
    data: bytes, changes: list[tuple[int, int]], done: Numbers
) -> None:
    changed = bytearray(Acknowledgement(1000, done, done).pack())
    for at, value in changes:
        changed[at % len(changed)] = value
    for frame in (data, bytes(changed)):
        with contextlib.suppress(ProtocolError):
            said = messages.unpack_acknowledgement(frame)
            for part in (said.done, said.received):
                bounds = [0, part.below, *(bound for both in part.ranges() for bound in both)]
                assert bounds == sorted(set(bounds))


def test_spans() -> None:
    with pytest.raises(ProtocolError):
        messages.unpack_span(b"short")
    assert messages.unpack_span(messages.pack_span(1, 2, 3)) == (1, 2, 3)
