"""Records that are too large for their topic."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.sink.kafka.cut import cut
from tests.events import Conversation, one_line


def made(request: bytes, response: bytes, kind: bytes = b"text/plain") -> bytes:
    """A record as a shard makes it."""
    c = Conversation()
    head = b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n"
    c.request(b"POST /x HTTP/1.1\r\nHost: a\r\n" + head % (kind, len(request)) + request)
    c.response(b"HTTP/1.1 200 OK\r\n" + head % (kind, len(response)) + response)
    return one_line(c)


def read(record: bytes | None) -> dict[str, Any]:
    assert record is not None
    fields: dict[str, Any] = json.loads(record)
    return {**fields, "words": json.loads(fields["marks"])}


def test_one_that_fits_stays_as_it_is() -> None:
    record = made(b"request", b"response")
    assert json.loads(cut(record, len(record)) or b"") == json.loads(record)


def test_the_response_is_cut_first() -> None:
    record = made(b"q" * 2000, b"r" * 20_000)
    out = cut(record, 10_000)
    fields = read(out)
    assert 9000 < len(out or b"") <= 10_000
    assert fields["requestPayload"] == "q" * 2000 and set(fields["responsePayload"]) == {"r"}
    assert fields["words"] == ["response_body_cut"]
    assert (fields["requestSize"], fields["responseSize"]) == ("2000", "20000")


def test_then_the_request() -> None:
    fields = read(cut(made(b"q" * 20_000, b"r" * 20_000), 5000))
    assert fields["responsePayload"] == "" and 1000 < len(fields["requestPayload"]) < 5000
    assert fields["words"] == ["response_body_cut", "request_body_cut"]


def test_a_request_in_json_that_would_be_cut_is_left_out() -> None:
    fields = read(cut(made(json.dumps(["q" * 20_000]).encode(), b"", b"application/json"), 5000))
    assert fields["requestPayload"] == "" and fields["words"] == ["request_body_cut"]


def test_what_is_left_of_base64_can_be_decoded() -> None:
    body = bytes(range(256)) * 100
    fields = read(cut(made(b"", body), 9001))
    assert fields["responsePayloadEncoding"] == "base64"
    assert body.startswith(base64.b64decode(fields["responsePayload"], validate=True))


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b"{}", b'{"marks":"[]"}', b'{"marks":"7","responsePayload":"","requestPayload":""}']
)
def test_what_is_no_record_is_not_cut(record: bytes) -> None:
    assert cut(record, 10) is None


def test_one_that_is_too_large_without_its_bodies_is_not_cut() -> None:
    assert cut(made(b"q", b"r"), 100) is None


@given(st.text(max_size=3000), st.text(max_size=3000), st.integers(800, 6000))
def test_what_comes_out_fits_and_is_a_prefix(request: str, response: str, most: int) -> None:
    record = made(request.encode(), response.encode())
    out = cut(record, most)
    if out is None:
        assert len(record) > most
        return
    before, after = json.loads(record), json.loads(out)
    assert len(out) <= most
    assert before["responsePayload"].startswith(after["responsePayload"])
    assert before["requestPayload"].startswith(after["requestPayload"])
    same = before.keys() - {"requestPayload", "responsePayload", "marks"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
