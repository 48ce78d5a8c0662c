"""What a record shows of a message's bytes: the escapers give every text back, whatever stands at the borders of the
blocks they work in."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.shards.records.encode import escape_text
from tests.properties.strategies import header_text

# ---- the escapers ------------------------------------------------------------------------------------------------

# They go 16, 32 or 64 bytes a step, and their last bytes a way of their own: what is right in the middle of a block
# may be wrong at its border. So everything special is put at every place of texts shorter and longer than a few blocks.

PLAIN = bytes(range(0x23, 0x5C)) + bytes(range(0x5D, 0x7F))     # nothing in here is escaped
SPECIAL = [bytes([c]) for c in (*range(0x20), 0x22, 0x5C)]
# the ASCII beside the specials: a comparison that is one off escapes them, or lets the specials through
BESIDE = [bytes([c]) for c in (0x20, 0x21, 0x23, 0x5B, 0x5D, 0x7E, 0x7F)]
CHARACTERS = [c.encode() for c in "\u0080\u00e9\u07ff\u0800\u20ac\ud7ff\ue000\ufeff\uffff\U00010000\U0001f600\U0010ffff"]
# RFC 3629 section 4: lone and cut sequences, over-long forms, surrogates, beyond U+10FFFF
MALFORMED = [
    b"\x80", b"\xbf", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff", b"\xc3\x22", b"\xe2\x82\x22", b"\xf0\x9f\x98\x5c", b"\xc3\xc3\xa9"]


def check_escape(data: bytes) -> None:
    out = escape_text(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert out is None, data
    else:
        assert out is not None and json.loads('"' + out.decode() + '"') == text, data
    twice = escape_text(data, True)
    assert twice is not None
    assert json.loads(json.loads('"\\"' + twice.decode() + '\\""')) == header_text(data), data


def plain(n: int) -> bytes:
    return (PLAIN * (n // len(PLAIN) + 1))[:n]


@pytest.mark.parametrize("piece", SPECIAL + BESIDE + CHARACTERS + MALFORMED, ids=bytes.hex)
def test_a_piece_at_every_place(piece: bytes) -> None:
    text = plain(100)
    for before in range(101):       # the place in the text, then what is left behind it
        for after in (0, 1, 15, 16, 17, 31, 32, 33, 100 - before):
            check_escape(text[:before] + piece + text[100 - after:])


def test_plain_text_of_every_length_is_left_as_it_is() -> None:
    text = plain(300)
    for n in range(301):
        assert escape_text(text[:n]) == text[:n] and escape_text(text[:n], True) == text[:n]


@pytest.mark.parametrize("piece", [b'"', b"\\", b"\0", b"\n", b"\r\n", b'\\"', *CHARACTERS[1:10:4], b"\x80", b"\xc3\xa9\"",
                                   b"\xff\\"], ids=bytes.hex)
def test_runs_of_every_length_and_place(piece: bytes) -> None:
    text = plain(64)
    for times in range(70):
        for before in (0, 1, 7, 8, 15, 16, 17, 30, 31, 32, 33):
            check_escape(text[:before] + piece * times + text[: times % 40])


def test_every_pair_of_bytes() -> None:
    for number, (a, b) in enumerate(itertools.product(range(256), repeat=2)):
        check_escape(PLAIN[:number % 34] + bytes((a, b)) + PLAIN[:number % 3])


# The bytes at which the rules of RFC 3629 section 4 change
EDGES = (0x00, 0x22, 0x5C, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5,
         0xFF)


def test_every_sequence_of_three_edges() -> None:
    for number, three in enumerate(itertools.product((*EDGES, 0xE1, 0xEC, 0xEE), EDGES, EDGES)):
        check_escape(PLAIN[:number % 35] + bytes(three) + PLAIN[:number % 3])


def test_every_sequence_of_four_edges() -> None:
    leads = (0xE0, 0xED, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5)
    for number, four in enumerate(itertools.product(leads, EDGES, EDGES[3:], EDGES[3:])):
        check_escape(PLAIN[:number % 35] + bytes(four) + PLAIN[:number % 3])


@pytest.mark.parametrize("character", CHARACTERS[1:10:4], ids=bytes.hex)
def test_one_wrong_byte_in_foreign_text(character: bytes) -> None:
    """Text without any ASCII, which takes another path than a character here and there."""
    for head in range(4):
        text = b"a" * head + character * (100 // len(character))
        check_escape(text)
        for place in range(len(text)):
            check_escape(text[:place])
            for wrong in (b"\x80", b"\xff", b"\xc3", b"\xed\xa0\x80", b'"', b""):
                check_escape(text[:place] + wrong + text[place + 1:])


PIECES = st.one_of(
    st.integers(0, 70).map(plain), st.sampled_from(SPECIAL + BESIDE), st.sampled_from(CHARACTERS),
    st.tuples(st.sampled_from(SPECIAL + CHARACTERS), st.integers(1, 40)).map(lambda p: p[0] * p[1]),
    st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace")), st.sampled_from(MALFORMED), st.binary(max_size=20))


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=12).map(b"".join))
@example(b"")
@example(b"\r\n folded")
def test_any_bytes_escaped_come_back(data: bytes) -> None:
    check_escape(data)
