"""HPACK: stories of six encoders whole, cut at every block, and with each block missing: right fields or unknown ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.layers.http2.hpack import HeaderTable

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Block:
    """A header block, what it says, and the size of the table if that changes before it."""

    wire: bytes
    fields: Fields
    allowed: int | None

    def fed(self, table: HeaderTable) -> list[tuple[bytes | None, bytes | None]]:
        """What the table makes of it."""
        if self.allowed is not None:
            table.allow(self.allowed)
        return table.decode(self.wire)


def fields_of(case: dict[str, Any]) -> Fields:
    return [(name.encode("latin-1"), value.encode("latin-1")) for field in case["headers"] for name, value in field.items()]


@pytest.fixture(scope="module")
def stories(corpora: Path) -> dict[str, list[Block]]:
    found = {}
    for path in sorted((corpora / "hpack").glob("*/*.json")):
        found[f"{path.parent.name}/{path.stem}"] = [
            Block(bytes.fromhex(case["wire"]), fields_of(case), case.get("header_table_size"))
            for case in json.loads(path.read_bytes())["cases"]
        ]
    assert len(found) == 191 and sum(map(len, found.values())) == 20_187
    return found


def judge(found: list[tuple[bytes | None, bytes | None]], right: Fields) -> int:
    """What is known is right; the number of fields with something unknown."""
    if found == right:
        return 0
    assert len(found) == len(right)
    unknown = 0
    for (name, value), (right_name, right_value) in zip(found, right, strict=True):
        assert name in (None, right_name) and value in (None, right_value)
        unknown += name is None or value is None
    return unknown


def test_stories(stories: dict[str, list[Block]]) -> None:
    for name, blocks in stories.items():
        table = HeaderTable()
        for number, block in enumerate(blocks):
            assert block.fed(table) == block.fields, (name, number)
        assert table.held() < 32 << 10


FOLLOWED = 60  # blocks behind a gap that are looked at: more than it takes until nearly all is known again


def test_stories_joined_at_every_block(stories: dict[str, list[Block]]) -> None:
    fields = unknown = joins = 0
    for blocks in stories.values():
        for first in range(1, len(blocks)):
            table = HeaderTable()
            table.miss()
            for block in blocks[first : first + FOLLOWED]:
                unknown += judge(block.fed(table), block.fields)
                fields += len(block.fields)
            joins += 1
    assert joins == 20_187 - 191 and 0 < unknown < fields // 5


@pytest.mark.timeout(600)
def test_stories_with_each_block_missing(stories: dict[str, list[Block]]) -> None:
    """With all that was before it; how large the table may be is known."""
    gaps = unknown = fields = 0
    for blocks in stories.values():
        for missing, lost in enumerate(blocks[:-1]):
            table = HeaderTable()
            for block in blocks[:missing]:
                block.fed(table)
            if lost.allowed is not None:
                table.allow(lost.allowed)
            table.miss()
            for block in blocks[missing + 1 : missing + 1 + FOLLOWED]:
                unknown += judge(block.fed(table), block.fields)
                fields += len(block.fields)
            gaps += 1
    assert gaps == 20_187 - 191 and 0 < unknown < fields // 5


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
