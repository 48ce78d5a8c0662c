"""Compressions below chunked (RFC 9112 sections 6.1 and 7): undone like content codings, which they lie around."""

from __future__ import annotations

import gzip
import zlib

import pytest

from tests.events import GET, Conversation

TEXT = b"what was said " * 40


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 50] for at in range(0, len(body), 50)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("codings", "content", "body"),
    [
        (b"gzip, chunked", b"", gzip.compress(TEXT, mtime=0)),
        (b"x-gzip , chunked", b"", gzip.compress(TEXT, mtime=0)),
        (b"Deflate,chunked", b"", zlib.compress(TEXT)),
        (b"gzip, chunked", b"Content-Encoding: deflate\r\n", gzip.compress(zlib.compress(TEXT), mtime=0)),
    ],
)
def test_of_an_answer(codings: bytes, content: bytes, body: bytes) -> None:
    c = Conversation().request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n%s\r\n" % (codings, content) + chunked(body))
    (record,) = c.records()
    assert (record["responsePayload"].encode(), record["mark"]) == (TEXT, [])
    assert record["responseSize"] == str(len(body)) and "Transfer-Encoding" in record["response"]


def test_of_a_request_it_is_undone_and_said() -> None:
    """Who does not know the coding may read something else: that is how requests are smuggled."""
    c = Conversation()
    c.request(b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + chunked(gzip.compress(TEXT)))
    (record,) = c.response(b"HTTP/1.1 204 No Content\r\n\r\n").records()
    assert record["requestPayload"].encode() == TEXT
    assert "ambiguous_framing:transfer_encoding_obfuscated" in record["mark"]


@pytest.mark.parametrize(
    "codings", [b"gzip, gzip, chunked", b"chunked, chunked", b"br, chunked", b"gzip, chunked,", b"gzip;q=1, chunked"]
)
def test_others_stay_what_they_are(codings: bytes) -> None:
    c = Conversation().request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n" % codings + chunked(b"\x1f\x8b"))
    (record,) = c.records()
    assert record["responsePayloadEncoding"] == "base64"
    assert "ambiguous_framing:transfer_encoding_obfuscated" in record["mark"]


def test_the_next_answer_has_none() -> None:
    c = Conversation().request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + chunked(gzip.compress(TEXT)))
    c.request(GET).response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"plain"))
    assert [record["responsePayload"].encode() for record in c.records()] == [TEXT, b"plain"]
