"""The PROXY protocol in front of HTTP/1: what it claims, where it counts, and what only looks like it."""

from __future__ import annotations

import array
import json
import struct
from pathlib import Path
from typing import Any

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from tests.events import GET, OK, Conversation, ident, pipeline, take

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.10 198.51.100.20 51000 443\r\n"
ENDS = bytes([192, 0, 2, 10, 198, 51, 100, 20]) + struct.pack("!HH", 51000, 443)
CLAIM = "192.0.2.10:51000"
TRUSTED: dict[str, Any] = {"trusted_networks": "10.0.0.0/8"}


def v2(body: bytes = ENDS, command: int = 0x21, family: int = 0x11, checksum: int | None = None) -> bytes:
    """A preamble; ``checksum`` is added to the right one."""
    if checksum is None:
        return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body
    head = SIGNATURE + struct.pack("!BBH", command, family, len(body) + 7) + body + b"\x03\0\x04"
    return head + struct.pack("!I", (crc32c.crc32c(head + bytes(4)) + checksum) & 0xFFFFFFFF)


def claims(c: Conversation) -> list[tuple[str | None, str | None, list[str]]]:
    return [(r.get("clientIp"), r.get("clientSource"), r["mark"]) for r in c.records()]


@pytest.mark.parametrize(("preamble", "source"), [(V1, "proxy_v1"), (v2(), "proxy_v2"), (v2(checksum=0), "proxy_v2")])
def test_a_claim_holds_for_all_records_of_the_connection(preamble: bytes, source: str) -> None:
    c = Conversation().request(preamble + GET).response(OK).request(GET).response(OK)
    assert claims(c) == [(CLAIM, source, [])] * 2
    c.request(GET).response(OK)
    (r,) = c.records()
    assert (r["ip"], r["destIp"], r["clientIp"], r["recordId"].rpartition("-")[2]) == (
        "10.0.0.2:40000",
        "10.0.0.1:80",
        CLAIM,
        f"{len(preamble + GET * 2):x}",
    )


@pytest.mark.parametrize(
    "preamble",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff whatever 1\r\n",
        v2(b"", command=0x20, family=0),
        v2(command=0x20),
        v2(bytes(216), family=0x31),
        v2(b"", family=0),
    ],
)
def test_nobody_is_claimed(preamble: bytes) -> None:
    assert claims(Conversation().request(preamble + GET).response(OK)) == [(None, None, [])]


def test_a_wrong_checksum_is_marked_on_every_record_and_claims_nobody() -> None:
    c = (
        Conversation(**TRUSTED)
        .request(v2(checksum=1) + GET)
        .response(OK)
        .request(GET[:-2] + b"X-Real-IP: 192.0.2.77\r\n\r\n")
        .response(OK)
    )
    assert claims(c) == [(None, None, ["proxy_invalid"]), ("192.0.2.77:0", "x-real-ip", ["proxy_invalid"])]


def test_the_client_side_keeps_what_our_process_has_said() -> None:
    c = Conversation(role=abi.CLIENT).request(V1 + GET).response(OK)
    (r,) = c.records()
    assert (r["direction"], r["clientIp"], r["clientSource"], r["ip"]) == ("2", CLAIM, "proxy_v1", "10.0.0.1:80")


def test_a_preamble_goes_before_a_header() -> None:
    ask = GET[:-2] + b"X-Real-IP: 192.0.2.77\r\n\r\n"
    assert claims(Conversation(**TRUSTED).request(V1 + ask).response(OK)) == [(CLAIM, "proxy_v1", [])]
    assert claims(Conversation(**TRUSTED).request(ask).response(OK)) == [("192.0.2.77:0", "x-real-ip", [])]
    assert claims(Conversation().request(ask).response(OK)) == [(None, None, [])]
    assert claims(Conversation(trusted_networks="10.0.0.1/32").request(ask).response(OK)) == [(None, None, [])]


@pytest.mark.parametrize(
    ("header", "value", "claim"),
    [
        ("X-Forwarded-For", b"192.0.2.1, 192.0.2.2:99, 10.1.1.1", "192.0.2.2:99"),
        ("Forwarded", b'for=192.0.2.1, for="[2001:db8::7]:8080";proto=https, for=10.2.2.2', "[2001:db8::7]:8080"),
        ("Forwarded", b"for=192.0.2.1, for=unknown", None),
        ("CF-Connecting-IP", b"2001:db8::1", "[2001:db8::1]:0"),
        ("X-Real-IP", b"no address", None),
    ],
)
def test_the_header_is_chosen(header: str, value: bytes, claim: str | None) -> None:
    c = (
        Conversation(real_ip_header=header, **TRUSTED)
        .request(GET[:-2] + header.swapcase().encode() + b": " + value + b"\r\n\r\n")
        .response(OK)
    )
    assert [claimed for claimed, _source, _mark in claims(c)] == [claim]


def test_nowhere_but_at_the_beginning() -> None:
    c = Conversation().request(GET).response(OK).request(V1 + GET).response(OK)
    assert all(claim is None for claim, _source, _mark in claims(c))
    d = Conversation(start=abi.MID).request(V1).request(GET).response(OK)
    assert [claim for claim, _source, _mark in claims(d)] == [None]
    e = Conversation().request(V1 + V1 + GET).response(OK)  # a second one is what stands behind the first
    assert e.records() == [] or e.counters()["connections_not_http"] == 1


def test_the_server_does_not_claim() -> None:
    c = Conversation().request(GET).response(V1 + OK)
    assert all(claim is None for claim, _source, _mark in claims(c))


def test_what_answers_before_it_is_whole_and_what_is_lost_inside() -> None:
    c = Conversation().request(V1[:20]).response(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    assert all("clientIp" not in r for r in c.records())
    d = Conversation().request(V1[:20]).request(V1[20:], lose=True).request(GET).response(OK)
    (r,) = d.records()
    assert "clientIp" not in r and "joined_mid_stream" not in r["words"] and "pairing_uncertain" in r["words"]
    assert Conversation().request(V1[:20]).close().records() == []


def test_the_claim_survives_that_the_connection_is_given_up() -> None:
    pipe = pipeline(max_connections=1)
    c = Conversation(pipe).request(V1 + GET).response(OK)
    Conversation(pipe, conn=ident(7, 7)).request(GET).response(OK)
    take(pipe)
    assert claims(c.request(GET).response(OK)) == [(CLAIM, "proxy_v1", [])]


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.10 198.51.100.20 051000 443\r\n",
        b"PROXY TCP4  192.0.2.10 198.51.100.20 1 2\r\n",
        b"PROXY TCP4 192.0.2.10\r\n",
        b"PROXY TCP6 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.10 198.51.100.20 1 2 3\r\n",
    ],
)
@pytest.mark.parametrize("cut", [1, 6, 11, 12, 30])
def test_a_line_that_only_some_servers_accept_hides_nothing(line: bytes, cut: int) -> None:
    data = line + GET
    c = Conversation().request(data[:cut]).request(data[cut:]).response(OK)
    assert claims(c) == [(None, None, ["proxy_invalid"])]


def test_a_request_whose_method_is_proxy_is_one() -> None:
    c = Conversation().request(b"PROXY TCP4 HTTP/1.1\r\nHost: h\r\n\r\n").response(OK)
    (r,) = c.records()
    assert (r["method"], r["path"], r["words"] & {"proxy_invalid"}) == ("PROXY", "TCP4", set())


def vectors(corpora: Path) -> list[dict[str, Any]]:
    return list(json.loads((corpora / "proxy-protocol" / "vectors.json").read_text())["vectors"])


def test_every_vector_however_it_is_cut(corpora: Path) -> None:
    seen = 0
    for vector in vectors(corpora):
        expect, data = vector["expect"], bytes.fromhex(vector["bytes_hex"])
        if expect["result"] not in ("proxied", "local", "unknown") or not expect.get("header_len"):
            continue
        data = data[: expect["header_len"]] + GET
        for split in (0, *vector.get("splits", ())):
            c = Conversation()
            for piece in (data[:split], data[split:]):
                if piece:
                    c.request(piece)
            ((claim, source, mark),) = claims(c.response(OK))
            proxied = expect["result"] == "proxied" and expect.get("family", "").startswith("inet")
            source_text = expect["src"].replace("[::ffff:192.0.2.10]", "192.0.2.10") if proxied else None
            assert (claim, source) == (source_text, f"proxy_v{expect['version']}" if proxied else None), vector
            assert mark in ([], ["proxy_invalid"])
            seen += 1
    assert seen > 100


@given(
    st.sampled_from([V1, v2(), v2(checksum=0), b"PROXY UNKNOWN\r\n", v2(ENDS + b"\x04\0\x03abc")]),
    st.lists(st.integers(1, 60), max_size=12),
)
def test_the_same_records_however_the_bytes_are_cut(preamble: bytes, cuts: list[int]) -> None:
    data, whole = preamble + GET * 2, Conversation().request(preamble + GET * 2).response(OK * 2)
    c, at = Conversation(), 0
    for cut in [*cuts, len(data)]:
        if data[at : at + cut]:
            c.request(data[at : at + cut], step_ms=0)
        at += cut
    expected = [(r["path"], r.get("clientIp"), r["mark"], r["recordId"]) for r in whole.records()]
    assert [(r["path"], r.get("clientIp"), r["mark"], r["recordId"]) for r in c.response(OK * 2).records()] == expected


@given(
    st.sampled_from([b"P", b"PR", b"PRO", b"PROX", b"PROXY", b"\r\n\r\n", b"\r", b"PROXY "]),
    st.sampled_from(
        [
            b"OST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
            b"PFIND /a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"/x HTTP/1.1\r\nHost: h\r\n\r\n",
        ]
    ),
    st.integers(1, 40),
)
def test_what_only_begins_like_one_is_what_it_would_be_without_the_wait(start: bytes, rest: bytes, cut: int) -> None:
    data = start + rest
    whole, cut_up = Conversation().request(data).response(OK), Conversation().request(data[:cut])
    if data[cut:]:
        cut_up.request(data[cut:])
    kept = [
        [{name: r[name] for name in ("method", "path", "mark", "recordId", "requestHeaders")} for r in c.records()]
        for c in (whole, cut_up.response(OK))
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("behind", [b"\x16\x03\x01\x02\x00\x01", b"\x00\x00\x00\x08\x04\xd2\x16\x2f"])
def test_what_is_no_http_behind_it_is_left_out_and_not_copied(behind: bytes) -> None:
    words = array.array("Q", [0] * 4096)
    c = Conversation()
    c.pipe.use_unwanted(memoryview(words))
    c.request(V1 + behind).request(bytes(20_000)).response(bytes(20_000))
    counters = c.counters()
    assert (counters["connections_not_http"], counters["buffer_bytes"] < 1000) == (1, True)
    assert sum(word & 0xFFFFFFFFFFFF == 0xFFFFFFFFFFFF for word in words) == 2
    assert c.request(GET).response(OK).close().records() == []


def test_a_head_that_is_cut_claims_nobody() -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(70))
    ask = GET[:-2] + b"X-Forwarded-For: 6.6.6.6\r\n" + lines + b"X-Forwarded-For: 203.0.113.9\r\n\r\n"
    c = Conversation(real_ip_header="X-Forwarded-For", **TRUSTED).request(ask).response(OK)
    assert [(claim, "headers_cut" in mark) for claim, _source, mark in claims(c)] == [(None, True)]


def test_a_request_line_that_only_some_servers_take_hides_nothing_behind_a_preamble() -> None:
    c = (
        Conversation()
        .request(V1 + b"GET: / HTTP/1.1\r\nHost: h\r\n\r\n")
        .response(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
    )
    c.request(GET).response(OK)
    assert [r["path"] for r in c.records()][-1] == "/x"
