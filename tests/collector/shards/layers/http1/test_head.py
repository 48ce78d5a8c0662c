"""The readers of a message head, one by one: every head at every length, and what each reader says of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.layers.http1.chunked import chunk_line
from collector.shards.layers.http1.head import head_fields
from collector.shards.layers.http1.layer import reason_words


def request(data: bytes) -> dict[str, Any]:
    head = head_fields(data)
    assert isinstance(head, dict), head
    return head


def response(data: bytes) -> dict[str, Any]:
    head = head_fields(data, True)
    assert isinstance(head, dict), head
    return head


def reasons(bits: int) -> set[str]:
    return {word for bit, word in enumerate(reason_words()) if bits >> bit & 1}


# ---- the start line ----


@pytest.mark.parametrize(
    ("line", "method", "target", "version", "odd"),
    [
        (b"GET / HTTP/1.1", b"GET", b"/", b"HTTP/1.1", set()),
        (b"M-SEARCH * HTTP/1.1", b"M-SEARCH", b"*", b"HTTP/1.1", set()),
        (b"OPTIONS * HTTP/1.0", b"OPTIONS", b"*", b"HTTP/1.0", set()),
        (b"CONNECT a:1 HTTP/1.1", b"CONNECT", b"a:1", b"HTTP/1.1", set()),
        (b"GET http://h/b HTTP/1.1", b"GET", b"http://h/b", b"HTTP/1.1", set()),
        (b"GET  / HTTP/1.1", b"GET", b"/", b"HTTP/1.1", {"start_line"}),
        (b"GET\t/ HTTP/1.1", b"GET", b"/", b"HTTP/1.1", {"start_line"}),
        (b"GET / HTTP/1.1 ", b"GET", b"/", b"HTTP/1.1", {"start_line"}),
        (b"GET /a b HTTP/1.1", b"GET", b"/a b", b"HTTP/1.1", {"start_line"}),
        (b"GET /12345678\x01 HTTP/1.1", b"GET", b"/12345678\x01", b"HTTP/1.1", {"start_line"}),
        (b"GET /1234567\x7f HTTP/1.1", b"GET", b"/1234567\x7f", b"HTTP/1.1", {"start_line"}),
        (b"GET / HTTP/1.2", b"GET", b"/", b"HTTP/1.2", {"start_line"}),
        (b"GET * HTTP/1.1", b"GET", b"*", b"HTTP/1.1", {"start_line"}),
        (b"CONNECT /x HTTP/1.1", b"CONNECT", b"/x", b"HTTP/1.1", {"start_line"}),
    ],
)
def test_a_request_line(line: bytes, method: bytes, target: bytes, version: bytes, odd: set[str]) -> None:
    head = request(line + b"\r\nHost: h\r\n\r\n")
    assert (head["method"], head["target"], head["version"], reasons(head["ambiguity"])) == (method, target, version, odd)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /",
        b"GET / HTTP",
        b"/ HTTP/1.1",
        b" GET / HTTP/1.1",
        b"G:T / HTTP/1.1",
        b"HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01",
        b"GET / http/1.1",
        b"GET  HTTP/1.1",
    ],
)
def test_no_request_line(line: bytes) -> None:
    assert head_fields(line + b"\r\n\r\n") == -1


@given(st.binary(min_size=1, max_size=40))
def test_blanks_and_control_characters_of_a_target_are_seen_wherever_they_stand(target: bytes) -> None:
    data = b"GET /" + target + b" HTTP/1.1\r\nHost: h\r\n\r\n"
    head = head_fields(data)
    if isinstance(head, dict) and head["length"] == len(data) and b"\n" not in target:
        odd = re.search(rb"[\x00-\x20\x7f]", head["target"]) is not None or target.endswith((b" ", b"\t"))
        assert ("start_line" in reasons(head["ambiguity"])) is odd


@pytest.mark.parametrize(
    ("line", "status", "reason", "odd"),
    [
        (b"HTTP/1.1 200 OK", 200, b"200 OK", set()),
        (b"HTTP/1.0 204", 204, b"204", set()),
        (b"HTTP/1.1 404 Not  Found ", 404, b"404 Not  Found", set()),
        (b"HTTP/1.1  200 OK", 200, b"200 OK", {"start_line"}),
        (b"HTTP/1.1 20 OK", 20, b"20 OK", {"start_line"}),
        (b"HTTP/1.1 2000 OK", 2000, b"2000 OK", {"start_line"}),
        (b"HTTP/1.1 200OK", 200, b"200OK", {"start_line"}),
        (b"HTTP/1.1 200 O\x01K", 200, b"200 O\x01K", {"control_character"}),
        (b"HTTP/2 200", 200, b"200", {"start_line"}),
    ],
)
def test_a_status_line(line: bytes, status: int, reason: bytes, odd: set[str]) -> None:
    head = response(line + b"\r\n\r\n")
    assert (head["status"], head["reason"], reasons(head["ambiguity"])) == (status, reason, odd)


# ---- fields ----


@pytest.mark.parametrize(
    ("lines", "fields", "odd"),
    [
        (b"A: b\r\n", [(b"A", b"b")], set()),
        (b"A:b\r\n", [(b"A", b"b")], set()),
        (b"A: \t b \t\r\n", [(b"A", b"b")], set()),
        (b"A:\r\n", [(b"A", b"")], set()),
        (b"A: b\r\na: c\r\n", [(b"A", b"b"), (b"a", b"c")], set()),
        (b"A : b\r\n", [(b"A", b"b")], {"space_before_colon"}),
        (b"A: b\n", [(b"A", b"b")], {"bare_lf"}),
        (b"A: b\rc\r\n", [(b"A", b"b\rc")], {"bare_cr"}),
        (b"A: b\x00c\r\n", [(b"A", b"b\x00c")], {"nul"}),
        (b"A: b\x01\r\n", [(b"A", b"b\x01")], {"control_character"}),
        (b"no colon\r\n", [], {"bad_header_line"}),
        (b": v\r\n", [], {"bad_header_line"}),
        (b"A(: b\r\n", [(b"A(", b"b")], {"bad_header_line"}),
        (b"A: b\r\n c\r\n", [(b"A", b"b\r\n c")], {"obs_fold"}),
        (b" c\r\nA: b\r\n", [(b"A", b"b")], {"obs_fold"}),
    ],
)
def test_a_field(lines: bytes, fields: list[tuple[bytes, bytes]], odd: set[str]) -> None:
    head = response(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n")
    assert (head["fields"], reasons(head["ambiguity"])) == (fields, odd)


@pytest.mark.parametrize(
    ("lines", "length", "chunked", "odd"),
    [
        (b"Content-Length: 5\r\n", 5, False, set()),
        (b"content-length:  5 \r\n", 5, False, set()),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", 5, False, {"content_length_repeated"}),
        (b"Content-Length: 5, 5\r\n", 5, False, {"content_length_repeated"}),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", 5, False, {"content_length_conflict"}),
        (b"Content-Length: -5\r\n", None, False, {"content_length_invalid"}),
        (b"Content-Length: \r\n", None, False, {"content_length_invalid"}),
        (b"Transfer-Encoding: chunked\r\n", None, True, set()),
        (b"Transfer-Encoding: CHUNKED\r\n", None, True, set()),
        (b"Transfer-Encoding: gzip, chunked\r\n", None, True, {"transfer_encoding_obfuscated"}),
        (b"Transfer-Encoding: identity\r\n", None, False, {"transfer_encoding_obfuscated"}),
        (b"Transfer-Encoding: xchunked\r\n", None, False, {"transfer_encoding_not_chunked"}),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 5, True, {"content_length_and_transfer_encoding"}),
    ],
)
def test_where_a_message_ends(lines: bytes, length: int | None, chunked: bool, odd: set[str]) -> None:
    head = response(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n")
    assert (head["content_length"], head["chunked"], reasons(head["ambiguity"])) == (length, chunked, odd)


HEADS = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX: y\r\n z\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\nA: b\n\n",
]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_whole_with_its_last_byte(head: bytes) -> None:
    assert all(head_fields(head[:n]) == 0 for n in range(len(head)))
    assert request(head)["length"] == request(head + b"and more")["length"] == len(head)


def test_as_many_fields_as_are_listed() -> None:
    lines = b"".join(b"X-%d: y\r\n" % n for n in range(600))
    head = response(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 7\r\n\r\n")
    assert len(head["fields"]) == 512 and head["content_length"] == 7  # what says where it ends is seen all the same


# ---- chunks ----


@pytest.mark.parametrize(
    ("line", "size", "odd"),
    [
        (b"0\r", 0, set()),
        (b"A\r", 10, set()),
        (b"00ff\r", 255, set()),
        (b"5;a=b\r", 5, set()),
        (b'5;a="b;c"\r', 5, set()),
        (b"5 ; a\r", 5, set()),
        (b"5", 5, {"bare_lf"}),
        (b"5 \r", 5, {"bad_chunk"}),
        (b"5;\r", 5, {"bad_chunk"}),
        (b"\r", -1, set()),
        (b"x\r", -1, set()),
        (b"-1\r", -1, set()),
        (b"0x5\r", -1, set()),
        (b"2 3\r", -1, {"bad_chunk"}),
        (b"fffffffffffffff\r", 0xFFFFFFFFFFFFFFF, set()),
        (b"1000000000000000\r", -1, set()),
    ],
)
def test_the_size_of_a_chunk(line: bytes, size: int, odd: set[str]) -> None:
    found, bits = chunk_line(line)
    assert (found, reasons(bits)) == (size, odd)


@given(st.integers(0, 2**60 - 1), st.sampled_from(["{:x}", "{:X}", "0{:x}", "{:x};q", '{:x} ; a = "b"']))
def test_any_size_is_read(size: int, form: str) -> None:
    line = form.format(size).encode() + b"\r"
    if len(line.split(b";")[0].strip()) <= 15:
        assert chunk_line(line) == (size, 0)
