"""What a record shows of a message's bytes: text is never mangled, codings and charsets are undone, a cut says that it is
one; and the escapers give every text back, whatever stands at the borders of the blocks they work in."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from collector import abi
from collector.shards.records.content import DECODED, GZIP, ZSTD, Decoder
from collector.shards.records.text import close_json_text, escape_text
from tests.events import Conversation, validate
from tests.properties.strategies import header_text

# ---- the escapers ------------------------------------------------------------------------------------------------

# They go 16, 32 or 64 bytes a step, and their last bytes a way of their own: what is right in the middle of a block
# may be wrong at its border. So everything special is put at every place of texts shorter and longer than a few blocks.

PLAIN = bytes(range(0x23, 0x5C)) + bytes(range(0x5D, 0x7F))  # nothing in here is escaped
SPECIAL = [bytes([c]) for c in (*range(0x20), 0x22, 0x5C, 0x7F)]
# the ASCII beside the specials: a comparison that is one off escapes them, or lets the specials through
BESIDE = [bytes([c]) for c in (0x20, 0x21, 0x23, 0x5B, 0x5D, 0x7E)]
CHARACTERS = [
    c.encode() for c in "\u00a0\u0080\u00e9\u07ff\u0800\u20ac\ud7ff\ue000\ufeff\uffff\U00010000\U0001f600\U0010ffff"
]
# RFC 3629 section 4: lone and cut sequences, over-long forms, surrogates, beyond U+10FFFF
MALFORMED = [
    b"\x80",
    b"\xbf",
    b"\xc3",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xc3\x22",
    b"\xe2\x82\x22",
    b"\xf0\x9f\x98\x5c",
    b"\xc3\xc3\xa9",
]


# DEL and U+0080 to U+009F steer terminals as the first 32 do (ECMA-48)
CONTROLS = {c: f"\\u{c:04x}" for c in (*range(0x20), *range(0x7F, 0xA0))}
CONTROLS |= {ord(c): "\\" + escape for c, escape in zip('\b\t\n\f\r"\\', 'btnfr"\\', strict=True)}


def escaped(text: str) -> str:
    """The inside of a JSON string, as records have it."""
    return text.translate(CONTROLS)


def check_escape(data: bytes) -> None:
    out = escape_text(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert out is None, data
    else:
        assert out is not None and out.decode() == escaped(text), data
        assert json.loads('"' + out.decode() + '"') == text, data
    assert escape_text(data, fast=False) == out, data
    twice = escape_text(data, True)
    assert twice is not None
    assert twice.decode() == escaped(escaped(header_text(data))), data
    assert json.loads(json.loads('"\\"' + twice.decode() + '\\""')) == header_text(data), data


def plain(n: int) -> bytes:
    return (PLAIN * (n // len(PLAIN) + 1))[:n]


@pytest.mark.parametrize("piece", SPECIAL + BESIDE + CHARACTERS + MALFORMED, ids=bytes.hex)
def test_a_piece_at_every_place(piece: bytes) -> None:
    text = plain(100)
    for before in range(101):  # the place in the text, then what is left behind it
        for after in (0, 1, 15, 16, 17, 31, 32, 33, 100 - before):
            check_escape(text[:before] + piece + text[100 - after :])


def test_plain_text_of_every_length_is_left_as_it_is() -> None:
    text = plain(300)
    for n in range(301):
        assert escape_text(text[:n]) == text[:n] and escape_text(text[:n], True) == text[:n]


@pytest.mark.parametrize(
    "piece",
    [
        b'"',
        b"\\",
        b"\0",
        b"\n",
        b"\r\n",
        b'\\"',
        b"\x7f",
        b"\xc2\x9b",
        b"\xc2\xa0",
        *CHARACTERS[2:11:4],
        b"\x80",
        b'\xc3\xa9"',
        b"\xff\\",
    ],
    ids=bytes.hex,
)
def test_runs_of_every_length_and_place(piece: bytes) -> None:
    text = plain(64)
    for times in range(70):
        for before in (0, 1, 7, 8, 15, 16, 17, 30, 31, 32, 33):
            check_escape(text[:before] + piece * times + text[: times % 40])


def test_every_pair_of_bytes() -> None:
    for number, (a, b) in enumerate(itertools.product(range(256), repeat=2)):
        check_escape(PLAIN[: number % 34] + bytes((a, b)) + PLAIN[: number % 3])


# The bytes at which the rules of RFC 3629 section 4 change
EDGES = (
    0x00,
    0x22,
    0x5C,
    0x7E,
    0x7F,
    0x80,
    0x8F,
    0x90,
    0x9F,
    0xA0,
    0xBF,
    0xC0,
    0xC2,
    0xDF,
    0xE0,
    0xED,
    0xEF,
    0xF0,
    0xF4,
    0xF5,
    0xFF,
)


def test_every_sequence_of_three_edges() -> None:
    for number, three in enumerate(itertools.product((*EDGES, 0xE1, 0xEC, 0xEE), EDGES, EDGES)):
        check_escape(PLAIN[: number % 35] + bytes(three) + PLAIN[: number % 3])


def test_every_sequence_of_four_edges() -> None:
    leads = (0xE0, 0xED, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5)
    for number, four in enumerate(itertools.product(leads, EDGES, EDGES[4:], EDGES[4:])):
        check_escape(PLAIN[: number % 35] + bytes(four) + PLAIN[: number % 3])


@pytest.mark.parametrize("character", CHARACTERS[2:11:4], ids=bytes.hex)
def test_one_wrong_byte_in_foreign_text(character: bytes) -> None:
    """Text without any ASCII, which takes another path than a character here and there."""
    for head in range(4):
        text = b"a" * head + character * (100 // len(character))
        check_escape(text)
        for place in range(len(text)):
            check_escape(text[:place])
            for wrong in (b"\x80", b"\xff", b"\xc3", b"\xed\xa0\x80", b'"', b""):
                check_escape(text[:place] + wrong + text[place + 1 :])


PIECES = st.one_of(
    st.integers(0, 70).map(plain),
    st.sampled_from(SPECIAL + BESIDE),
    st.sampled_from(CHARACTERS),
    st.tuples(st.sampled_from(SPECIAL + CHARACTERS), st.integers(1, 40)).map(lambda p: p[0] * p[1]),
    st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace")),
    st.sampled_from(MALFORMED),
    st.binary(max_size=20),
)


@pytest.mark.parametrize("piece", ["\x7f", "\u0080", "\u009b", "\u009f"], ids=ascii)
@pytest.mark.parametrize("text", ["ab", "\u00a0\u00b5", "\u00e9a", "\u6f22", "\U0001f600", "\u6f22\u00a0a"], ids=ascii)
def test_controls_in_foreign_text(text: str, piece: str) -> None:
    """Behind the check of UTF-8 another loop goes on, and both bytes of U+0080 to U+009F may lie in different blocks."""
    for before in range(40):
        for after in (0, 1, 15, 40):
            check_escape((text * 20)[:before].encode() + piece.encode() * (1 + before % 3) + (text * 20)[:after].encode())


def test_no_string_of_a_record_holds_a_control_character() -> None:
    odd = bytes(range(0x7F, 0xA0)) + "".join(map(chr, range(0x7F, 0xA0))).encode()
    c = Conversation(opened=False)
    c.feed(abi.pack_process(c.conn[1], b"n\x9b\x7f\xc2\x9b", ts_ns=c.now))
    c.feed(
        abi.pack_open(
            c.conn, ts_ns=c.now, role=abi.SERVER, start=abi.SEEN, local=("10.0.0.1", 80), remote=("10.0.0.2", 40000)
        )
    )
    body = odd[33:]
    c.request(
        b"POST /" + odd + b" HTTP/1.1\r\nHost: h\x7f\r\nX-" + odd + b": v\r\nX: a" + odd + b"\r\nX-Plain: a\x7fb\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    c.response(b"HTTP/1.1 200 O" + odd + b"\r\nX: a\x7f\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    batch = c.close().pipe.take()
    assert batch is not None and isinstance(batch[0], bytes)
    assert all(ord(char) >= 0x20 and not 0x7F <= ord(char) < 0xA0 for char in batch[0].decode()[:-1])
    record = validate(json.loads(batch[0]))
    assert record["path"] == "/" + header_text(odd) and record["requestPayload"] == body.decode()
    assert record["response"]["X"] == "a\x7f" and record["request"]["X-Plain"] == "a\x7fb"
    assert record["process_name"] == "n\x9b\x7f\x9b" and record["status"] == "200 O" + header_text(odd)
    for text in (record["requestHeaders"], record["responseHeaders"]):  # nor does what is JSON inside JSON
        assert all(not 0x7F <= ord(char) < 0xA0 for char in text)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=12).map(b"".join))
@example(b"")
@example(b"\r\n folded")
def test_any_bytes_escaped_come_back(data: bytes) -> None:
    check_escape(data)


# ---- bodies ------------------------------------------------------------------------------------------------------


def gzipped(data: bytes, level: int = 9) -> bytes:
    return gzip.compress(data, level, mtime=0)  # with the time in it the same example would differ between runs


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


def zstd_stream(data: bytes) -> bytes:
    """As a server writes it that does not know the size beforehand: no size in the frame, several blocks."""
    engine = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    half = len(data) // 2
    return (
        engine.compress(data[:half])
        + engine.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        + engine.compress(data[half:])
        + engine.flush()
    )


def members(data: bytes) -> bytes:
    return gzipped(data[:5]) + gzipped(b"") + gzipped(data[5:])


CODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzipped),
    ("x-gzip", members),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", lambda d: brotli.compress(d, quality=5)),
    ("zstd", zstandard.compress),
    ("zstd", zstd_stream),
]
# nobody packs twice with br or zstd but those who want to keep a decoder busy: see test_chains_that_nobody_sends
CHAINS = st.lists(st.sampled_from(CODERS), min_size=1, max_size=2).filter(
    lambda chain: [name for name, _ in chain] not in (["br", "br"], ["zstd", "zstd"])
)
SIDES = st.sampled_from(["request", "response"])
TEXTS = st.one_of(
    st.text(max_size=80), st.tuples(st.text(min_size=1, max_size=6), st.integers(1, 200)).map(lambda t: t[0] * t[1])
).map(lambda t: t.encode("utf-8", "replace"))
DATA = st.one_of(TEXTS, st.binary(max_size=200))


def coded(data: bytes, chain: list[tuple[str, Callable[[bytes], bytes]]]) -> tuple[bytes, str]:
    """The wire's bytes and the Content-Encoding."""
    for _, coder in chain:
        data = coder(data)
    return data, ", ".join(name for name, _ in chain)


def record_of(side: str, body: bytes, *fields: str, announced: int | None = None, **changes: Any) -> dict[str, Any]:
    """The record of an exchange with this body on one side; `announced`: the length in the head, when it is another."""
    c = Conversation(**changes)
    lines = "".join(f + "\r\n" for f in (*fields, f"Content-Length: {len(body) if announced is None else announced}"))
    request, response = "POST / HTTP/1.1\r\nHost: h\r\n", "HTTP/1.1 200 OK\r\n"
    if side == "request":
        c.request((request + lines + "\r\n").encode() + body).response((response + "Content-Length: 0\r\n\r\n").encode())
    else:
        c.request((request + "\r\n").encode()).response((response + lines + "\r\n").encode() + body)
    (record,) = c.close().records()
    assert c.counters()["callback_errors"] == 0
    assert c.counters()["records_marked"] == (record["mark"] != [])  # whoever found the mark
    return record


def shown(record: dict[str, Any], side: str) -> bytes:
    """The payload's bytes; base64 only where they are no text."""
    payload: str = record[f"{side}Payload"]
    if f"{side}PayloadEncoding" not in record:
        return payload.encode()
    return base64.b64decode(payload, validate=True)


def within(data: bytes, cap: int) -> bytes:
    """What a record shows of a text, or the beginning of one: whole characters, twice the cap at most when escaped."""
    out, room = [], 2 * cap
    for char in data.decode("utf-8", "ignore"):
        room -= len(escaped(char).encode())
        if room < 0:
            break
        out.append(char)
    return "".join(out).encode()


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def cut_mark(record: dict[str, Any], side: str) -> int | None:
    """N of `..._body_cut:N`; 0 without N (nobody knows how much of a decoded body is missing)."""
    counts = [int(mark.partition(":")[2] or 0) for mark in record["mark"] if mark.startswith(f"{side}_body_cut")]
    return counts[0] if counts else None


@settings(max_examples=100, deadline=None)
@given(DATA, SIDES)
def test_a_body_is_shown_as_it_is(data: bytes, side: str) -> None:
    record = record_of(side, data)
    assert shown(record, side) == data and record["mark"] == []
    assert (f"{side}PayloadEncoding" in record) == (not is_text(data))


@settings(max_examples=150, deadline=None)
@given(DATA, CHAINS, SIDES)
def test_codings_are_undone(data: bytes, chain: list, side: str) -> None:
    body, coding = coded(data, chain)
    record = record_of(side, body, f"Content-Encoding: {coding}")
    assert shown(record, side) == data and record["mark"] == []
    assert (f"{side}PayloadEncoding" in record) == (not is_text(data))
    assert record[f"{side}Size"] == str(len(body)) and record[side]["Content-Encoding"] == coding


def test_codings_may_be_two_and_in_several_fields() -> None:
    body, _ = coded(b"text", [CODERS[2], CODERS[4]])
    for fields in (("deflate, br",), ("deflate", "br"), ("deflate,,identity ", "BR")):
        record = record_of("response", body, *(f"Content-Encoding: {f}" for f in fields))
        assert (record["responsePayload"], record["mark"]) == ("text", [])


@pytest.mark.parametrize("chain", ["gzip, gzip, gzip", "deflate, br, zstd, gzip", "br, br", "zstd, zstd"])
def test_chains_that_nobody_sends_are_left_alone(chain: str) -> None:
    body, _ = coded(b"text", [(name, dict(CODERS)[name]) for name in chain.split(", ")])
    record = record_of("response", body, f"Content-Encoding: {chain}")
    assert shown(record, "response") == body and record["mark"] == ["response_body_undecoded:budget"]


def gzip_with_everything(data: bytes) -> bytes:
    """All optional parts of a member's head (RFC 1952 section 2.3)."""
    head = b"\x1f\x8b\x08\x1e\x00\x00\x00\x00\x00\x03" + b"\x04\x00extr" + b"name\0" + b"comment\0"
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    return head + raw_deflate(data) + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00user"  # RFC 8878 section 3.1.2; pzstd writes them


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip_with_everything(b"text")),
        ("gzip", gzipped(b"text", 0)),
        ("deflate", zlib.compress(b"text", 0)),
        ("zstd", zstandard.compress(b"te") + zstandard.compress(b"xt")),
        ("zstd", SKIPPABLE + zstandard.compress(b"text")),
        ("zstd", zstandard.compress(b"text") + SKIPPABLE),
        ("zstd", zstandard.compress(b"") + zstandard.compress(b"text")),
        ("br", brotli.compress(b"text", lgwin=24)),
        ("br", brotli.compress(b"text", quality=0, lgwin=10)),
    ],
)
def test_every_form_of_a_coding(coding: str, body: bytes) -> None:
    record = record_of("response", body, f"Content-Encoding: {coding}")
    assert (record["responsePayload"], record["mark"]) == ("text", [])


CHARSETS = [
    "ISO-8859-1",
    "iso-8859-15",
    "latin1",
    "windows-1252",
    "windows-1251",
    "cp437",
    "KOI8-R",
    "UTF-16",
    "utf-16le",
    "UTF-16BE",
    "utf-32",
    "gb2312",
    "gbk",
    "GB18030",
    "Big5",
    "big5-hkscs",
    "euc-jp",
    "euc-kr",
    "Shift_JIS",
    "sjis",
    "iso-2022-jp",
    "iso-2022-kr",
    "ks_c_5601-1987",
    "tis-620",
    "macintosh",
]
PARAMETERS = st.sampled_from(
    ["; charset={}", ";charset={}", '; charset="{}"', "; CHARSET={}", "; format=flowed; charset={}; x=y"]
)


WORDS = [
    "Zo\u00eb",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u20ac",
    "\u6f22\u5b57\u4eee\u540d",
    "\ud55c\uae00",
    "\u0e44\u0e17\u0e22",
    "\U0001f600",
]


def charset_text(data: bytes, charset: str) -> str | None:
    """The text, or None when the bytes are not of that charset."""
    if charset.lower() in ("utf-16", "utf-32") and len(data) > 1:
        # Without a byte order mark RFC 2781 section 4.3 says big endian, and the WHATWG's list, which browsers follow,
        # little endian: the collector does not guess.
        marks = ("\ufeff".encode(charset.lower() + "-le"), "\ufeff".encode(charset.lower() + "-be"))
        if not data.startswith(marks):
            return None
    try:
        return data.decode(charset)
    except UnicodeDecodeError:
        return None


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(max_size=30), st.sampled_from(WORDS)),
    st.one_of(st.none(), st.binary(max_size=30)),
    st.sampled_from(CHARSETS),
    PARAMETERS,
    st.lists(st.sampled_from(CODERS), max_size=1),
    SIDES,
)
def test_charsets_are_undone_or_the_wire_is_shown(
    text: str, noise: bytes | None, charset: str, parameter: str, chain: list, side: str
) -> None:
    plain = text.encode(charset, "replace") if noise is None else noise
    body, coding = coded(plain, chain)
    record = record_of(side, body, "Content-Type: text/plain" + parameter.format(charset), f"Content-Encoding: {coding}")
    wanted = charset_text(plain, charset)
    if wanted is not None:
        assert record[f"{side}Payload"] == wanted and record["mark"] == []
    else:
        # the stated charset is not true: what came over the wire, and a mark
        assert shown(record, side) == body and record[f"{side}PayloadEncoding"] == "base64"
        assert record["mark"] == [f"{side}_body_undecoded"]


@pytest.mark.parametrize("charset", ["utf-8", '"UTF-8"', "us-ascii", "utf8", "unheard-of", "hex", "punycode", "", '"'])
def test_other_charsets_are_taken_for_utf_8(charset: str) -> None:
    for data in (b"Zo\xc3\xab", b"Zo\xeb"):
        record = record_of("response", data, f"Content-Type: text/plain; charset={charset}")
        assert shown(record, "response") == data and record["mark"] == []
        assert ("responsePayloadEncoding" in record) == (not is_text(data))


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        ('x/y; name="a; charset=utf-16le"', "utf-8"),
        ('x/y; name="\\\\"; charset=utf-16le', "utf-16le"),
        ('x/y; name="\\"; charset=utf-16be"; charset=utf-16le', "utf-16le"),
        ('x/y; name="; charset=utf-16le', "utf-8"),
        ('x/y; name="\\', "utf-8"),
        ("x/y;;charset=utf-16le", "utf-16le"),
        ("x/y; charset=utf-16le;", "utf-16le"),
        ("x/y; xcharset=utf-16le", "utf-8"),
        ("x/y; charset=cp437", "cp437"),
        ("x/y; charset", "utf-8"),
        ("x/y;", "utf-8"),
    ],
)
def test_where_a_content_type_names_its_charset(kind: str, encoding: str) -> None:
    """A quoted string that only looks like a parameter would turn text into other text."""
    record = record_of("response", "hi there \u00e9".encode(encoding), f"Content-Type: {kind}")
    assert (record["responsePayload"], record["mark"]) == ("hi there \u00e9", [])


@settings(max_examples=100, deadline=None)
@given(DATA, st.data(), SIDES)
def test_a_body_over_the_cap_is_a_prefix(data: bytes, draw: st.DataObject, side: str) -> None:
    cap = draw.draw(st.integers(1, max(1, len(data) - 1)))
    assume(cap < len(data) and data[:1] not in (b"{", b"["))
    record = record_of(side, data, body_bytes=cap)
    got = shown(record, side)
    if is_text(data):
        # a cut inside a character drops the character
        assert f"{side}PayloadEncoding" not in record and got == within(data[:cap], cap)
    else:
        assert data.startswith(got) and len(got) <= cap
    missing = cut_mark(record, side)
    assert missing is not None and len(data) - cap <= missing <= len(data) - len(got)
    assert record[f"{side}Size"] == str(len(data))


@settings(max_examples=150, deadline=None)
@given(DATA, CHAINS, st.data(), SIDES)
def test_a_coded_body_cut_anywhere_is_kept_and_says_so(data: bytes, chain: list, draw: st.DataObject, side: str) -> None:
    assume(data[:1] not in (b"{", b"["))
    body, coding = coded(data, chain)
    assume(len(body) > 1)
    place = draw.draw(st.integers(1, len(body) - 1))
    over_the_cap = record_of(side, body, f"Content-Encoding: {coding}", body_bytes=place)
    assert cut_mark(over_the_cap, side) == len(body) - place and len(over_the_cap["words"]) == 1
    assert data.startswith(shown(over_the_cap, side)) and len(shown(over_the_cap, side)) <= place
    ended_early = record_of(side, body[:place], f"Content-Encoding: {coding}", announced=len(body))
    assert f"{side}_incomplete" in ended_early["words"] and f"{side}_body_undecoded" not in ended_early["words"]
    assert data.startswith(shown(ended_early, side))
    # whole, but no whole stream of that coding: the bytes as they were
    broken = record_of(side, body[:place], f"Content-Encoding: {coding}")
    if chain[-1][1] is members and broken["mark"] in ([], [f"{side}_body_trailing:1"]):
        return  # between two members of a gzip stream, or one byte behind
    assert shown(broken, side) == body[:place] and broken["mark"] == [f"{side}_body_undecoded"]
    assert broken[f"{side}PayloadEncoding"] == "base64"


@settings(max_examples=200, deadline=None)
@given(TEXTS, CHAINS, st.data(), SIDES)
def test_a_damaged_coded_body_is_kept(data: bytes, chain: list, draw: st.DataObject, side: str) -> None:
    body, coding = coded(data, chain)
    place = draw.draw(st.integers(0, len(body) - 1))
    body = body[:place] + bytes([body[place] ^ draw.draw(st.integers(1, 255))]) + body[place + 1 :]
    record = record_of(side, body, f"Content-Encoding: {coding}")
    if f"{side}_body_undecoded" in record["words"]:
        assert shown(record, side) == body and record["mark"] == [f"{side}_body_undecoded"]
    else:
        # not every coding has a checksum, and not every byte matters
        assert record["words"] <= {f"{side}_body_cut", f"{side}_body_trailing"}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        (["Content-Type: image/png"], "omitted"),
        (["Content-Encoding: gzip"], "undecoded"),
        (["Content-Type: text/plain; charset=utf-16"], "undecoded"),
    ],
)
def test_a_mark_that_is_found_while_the_record_is_written_counts(fields: list[str], word: str) -> None:
    for side in ("request", "response"):  # record_of compares the counter
        assert record_of(side, b"b", *fields)["mark"] == [f"{side}_body_{word}"]


# ---- bombs -------------------------------------------------------------------------------------------------------

MEGABYTES = 200


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    """Codings, and what becomes 200 MB of one character when they are undone."""
    block = b"0" * (1 << 20)
    deflate, raw, br = zlib.compressobj(1), zlib.compressobj(1, wbits=31), brotli.Compressor(quality=1, lgwin=24)
    zstd = zstandard.ZstdCompressor(1).compressobj()
    streams = {
        "deflate": b"".join([*(deflate.compress(block) for _ in range(MEGABYTES)), deflate.flush()]),
        "gzip": b"".join([*(raw.compress(block) for _ in range(MEGABYTES)), raw.flush()]),
        "br": b"".join([*(br.process(block) for _ in range(MEGABYTES)), br.finish()]),
        "zstd": b"".join([*(zstd.compress(block) for _ in range(MEGABYTES)), zstd.flush()]),
    }
    streams["x-gzip"] = gzipped(block) * MEGABYTES  # members: each is small
    for name in ("gzip", "br", "zstd"):
        streams[f"{name}, gzip"] = gzipped(streams[name])
    streams["gzip, br"] = brotli.compress(streams["gzip"], quality=5)
    streams["gzip, zstd"] = zstandard.compress(streams["gzip"])
    return streams


@pytest.mark.parametrize("cap", [1, 100, 65536])
def test_bombs_stay_within_the_cap(bombs: dict[str, bytes], cap: int) -> None:
    for coding, bomb in bombs.items():
        for side in ("request", "response"):
            record = record_of(side, bomb, f"Content-Encoding: {coding}", body_bytes=cap)
            payload = shown(record, side)
            assert payload == b"0" * len(payload) and len(payload) <= cap and cut_mark(record, side) is not None, coding
            if len(bomb) < cap:
                assert len(payload) == cap, coding


@pytest.mark.parametrize(
    ("coding", "member"),
    [(GZIP, gzipped(b"")), (ZSTD, zstandard.compress(b"")), (ZSTD, SKIPPABLE[:4] + bytes(4))],
    ids=["gzip", "zstd", "skippable"],
)
def test_a_body_of_many_empty_members_takes_linear_time(coding: int, member: bytes) -> None:
    """They are cheap to send; a copy of the rest for each of them made a megabyte cost seconds."""

    def seconds(size: int) -> float:
        body = member * (size // len(member))
        before = time.process_time()
        assert Decoder().decode(body, bytes([coding]), 0, False, 1 << 20, 1 << 40)[:4] == (b"", DECODED, False, 0)
        return time.process_time() - before

    assert seconds(1 << 20) < 16 * 4 * min(seconds(1 << 16) for _ in range(3))  # quadratic: more than 100 times as long


MEASURE = """
import sys
from pathlib import Path
from collector.shards.records.content import BR, DECODED, DEFLATE, GZIP, ZSTD, Decoder

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

numbers = {"gzip": GZIP, "x-gzip": GZIP, "deflate": DEFLATE, "br": BR, "zstd": ZSTD}
decoder = Decoder()
before = peak()
for path in Path(sys.argv[1]).iterdir():
    codings = bytes(numbers[name] for name in path.name.split(", "))
    for cut in (False, True):
        out, decoded, shorter, *_ = decoder.decode(path.read_bytes(), codings, 0, cut, 65536, 1 << 40)
        assert (out, decoded, shorter) == (b"0" * 65536, DECODED, True), path.name
print(peak() - before)
"""


def test_bombs_take_little_memory(bombs: dict[str, bytes], tmp_path: Path) -> None:
    """The windows of brotli (16 MiB) and zstd (8 MiB) and the bombs themselves, but not what they promise."""
    for coding, bomb in bombs.items():
        (tmp_path / coding).write_bytes(bomb)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], cwd=root, check=True, stdout=subprocess.PIPE)
    assert int(done.stdout) < 48 << 10, f"{done.stdout!r} KiB"


# ---- cut JSON ----------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.sampled_from(["\\", '"', '\\"', "{", "]", ",", ":", "\U0001f600\u6f22", "\\u12"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=12,
)
JSON_TEXTS = st.tuples(
    st.one_of(st.lists(VALUES, max_size=4), st.dictionaries(st.text(max_size=5), VALUES, max_size=4)),
    st.booleans(),
    st.sampled_from([None, 0, 2, "\t"]),
    st.sampled_from([None, (",", ":"), (" ,\r\n", " : ")]),
).map(lambda t: json.dumps(t[0], ensure_ascii=t[1], indent=t[2], separators=t[3]).encode())


def is_part(part: Any, whole: Any) -> bool:
    """Whether a value is a prefix of another: all is equal but the last value inside, which is a prefix again."""
    if isinstance(part, str) and isinstance(whole, str):
        # half of a pair of \\u escapes: see the test below
        return whole.startswith(part if not part or not "\ud800" <= part[-1] <= "\udbff" else part[:-1])
    if isinstance(part, dict) and isinstance(whole, dict):
        return list(part) == list(whole)[: len(part)] and is_part(list(part.values()), list(whole.values()))
    if isinstance(part, list) and isinstance(whole, list):
        return (
            len(part) <= len(whole)
            and part[:-1] == whole[: max(0, len(part) - 1)]
            and (not part or is_part(part[-1], whole[len(part) - 1]))
        )
    return type(part) is type(whole) and bool(part == whole)


@settings(max_examples=200, deadline=None)
@given(JSON_TEXTS)
@example(json.dumps({"a\\": ["x\\", {"": [[], {}, "\U0001f600", '\u00e9"']}], "b": -1.5e-7, "c": [True, None]}).encode())
@example(json.dumps(["\u00e9\u6f22\U0001f600"] * 3, ensure_ascii=False).encode())
def test_json_cut_anywhere_is_json_again(text: bytes) -> None:
    whole = json.loads(text)
    for place in range(1, len(text) + 1):
        closed = close_json_text(text[:place])
        assert closed[-1:] == (b"}" if text[:1] == b"{" else b"]")
        assert is_part(json.loads(closed.decode()), whole), (text[:place], closed)
    assert json.loads(close_json_text(text)) == whole


@pytest.mark.parametrize("tail", [b"", b"\\", b"\\u", b"\\ude", b"\\ude0"])
def test_json_cut_inside_a_pair_of_escapes(tail: bytes) -> None:
    json.loads(close_json_text(b'{"a":"x\\ud83d' + tail)).popitem()[1].encode()


@settings(max_examples=100, deadline=None)
@given(
    JSON_TEXTS,
    st.data(),
    st.sampled_from([[], ["Content-Type: application/json"], ["Content-Type: Application/JSON"]]),
    st.booleans(),
)
def test_a_cut_json_request_is_json_again(text: bytes, draw: st.DataObject, kind: list[str], packed: bool) -> None:
    body = gzipped(text) if packed else text
    place = draw.draw(st.integers(1, len(body)))
    fields = [*kind, "Content-Encoding: gzip"] if packed else kind
    records = [
        record_of("request", body, *fields, body_bytes=place),
        record_of("request", body[:place], *fields, announced=len(body) + 1),
    ]
    for record in records:
        payload = record["requestPayload"]
        if packed and not payload:
            continue  # not even the first byte could be read
        assert is_part(json.loads(payload), json.loads(text)) and "requestPayloadEncoding" not in record
    if place < len(body):
        assert cut_mark(records[0], "request") == len(body) - place
    assert "request_incomplete" in records[1]["words"]


def test_other_cut_bodies_are_not_closed() -> None:
    text = b'{"a":["b'
    for side, kind in (
        ("response", "application/json"),
        ("request", "text/plain"),
        ("request", "application/json; charset=utf-8"),
    ):
        assert shown(record_of(side, text + b"cd", f"Content-Type: {kind}", body_bytes=8), side) == text


@pytest.mark.parametrize("depth", [512, 513])
def test_json_of_many_levels(depth: int) -> None:
    record = record_of("request", b"[" * depth + b"1", "Content-Type: application/json", body_bytes=depth)
    if depth <= 512:
        assert record["requestPayload"] == "[" * depth + "]" * depth and cut_mark(record, "request") == 1
    else:
        assert record["requestPayload"] == "" and cut_mark(record, "request") == depth + 1


# ---- the limit of a record ---------------------------------------------------------------------------------------

HEAVY = st.sampled_from([b'"', b"\\", b"\x01", b"\xe9", b"\xff\xfe", b"a", "\u6f22".encode(), b'{"a":"\\"', b"\t"])


def heavy(most: int) -> st.SearchStrategy[bytes]:
    return st.tuples(HEAVY, st.integers(0, most)).map(lambda h: h[0] * h[1])


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(heavy(3000), heavy(3000)),
    st.tuples(heavy(20_000), heavy(20_000)),
    st.sampled_from(["", "gzip", "br", "compress"]),
    st.sampled_from(["application/json", "text/plain", "text/plain; charset=utf-16", "image/png"]),
    st.integers(3000, 120_000),
)
def test_a_record_is_never_longer_than_the_limit(
    values: tuple[bytes, bytes], bodies: tuple[bytes, bytes], coding: str, kind: str, limit: int
) -> None:
    coder = {"gzip": gzipped, "br": lambda d: brotli.compress(d, quality=1)}.get(coding, bytes)
    wire = [coder(body) for body in bodies]
    lines = f"Content-Type: {kind}\r\n".encode() + (f"Content-Encoding: {coding}\r\n".encode() if coding else b"")
    fields = [
        b"X: %s\r\nContent-Length: %d\r\n%s\r\n" % (value, len(body), lines)
        for value, body in zip(values, wire, strict=True)
    ]
    c = Conversation(record_bytes=limit)
    c.request(b"POST /p HTTP/1.1\r\nHost: h\r\n" + fields[0] + wire[0])
    c.response(b"HTTP/1.1 200 OK\r\n" + fields[1] + wire[1])
    batch = c.close().pipe.take()
    if batch is None:
        # the heads alone are too long: each byte becomes seven at most, and there is the rest of the record
        assert c.counters()["records_dropped_size"] == 1
        assert 7 * len(values[0] + values[1]) + 2000 >= limit
        return
    assert isinstance(batch[0], bytes)
    (line,) = batch[0].splitlines()
    assert len(line) < limit
    record = validate(json.loads(line))
    for side, value, body, coded_body in zip(("request", "response"), values, bodies, wire, strict=True):
        assert record[side]["X"] == header_text(value.strip(b" \t")) and record[f"{side}Size"] == str(len(coded_body))
        closed = kind == "application/json" and side == "request" and body[:1] == b"{"
        if not closed and kind != "text/plain; charset=utf-16":
            assert body.startswith(shown(record, side))
