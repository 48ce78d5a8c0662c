"""HPACK: stories of six encoders whole, cut at every block, and with each block missing: right fields or unknown ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.layers.http2.hpack import HeaderTable

Fields = list[tuple[bytes, bytes]]


def stories(corpora: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for path in sorted((corpora / "hpack").glob("*/*.json")):
        story = json.loads(path.read_bytes())
        if "wire" in story["cases"][0]:
            yield f"{path.parent.name}/{path.stem}", story["cases"]


def wanted(case: dict[str, Any]) -> Fields:
    return [(name.encode("latin-1"), value.encode("latin-1")) for field in case["headers"] for name, value in field.items()]


def fed(table: HeaderTable, case: dict[str, Any]) -> list[tuple[bytes | None, bytes | None]]:
    if "header_table_size" in case:
        table.allow(case["header_table_size"])
    return table.decode(bytes.fromhex(case["wire"]))


def judge(found: list[tuple[bytes | None, bytes | None]], right: Fields) -> int:
    """What is known is right; the number of fields with something unknown."""
    assert len(found) == len(right)
    unknown = 0
    for (name, value), (right_name, right_value) in zip(found, right, strict=True):
        assert name in (None, right_name) and value in (None, right_value)
        unknown += name is None or value is None
    return unknown


def test_stories(corpora: Path) -> None:
    blocks = 0
    for name, cases in stories(corpora):
        table = HeaderTable()
        for case in cases:
            assert fed(table, case) == wanted(case), (name, case["seqno"])
            blocks += 1
        assert table.held() < 32 << 10
    assert blocks > 19_000


def test_stories_joined_at_every_block(corpora: Path) -> None:
    fields = unknown = joins = 0
    for _name, cases in stories(corpora):
        for first in range(1, len(cases), max(1, len(cases) // 40)):
            table = HeaderTable()
            table.miss()
            for case in cases[first : first + 40]:
                right = wanted(case)
                unknown += judge(fed(table, case), right)
                fields += len(right)
            joins += 1
    assert joins > 4000 and 0 < unknown < fields // 4


def test_stories_with_a_block_missing(corpora: Path) -> None:
    gaps = unknown = 0
    for _name, cases in stories(corpora):
        for missing in range(0, len(cases) - 1, max(1, len(cases) // 20)):
            table = HeaderTable()
            for number, case in enumerate(cases[max(0, missing - 30) : missing + 30], max(0, missing - 30)):
                if number == max(0, missing - 30) and number:
                    table.miss()
                if number == missing:
                    table.allow(case.get("header_table_size", 4096))
                    table.miss()
                    continue
                unknown += judge(fed(table, case), wanted(case))
            gaps += 1
    assert gaps > 2000 and unknown


# ---- the appendix of the RFC, and what is malformed


def test_what_was_sent_with_an_unknown_name_is_entered() -> None:
    table = HeaderTable()
    table.miss()
    assert table.decode(b"\x7e\x01v") == [(None, b"v")]  # name: the first of the dynamic table
    assert table.decode(b"\xbe") == [(None, b"v")]
    assert table.decode(b"\xbf") == [(None, None)]
    assert table.decode(b"\x40\x01n\x01w") == [(b"n", b"w")]
    assert table.decode(b"\xbe\xbf\xc0") == [(b"n", b"w"), (None, b"v"), (None, None)]


def test_trust_comes_back_when_the_table_was_filled_anew() -> None:
    table = HeaderTable()
    table.miss()
    for number in range(130):  # of 34 bytes or more each: more than the table holds
        table.decode(b"\x40\x01n\x03%03d" % number)
    assert table.decode(b"\xbe") == [(b"n", b"129")]
    with pytest.raises(ValueError, match="malformed"):
        table.decode(b"\xff\x7d")  # nobody can have this entry


@pytest.mark.parametrize(
    "block",
    [b"\x80", b"\xbe", b"\xff", b"\xff\xff\xff\xff\xff\xff\x0f", b"\x40", b"\x40\x05ab", b"\x40\x01a\x05b", b"\x41",
     b"\x00\x01a\x82\xff\xff", b"\x00\x01a\x81\x00\x01", b"\x00\x01a\x84\xff\xff\xff\xff"],
)  # fmt: skip
def test_what_is_malformed(block: bytes) -> None:
    table = HeaderTable()
    with pytest.raises(ValueError, match="malformed"):
        table.decode(block)
    assert table.decode(b"\x82") == [(b":method", b"GET")]


def test_more_fields_than_wanted_are_entered_all_the_same() -> None:
    table = HeaderTable()
    with pytest.raises(OverflowError):
        table.decode(b"\x40\x01a\x01b\x40\x01c\x01d", most=1)
    assert table.decode(b"\xbe\xbf") == [(b"c", b"d"), (b"a", b"b")]


@given(st.lists(st.binary(max_size=60), max_size=20), st.booleans())
def test_any_bytes(blocks: list[bytes], missed: bool) -> None:
    table = HeaderTable()
    if missed:
        table.miss()
    for block in blocks:
        try:
            for name, value in table.decode(block):
                assert (name is None or len(name) < 100) and (value is None or len(value) < 100)
        except (ValueError, OverflowError):
            pass
        assert table.held() < 64 << 10


def test_a_table_that_is_larger_than_was_seen_to_be_allowed() -> None:
    """The settings that allow it may come behind it, or not at all."""
    table = HeaderTable()
    large = b"x" * 5000
    assert table.decode(b"\x3f\xe1\x7f" + b"\x40\x01a\x7f\x89\x26" + large) == [(b"a", large)]
    assert table.decode(b"\xbe") == [(b"a", large)]
