"""HTTP/1 by name: every behaviour that a list of protocol features would mention, and every reason for a mark.

The rule behind each expectation is RFC 9110 and 9112 as an observer must read them: it can refuse nothing, so it
reports what was on the wire, and says where two readers of the same bytes could disagree."""

from __future__ import annotations

from typing import Any

import pytest

from tests.events import Conversation


def one(c: Conversation) -> dict[str, Any]:
    records = c.records()
    assert len(records) == 1, records
    return records[0]


def reasons(record: dict[str, Any]) -> set[str]:
    """Why the record says that its framing is ambiguous."""
    return {reason for mark in record["mark"] if mark.startswith("ambiguous_framing") for reason in mark.split(":")[1:]}


def of_request(data: bytes, *, step: int = 1 << 20) -> set[str]:
    """The reasons on the only record of these bytes, which no answer follows."""
    c = Conversation()
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    return reasons(one(c.close()))


# ---- the request's framing ----


@pytest.mark.parametrize(("fields", "expected"), [
    ("Transfer-Encoding: gzip, chunked", {"transfer_encoding_obfuscated"}),
    ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", {"transfer_encoding_obfuscated"}),
    ("Transfer-Encoding: chunked, identity", {"transfer_encoding_obfuscated"}),
    ("Transfer-Encoding: chunked,", {"transfer_encoding_obfuscated"}),
    ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", {"transfer_encoding_obfuscated"}),
])
def test_transfer_encodings_in_one_field_or_several_are_one_list(fields: str, expected: set[str]) -> None:
    r = one(Conversation().request(f"POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode()).close())
    assert (r["requestPayload"], reasons(r), r["words"]) == ("abc", expected, {"no_response", "ambiguous_framing"})


@pytest.mark.parametrize("fields", ["Transfer-Encoding: chunked, gzip", "Transfer-Encoding: chunkedchunked",
                                    "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", "Transfer-Encoding:"])
def test_a_last_coding_that_is_not_chunked_leaves_the_end_unknown(fields: str) -> None:
    r = one(Conversation().request(f"POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode()).close())
    assert "transfer_encoding_not_chunked" in reasons(r) and "request_incomplete" in r["words"]


def test_identity_beside_a_length_is_still_both_fields() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\n"
    r = one(Conversation().request(head + b"abc").close())
    assert r["requestPayload"] == "abc"
    assert reasons(r) == {"content_length_and_transfer_encoding", "transfer_encoding_obfuscated"}
