"""gRPC, gRPC-Web and Connect: the messages of a body, one by one."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.records.messages import GRPC, GRPC_WEB_TEXT, of_body
from tests.events import Conversation
from tests.http2 import REQUEST, RESPONSE, Talk, play, request, response


def framed(*messages: bytes, flags: int = 0) -> bytes:
    return b"".join(bytes((flags,)) + struct.pack(">I", len(message)) + message for message in messages)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def call(asked: bytes, answered: bytes, *fields: tuple[str, str], end: bool = True, **settings: Any) -> dict[str, Any]:
    """The record of one call."""
    talk = Talk()
    head = [("content-type", "application/grpc+proto"), *fields]
    stream = talk.ask(request("/shop.Orders/Get", "POST", ("te", "trailers"), *head))
    talk.body(stream, REQUEST, asked, end=True)
    talk.flush()
    talk.answer(stream, response(200, *head))
    talk.body(stream, RESPONSE, answered)
    if end:
        talk.trailers(stream, RESPONSE, [(b"grpc-status", b"0"), (b"grpc-message", b"")])
    talk.flush()
    (record,) = play(talk, Conversation(**settings)).close().records()
    return record


def test_a_unary_call() -> None:
    record = call(framed(b"\x08\x01"), framed(b"\x12\x03abc"))
    assert (record["protocol"], record["type"], record["path"]) == ("grpc", "HTTP/2.0", "/shop.Orders/Get")
    assert (record["requestPayload"], record["requestMessages"]) == (b64(b"\x08\x01"), "1")
    assert (record["responsePayload"], record["responseMessages"]) == (b64(b"\x12\x03abc"), "1")
    assert record["requestPayloadEncoding"] == record["responsePayloadEncoding"] == "base64"
    assert (record["response"]["grpc-status"], record["response"]["grpc-message"], record["mark"]) == ("0", "", [])
    assert (record["requestSize"], record["responseSize"]) == ("7", "10")


def test_messages_of_a_stream_in_their_order() -> None:
    record = call(framed(b"a", b"", b"ccc"), b"")
    assert json.loads(record["requestPayload"]) == [b64(b"a"), "", b64(b"ccc")] and record["requestMessages"] == "3"
    assert record["responsePayload"] == "" and "responseMessages" not in record and not record["mark"]


def test_compressed_messages() -> None:
    long = b"the same " * 100
    record = call(framed(gzip.compress(long), flags=1) + framed(b"plain"), framed(b"ok"), ("grpc-encoding", "gzip"))
    assert json.loads(record["requestPayload"]) == [b64(long), b64(b"plain")] and not record["mark"]
    for encoding in ("snappy", "identity;q=1", ""):
        record = call(framed(b"\xff\x06\0\0sNaPpY", flags=1), framed(b"ok"), ("grpc-encoding", encoding))
        assert base64.b64decode(record["requestPayload"]) == framed(b"\xff\x06\0\0sNaPpY", flags=1)
        assert record["mark"] == ["request_body_undecoded"] and "requestMessages" not in record


def test_a_message_beyond_the_limit_is_shown_by_its_beginning() -> None:
    record = call(framed(bytes(2000)), framed(b"ok"), body_bytes=1000)
    assert (record["requestPayload"], record["requestMessages"]) == (b64(bytes(995)), "1") and "part" not in record
    assert record["mark"] == ["request_body_cut:1005"] and record["requestSize"] == "2005"


@pytest.mark.parametrize("body", [b"{}", b"\0\0\0", b"\0\0\0\0\x09abc", framed(b"a") + b"x"])
def test_what_is_no_messages_is_shown_as_it_is(body: bytes) -> None:
    record = call(body, framed(b"ok"))
    assert record["mark"] == ["request_body_undecoded"] and "requestMessages" not in record
    assert base64.b64decode(record["requestPayload"]) == body


def http1(asked: bytes, answered: bytes, media: str, *fields: bytes) -> dict[str, Any]:
    c = Conversation()
    head = b"Content-Type: %s\r\n" % media.encode() + b"".join(b"%s\r\n" % field for field in fields)
    c.request(b"POST /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n%s" % (len(asked), head, asked))
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(answered), head, answered))
    (record,) = c.records()
    return record


def test_grpc_web() -> None:
    answered = framed(b"answer") + framed(b"grpc-status:0\r\n", flags=0x80)
    record = http1(framed(b"question"), answered, "application/grpc-web+proto")
    assert (record["protocol"], record["type"], record["mark"]) == ("grpc-web", "HTTP/1.1", [])
    assert (record["requestPayload"], record["responsePayload"]) == (b64(b"question"), b64(b"answer"))
    pieces = base64.b64encode(framed(b"answer")) + base64.b64encode(framed(b"grpc-status:0\r\n", flags=0x80))
    record = http1(base64.b64encode(framed(b"q")), pieces, "application/grpc-web-text")
    assert (record["protocol"], record["requestPayload"], record["responsePayload"]) == (
        "grpc-web",
        b64(b"q"),
        b64(b"answer"),
    )
    record = http1(b"!!!", pieces, "application/grpc-web-text")
    assert record["mark"] == ["request_body_undecoded"]


def test_connect() -> None:
    end = framed(b'{"metadata":{}}', flags=2)
    record = http1(framed(b'{"a":1}', b'{"a":2}') + end, framed(b"{}") + end, "application/connect+json")
    assert record["protocol"] == "connect" and json.loads(record["requestPayload"]) == [b64(b'{"a":1}'), b64(b'{"a":2}')]
    compressed = framed(gzip.compress(b"{}"), flags=1)
    record = http1(compressed, compressed, "application/connect+proto", b"Connect-Content-Encoding: gzip")
    assert record["requestPayload"] == record["responsePayload"] == b64(b"{}") and not record["mark"]


@pytest.mark.parametrize(
    "media", ["application/grpcx", "application/grpc-webx", "application/json", "application/connect", ""]
)
def test_other_types_are_not_touched(media: str) -> None:
    record = http1(b'{"a":1}', b"{}", media)
    assert record["protocol"] == "http1" and record["requestPayload"] == '{"a":1}' and "requestMessages" not in record


def test_calls_and_other_exchanges_of_one_connection() -> None:
    talk = Talk()
    for n in range(4):
        kind = "application/grpc" if n % 2 else "text/plain"
        stream = talk.ask(request(f"/{n}", "POST", ("content-type", kind)))
        talk.body(stream, REQUEST, framed(b"x") if n % 2 else b"x", end=True)
        talk.flush()
        talk.answer(stream, response(200), end=True)
        talk.flush()
    records = play(talk).records()
    assert [record["protocol"] for record in records] == ["http2", "grpc"] * 2


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 400), st.booleans())
def test_any_prefix_is_a_prefix_of_the_messages(parts: list[bytes], end: int, text: bool) -> None:
    whole = framed(*parts)
    wire = base64.b64encode(whole) if text else whole
    media = GRPC_WEB_TEXT if text else GRPC
    found = of_body(wire[:end], media, True, lambda _message, _prefix: None)
    assert found is not None
    payload, number, shorter = found
    shown = json.loads(payload) if number > 1 else [payload.decode()] * number
    plain = [base64.b64decode(each) for each in shown]
    assert plain[:-1] == parts[: max(0, number - 1)] and all(b.startswith(a) for a, b in zip(plain, parts, strict=False))
    assert shorter or (plain == parts[:number])


@given(st.binary(max_size=200), st.sampled_from([4, 5, 6, 7]), st.booleans())
def test_any_bytes(body: bytes, media: int, cut: bool) -> None:
    of_body(body, media, cut, lambda message, prefix: (message, prefix))
