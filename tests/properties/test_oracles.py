"""Valid HTTP/1 read three ways: what was meant, what h11 and httptools (llhttp, node's parser) read, and the
collector's records. All of them agree, request by request and header by header, and no record carries a mark.

Where a parser is stricter or laxer than RFC 9112 the comparison with it is narrower, and a comment says why.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import abi
from tests.events import Conversation
from tests.properties.strategies import KNOWN_METHODS, Dialogue, Fields, Message, dialogues, header_text, shown_fields

ROLES = st.sampled_from([abi.SERVER, abi.CLIENT, abi.UNKNOWN])  # unknown: the first bytes say it


@dataclass
class Seen:
    """One message as a parser sees it; wire bytes."""

    start: tuple[bytes, ...]  # method, target; or status, reason
    version: bytes
    fields: Fields
    body: bytes = b""


def meant(message: Message) -> Seen:
    start = (message.method, message.target) if message.method else (b"%d" % message.status, message.reason.strip(b" \t"))
    return Seen(start, message.version.removeprefix(b"HTTP/"), message.fields, message.body)


# ---- h11 ---------------------------------------------------------------------------------------------------------


def h11_messages(stream: bytes, requests: list[Message] | None) -> list[Seen]:
    """All messages of one direction; `requests` are what responses answer. Each message has a parser of its own, which
    begins where the one before says that its message ended: h11 wants to be told both sides of a conversation."""
    out: list[Seen] = []
    number = 0
    while stream:
        if requests is None:
            # h11 takes no empty line before a request; RFC 9112 section 2.2 asks servers to skip one
            stream = stream.removeprefix(b"\r\n")
            conn = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
        else:
            conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=100_000)
            conn.send(h11.Request(method=requests[number].method, target=b"/", headers=[("Host", "x")]))
            conn.send(h11.EndOfMessage())
        conn.receive_data(stream)
        conn.receive_data(b"")
        seen: Seen | None = None
        while True:
            event = conn.next_event()
            if isinstance(event, h11.Request):
                seen = Seen((event.method, event.target), event.http_version, tuple(event.headers.raw_items()))
            elif isinstance(event, h11.Response):
                seen = Seen(
                    (b"%d" % event.status_code, event.reason.strip(b" \t")),
                    event.http_version,
                    tuple(event.headers.raw_items()),
                )
            elif isinstance(event, h11.Data):
                assert seen is not None
                seen.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:  # PAUSED: a tunnel has begun
                break
            else:
                assert isinstance(event, h11.InformationalResponse), event
        assert seen is not None
        out.append(seen)
        stream, number = conn.trailing_data[0], number + 1
    return out


# ---- httptools ---------------------------------------------------------------------------------------------------

TABS = re.compile(rb"(?i)(\ntransfer-encoding:[ \t]*chunked)[ \t]+(?=\r)")


class Listener:
    """llhttp's callbacks."""

    def __init__(self, request: bool) -> None:
        self.parser: Any = httptools.HttpRequestParser(self) if request else httptools.HttpResponseParser(self)
        self.request = request
        self.url = self.status = self.body = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.head: Seen | None = None
        self.done: list[Seen] = []

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_status(self, part: bytes) -> None:
        self.status += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:  # behind the head these are trailers
            # llhttp hands blanks behind a value on; they are no part of it (RFC 9112 section 5)
            self.fields.append((name, (value or b"").rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        start: tuple[bytes, ...] = (
            (self.parser.get_method(), self.url)
            if self.request
            else (b"%d" % self.parser.get_status_code(), self.status.strip(b" \t"))
        )
        self.head = Seen(start, self.parser.get_http_version().encode(), tuple(self.fields))

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        assert self.head is not None
        if self.request or not self.head.start[0].startswith(b"1"):
            self.done.append(Seen(self.head.start, self.head.version, self.head.fields, self.body))
        self.url = self.status = self.body = b""
        self.fields = []
        self.head = None


def httptools_messages(messages: list[Message], answered: list[Message] | None = None) -> list[Seen]:
    """All messages of one direction; what llhttp cannot be asked about as it was meant."""
    out: list[Seen] = []
    listener = Listener(answered is None)
    for number, message in enumerate(messages):
        if answered is None and message.method not in (*KNOWN_METHODS, b"CONNECT"):
            # llhttp has a list of methods; RFC 9110 section 9.1 allows any token
            out.append(meant(message))
            continue
        try:
            # llhttp takes "chunked" with a tab behind it for another coding; RFC 9110 section 5.6.3 allows the tab
            listener.parser.feed_data(TABS.sub(rb"\1", message.wire))
        except httptools.HttpParserUpgrade:
            assert message.method == b"CONNECT"
        if answered is not None and not listener.done and listener.head is not None:
            # Only the end of the connection ends this one; or it answers HEAD or opens a tunnel, of which httptools
            # cannot be told: it waits for a body that never comes, so the next message gets a new parser.
            assert message.until_close or (answered[number].method in (b"HEAD", b"CONNECT") and not listener.body)
            listener.head.body = listener.body
            out.append(listener.head)
            listener = Listener(False)
            continue
        assert len(listener.done) == 1, message
        out.append(listener.done.pop())
    return out


# ---- comparison --------------------------------------------------------------------------------------------------


def body_of(record: dict, side: str) -> bytes:
    payload: str = record[f"{side}Payload"]
    if f"{side}PayloadEncoding" not in record:
        return payload.encode()
    body = base64.b64decode(payload, validate=True)
    with pytest.raises(UnicodeDecodeError):
        body.decode()  # text is never shown as base64
    return body


def omitted(fields: Fields) -> bool:
    kinds = [value.lower() for name, value in fields if name.lower() == b"content-type"]
    return kinds[:1] in ([b"image/png"], [b"application/octet-stream"])


def compare(record: dict, request: Seen, response: Seen, *, coding_lowered: bool = False) -> None:
    marks = set()
    for seen, side in ((request, "request"), (response, "response")):
        shown = json.loads(record[f"{side}Headers"], object_pairs_hook=list)
        if coding_lowered:
            shown = [(name, value.lower() if name.lower() == "transfer-encoding" else value) for name, value in shown]
        target = seen.start[1] if side == "request" else b""
        assert list(map(tuple, shown)) == shown_fields(seen.fields, request=side == "request", target=target)
        assert record[f"{side}Size"] == str(len(seen.body))
        if seen.body and omitted(seen.fields):
            marks.add(f"{side}_body_omitted")
            assert record[f"{side}Payload"] == ""
        else:
            assert body_of(record, side) == seen.body
    assert (record["method"], record["path"]) == tuple(map(header_text, request.start))
    assert record["type"] == "HTTP/" + request.version.decode()
    # as on the wire, but the blanks at the line's end; those before the phrase were compared with what was meant
    assert record["statusCode"] == response.start[0].decode()
    assert record["status"].split(" ", 1)[0] == record["statusCode"]
    assert record["status"].partition(" ")[2].strip(" \t") == header_text(response.start[1])
    assert set(record["mark"]) == marks


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://x", "x"),
        ("https://x", "x"),
        ("HTTP://a.example:81?q", "a.example:81"),
        ("https://[::1]:8/p", "[::1]:8"),
        ("http://", ""),
        ("https://", ""),
        ("httpx://abc", ""),
        ("/http://x", ""),
    ],
)
def test_the_host_of_an_absolute_target_stands_for_the_missing_field(target: str, host: str) -> None:
    c = Conversation()
    c.request(f"GET {target} HTTP/1.0\r\n\r\n".encode()).response(b"HTTP/1.0 204 No Content\r\n\r\n")
    record = c.close().records()[0]
    assert (record["request"], record["path"], record["mark"]) == ({"host": host}, target, [])


@settings(max_examples=250, deadline=None)
@given(dialogues(), ROLES)
def test_the_parsers_and_the_collector_agree(dialogue: Dialogue, role: int) -> None:
    requests = [e.request for e in dialogue.exchanges]
    responses = [e.response for e in dialogue.exchanges]
    records = dialogue.play(role).records()
    for record, asked, answer in zip_longest(records, requests, responses):
        compare(record, meant(asked), meant(answer))
        phrase = b"%d %s" % (answer.status, answer.reason)
        assert record["status"] == header_text(phrase.rstrip(b" \t"))
    by_h11 = (
        h11_messages(b"".join(m.wire for m in requests), None),
        h11_messages(b"".join(m.wire for m in responses), requests),
    )
    for record, request, response in zip_longest(records, *by_h11):
        compare(record, request, response, coding_lowered=True)  # h11 gives "chunked" in lower case, always
    by_httptools = httptools_messages(requests), httptools_messages(responses, requests)
    for record, request, response in zip_longest(records, *by_httptools):
        compare(record, request, response)


@settings(max_examples=40, deadline=None)
@given(dialogues(max_exchanges=2, blanks=b" \t"), ROLES)
def test_blanks_around_chunk_extensions(dialogue: Dialogue, role: int) -> None:
    """RFC 9112 section 7.1.1 has recipients take them; h11 and llhttp do not, so this is compared with what was meant."""
    for record, exchange in zip_longest(dialogue.play(role).records(), dialogue.exchanges):
        compare(record, meant(exchange.request), meant(exchange.response))


@pytest.mark.parametrize("request_side", [True, False])
def test_a_head_at_the_limit_is_the_same_however_it_came(request_side: bool) -> None:
    """Longer than COLLECTOR_HEADER_BYTES: the lines that fit, and a mark; in one event as in several."""
    start = b"POST / HTTP/1.1\r\n" if request_side else b"HTTP/1.1 200 OK\r\n"
    for size in (1022, 1023, 1024, 1028, 1029, 1500, 5000, 100_000):
        head = start + b"Host: h\r\nContent-Length: 2\r\nX: "
        head += b"a" * (size - len(head) - 4) + b"\r\n\r\n"
        for empty, cuts in itertools.product((b"", b"\r\n"), ([], [1], [500], [500, 1023], [size - 3], [size - 1], [size])):
            if empty and not request_side:
                continue
            data = empty + head + b"{}"
            c = Conversation(header_bytes=1024)
            if not request_side:
                c.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True):
                (c.request if request_side else c.response)(data[a:b])
            if request_side:
                c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            record = c.close().records()[0]
            side = "request" if request_side else "response"
            fields = {"host" if request_side else "Host": "h", "Content-Length": "2"}
            if size <= 1024:
                assert (record[side], record["mark"]) == ({**fields, "X": "a" * (size - len(start) - 35)}, [])
            else:
                assert record[side] == fields and {"headers_cut", f"{side}_incomplete"} <= record["words"], (size, cuts)
