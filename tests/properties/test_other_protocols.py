"""What is no HTTP gives no record: conversations of other protocols, both ends, whole and cut anywhere, from their beginning
and joined at any byte, in sockets and inside TLS; and what looks like HTTP inside of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import abi
from tests.events import Conversation
from tests.other_protocols import CLIENT, HTTP, PROTOCOLS, Said, tls

OPENSSL = 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PLACES: list[dict[str, Any]] = [
    {"role": abi.SERVER},
    {"role": abi.CLIENT},
    {"role": abi.UNKNOWN},
    {"role": abi.SERVER, "source": OPENSSL},
    {"role": abi.UNKNOWN, "source": OPENSSL},
]


def cut(said: Said, rng: random.Random) -> Said:
    """The same bytes in other events."""
    parts: Said = []
    for side, data in said:
        while data:
            size = rng.choice([1, 2, 5, 9, 30, len(data)])
            parts.append((side, data[:size]))
            data = data[size:]
    return parts


def played(said: Said, **how: Any) -> Conversation:
    c = Conversation(**how)
    for side, data in said:
        (c.request if side == CLIENT else c.response)(data)
    return c


def suffixes(said: Said) -> Iterator[Said]:
    """From each byte on."""
    for first, (side, data) in enumerate(said):
        for at in range(len(data)):
            yield [(side, data[at:]), *said[first + 1 :]]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(map(str, place.values())))
@pytest.mark.parametrize("name", PROTOCOLS)
def test_from_the_beginning(name: str, place: dict[str, Any]) -> None:
    said = PROTOCOLS[name](b"a value of 24 characters")
    rng = random.Random(name)
    for parts in (said, *(cut(said, rng) for _ in range(20))):
        c = played(parts, **place)
        c.wait(61)
        assert c.records() == []
        assert c.close().records() == [] and c.pipe.statistics()["connections"] == 0


@pytest.mark.parametrize("place", PLACES[1:4], ids=lambda place: "-".join(map(str, place.values())))
@pytest.mark.parametrize("name", PROTOCOLS)
def test_joined_at_any_byte(name: str, place: dict[str, Any]) -> None:
    said = PROTOCOLS[name](b"a value of 24 characters")
    rng = random.Random(name)
    for rest in suffixes(said):
        for parts in (rest, cut(rest, rng)):
            assert played(parts, start=abi.MID, **place).close().records() == [], parts[:2]


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=300)), min_size=1, max_size=20),
    st.sampled_from(PLACES),
    st.sampled_from([abi.SEEN, abi.MID]),
)
def test_random_bytes(said: Said, place: dict[str, Any], start: int) -> None:
    records = played(said, start=start, **place).close().records()
    # A line that ends with a version is a request, if an odd one, which servers answer: the record says so.
    odd = all("ambiguous_framing" in record["words"] for record in records)
    assert records == [] or (odd and any(b"HTTP/" in data for _side, data in said))


# ---- what looks like HTTP inside of them

LIKE_HTTP = {
    "request": HTTP,
    "post": b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi",
    "answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "preface": PREFACE + b"\0\0\0\4\0\0\0\0\0",
    "frames": b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64\0\0\4\x08\0\0\0\0\0\0\0\xff\0",
}
# What they hold is no such value.
WITHOUT_VALUES = {"redis_inline", "ftp", "sip", "rtsp", "noise", "tls", "ssh"}


def judge(records: list[dict[str, Any]]) -> int:
    """An event that begins like a request of HTTP/1 may be one; the record says that this is all that is known."""
    for record in records:
        assert {"request_framing_uncertain", "pairing_uncertain", "no_response"} <= record["words"], record
        assert record["protocol"] == "http1" and record["statusCode"] == "0" and record["response"] == {}
    return len(records)


def begins_like_a_request(said: Said) -> bool:
    """One of the calls does: then nobody can tell."""
    return any(data.startswith((b"GET / ", b"POST /")) for _side, data in said)


@pytest.mark.parametrize("like", LIKE_HTTP)
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in WITHOUT_VALUES])
def test_a_value_that_looks_like_http_is_no_record(name: str, like: str) -> None:
    said = PROTOCOLS[name](LIKE_HTTP[like])
    rng = random.Random(like)
    for place in PLACES:
        found = judge(played(said, **place).close().records())
        assert found == 0 or begins_like_a_request(said)
        for _ in range(10):
            judge(played(cut(said, rng), **place).close().records())


@pytest.mark.parametrize("like", LIKE_HTTP)
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in WITHOUT_VALUES])
def test_joined_inside_such_a_value(name: str, like: str) -> None:
    for rest in suffixes(PROTOCOLS[name](LIKE_HTTP[like])):
        found = played(rest, start=abi.MID).close().records()
        assert not judge(found) or like in ("request", "post"), rest[:1]


def test_ciphertext_is_never_read() -> None:
    """Not even where it looks like a request behind the five bytes of a record."""
    said = tls()
    record = b"\x17\x03\x03" + len(HTTP).to_bytes(2) + HTTP
    for place in PLACES[:3]:
        assert played([*said, (CLIENT, record), (not CLIENT, record)], **place).close().records() == []
        assert played([(CLIENT, record), (not CLIENT, record)] * 3, start=abi.MID, **place).close().records() == []


@pytest.mark.parametrize("inside", [PREFACE + LIKE_HTTP["frames"], HTTP, b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + HTTP])
def test_a_preface_or_a_request_inside_a_body_is_the_bodys(inside: bytes) -> None:
    asks = b"POST /outer HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(inside)
    rng = random.Random(1)
    for said in (*(cut([(CLIENT, asks + inside)], rng) for _ in range(30)), [(CLIENT, asks), (CLIENT, inside)]):
        c = played(said).response(b"HTTP/1.1 204 No Content\r\n\r\n").close()
        (record,) = c.records()
        assert record["path"] == "/outer" and record["requestSize"] == str(len(inside)) and not record["mark"]
