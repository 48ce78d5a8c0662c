"""What an end of HTTP/2 has to refuse: it is read on, is no part of what it is not, and the record says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.events import Conversation

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
DATA, HEADERS = 0, 1
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def head(*fields: tuple[str, str], end: bool = True) -> bytes:
    block = b"".join(b"\0%c%s%c%s" % (len(name), name.encode(), len(value), value.encode()) for name, value in fields)
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), block)


ASKED = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a.example")]
ANSWERED = [(":status", "200")]


def begun(*, request_ends: bool = True) -> Conversation:
    c = Conversation().request(PREFACE + SETTINGS).response(SETTINGS)
    return c.request(head(*ASKED, end=False)).request(frame(DATA, END_STREAM if request_ends else 0, b"right"))


def only(c: Conversation) -> dict[str, Any]:
    (record,) = c.close().records()
    return record


@pytest.mark.parametrize("extra", [frame(DATA, END_STREAM, b"more"), head(("x-late", "1")), head(*ASKED)])
def test_what_follows_the_end_of_a_request_is_no_part_of_it(extra: bytes) -> None:
    record = only(begun().request(extra).response(head(*ANSWERED, end=False)).response(frame(DATA, END_STREAM, b"ok")))
    assert (record["requestPayload"], record["requestSize"], record["responsePayload"]) == ("right", "5", "ok")
    assert "ambiguous_framing:frame" in record["mark"] and "x-late" not in record["request"]


@pytest.mark.parametrize("extra", [frame(DATA, END_STREAM, b"more"), head(("x-late", "1"))])
def test_what_follows_the_end_of_an_answer_is_no_part_of_it(extra: bytes) -> None:
    """The request goes on: the stream is still open."""
    c = begun(request_ends=False).response(head(*ANSWERED, end=False)).response(frame(DATA, END_STREAM, b"ok"))
    record = only(c.response(extra).request(frame(DATA, END_STREAM, b"")))
    assert (record["requestPayload"], record["responsePayload"], record["responseSize"]) == ("right", "ok", "2")
    assert record["mark"] == ["ambiguous_framing:frame"] and "x-late" not in record["response"]


def test_an_empty_frame_behind_the_end_says_nothing() -> None:
    record = only(begun().request(frame(DATA, END_STREAM, b"")).response(head(*ANSWERED)))
    assert record["requestPayload"] == "right" and not record["mark"]


def test_bytes_behind_the_end_of_a_direction_are_read_on() -> None:
    """It was not the end of the stream: what was called it came before the last bytes."""
    c = begun(request_ends=False)
    record = only(c.eof(c.requests).request(frame(DATA, END_STREAM, b" on")).response(head(*ANSWERED)))
    assert record["requestPayload"] == "right on" and record["words"] == {"request_incomplete"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (ASKED[1:], {"ambiguous_framing", "method_unknown"}),
        ([(":method", ""), *ASKED[1:]], {"ambiguous_framing", "method_unknown"}),
        ([*ASKED[:1], *ASKED[2:]], {"ambiguous_framing"}),
        ([*ASKED[:2], *ASKED[3:]], {"ambiguous_framing"}),
        ([*ASKED[:2], (":path", ""), *ASKED[3:]], {"ambiguous_framing"}),
        ([(":method", "CONNECT"), (":authority", "a.example:1")], set()),
        ([(":method", "CONNECT"), (":authority", "a.example:1"), (":protocol", "websocket")], {"ambiguous_framing"}),
    ],
    ids=["no method", "empty method", "no scheme", "no path", "empty path", "CONNECT", "extended CONNECT without path"],
)
def test_pseudo_header_fields_that_are_missing(fields: list[tuple[str, str]], words: set[str]) -> None:
    """RFC 9113 sections 8.3.1 and 8.5; a record without a method says so in its own mark."""
    c = Conversation().request(PREFACE + SETTINGS).response(SETTINGS)
    record = only(c.request(head(*fields)).response(head(*ANSWERED)))
    assert record["words"] == words and record["statusCode"] == "200"
    assert not words or "ambiguous_framing:pseudo_header" in record["mark"]
