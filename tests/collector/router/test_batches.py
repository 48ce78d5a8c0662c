"""The index of a batch: what is packed is read back, what a shard writes is understood, and nonsense is refused whole."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import ProtocolError
from collector.router import batches
from tests.events import GET, Conversation

NUMBERS = st.integers(0, 2**64 - 1)
ITEMS = st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=10), st.tuples(NUMBERS, NUMBERS, NUMBERS)))


def packed(items: list[tuple[bytes, bytes, batches.Place]]) -> tuple[bytes, bytes, bytes]:
    return (
        b"".join(record + b"\n" for record, _details, _place in items),
        b"".join(batches.pack(len(record) + 1, len(details), place) for record, details, place in items),
        b"".join(details for _record, details, _place in items),
    )


@given(items=ITEMS)
def test_what_is_packed_is_read_back(items: list[tuple[bytes, bytes, batches.Place]]) -> None:
    records, index, details = packed(items)
    assert batches.count(index) == len(items)
    assert list(batches.iterate(records, index, details)) == items
    assert list(batches.iterate(memoryview(records), memoryview(index), memoryview(details))) == items


@given(items=ITEMS, which=st.integers(0, 2), more=st.binary(min_size=1, max_size=70), cut=st.booleans())
def test_parts_that_do_not_belong_together_are_refused_before_the_first_record(
    items: list[tuple[bytes, bytes, batches.Place]], which: int, more: bytes, cut: bool
) -> None:
    parts = list(packed(items))
    changed = parts[which][: -len(more)] if cut else parts[which] + more
    if changed == parts[which]:
        return
    parts[which] = changed
    with pytest.raises(ProtocolError):
        next(batches.iterate(*parts))


@given(records=st.binary(max_size=100), index=st.binary(max_size=200), details=st.binary(max_size=20))
def test_any_bytes_are_read_or_refused(records: bytes, index: bytes, details: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        found = list(batches.iterate(records, index, details))
        assert len(found) == batches.count(index)
        assert sum(len(record) + 1 for record, _details, _place in found) == len(records)


def test_a_record_without_a_byte_is_refused() -> None:
    with pytest.raises(ProtocolError):
        next(batches.iterate(b"", batches.pack(0, 0, (1, 2, 3)), b""))


def test_what_a_shard_writes_is_understood() -> None:
    c = Conversation(want_details=True)
    for _ in range(2):
        c.request(GET)
        c.response(b"HTTP/1.1 204 No Content\r\n\r\n")
    batch = c.pipe.take()
    assert batch is not None and isinstance(batch[0], bytes)
    found = list(batches.iterate(batch[0], batch[1], batch[2]))
    assert [record for record, _details, _place in found] == batch[0].splitlines()
    assert all(details for _record, details, _place in found)
    places = [place for _record, _details, place in found]
    assert [place[1] for place in places] == [c.conn[0]] * 2 and places == sorted(places) and places[0][2] < places[1][2]
