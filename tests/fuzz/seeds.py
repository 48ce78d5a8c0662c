"""First inputs for the fuzzer: `python -m tests.fuzz.seeds FOLDER`. Public test data (COLLECTOR_CORPORA, where it is
there) and a few of our own that enter each state once."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from collector import abi
from collector.loader import streams
from tests.corpus import cases
from tests.events import ident
from tests.fuzz.schema import PATH
from tests.fuzz.script import GROWS, LENGTHS, POLICIES, STEP
from tests.http2 import random_talk
from tests.websocket import random_chat

MOST = 6000  # bytes of a seed
SERVER, CLIENT, UNKNOWN = 8, 16, 0  # third byte: first connection's role
GET = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a.example\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n5;x=y\r\nefghi\r\n0\r\nT: 1\r\n\r\n"
FRAGMENTS = [
    b"GET / HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"\r\n",
    b"\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: x, chunked\r\n",
    b"5\r\nabcde\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"HEAD /h HTTP/1.0\r\n",
    b"HTTP/1.1 101 Up\r\n",
    b"Content-Encoding: gzip\r\n",
    b" folded\r\n",
    b"HTTP/1.1 100 C\r\n",
    b"X" * 200,
    b":\r\n",
    b"\x00",
    b"\xff\xfe",
]
LONG_HEAD = b"GET /long HTTP/1.1\r\n" + b"X-Long: " + b"z" * 2500 + b"\r\nHost: a\r\n\r\n"


def seed(
    *steps: tuple[str, int, bytes], kind: bytes = b"S", settings: int = 0, connection: int = SERVER, limits: int = 0
) -> bytes:
    """One input; see script.py."""
    return (
        kind
        + bytes((settings, connection, limits))
        + b"".join(STEP + verb.encode() + bytes((argument,)) + text.replace(STEP, b"\xf7") for verb, argument, text in steps)
    )


def long(direction: int, length: int, before: bytes, text: bytes, after: bytes) -> tuple[str, int, bytes]:
    """One event with `text` grown to `length` bytes."""
    return "Y", LENGTHS.index(length) << 1 | direction, before + GROWS + text + GROWS + after


def exchange(request: bytes, response: bytes) -> list[tuple[str, int, bytes]]:
    return [("I", 0, request), ("O", 0, response)]


def own() -> Iterator[bytes]:
    """Each state of framing.pyx, each verb, each setting."""
    json_body = b'{"name":"caf\xc3\xa9","list":[1,2,{"x":"\\u00e9"}],"deep":[[[[]]]]}'
    pairs = [
        (GET, OK),
        (POST + b"Content-Length: 5\r\n\r\nabcde", OK),
        (POST + CHUNKED, b"HTTP/1.1 200 OK\r\n" + CHUNKED),
        (GET, b"HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        (GET * 3, OK * 3),
        (GET, b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK),
        (
            b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
        ),
        (b"CONNECT a:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 Connected\r\n\r\n\x16\x03\x01"),
        (POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"),
        (LONG_HEAD, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 3000 + b"\r\nContent-Length: 1\r\n\r\nz"),
        (POST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(json_body) + json_body, OK),
        (POST + b"Content-Type: application/json\r\nContent-Length: 2800\r\n\r\n" + b"[" + json_body * 2, OK),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(json_body, mtime=0)),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n" + zlib.compress(json_body)),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Encoding: br, zstd, x, gzip, y\r\n\r\nzz"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd, zstd\r\n\r\n" + zstandard.compress(zstandard.compress(b"zz"))),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"\x01" * 9000, mtime=0) + b"behind"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; a=b; charset=iso-8859-1\r\n\r\ncaf\xe9"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 4\r\n\r\n\x89PNG"),
        (GET, b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nVary: x\r\nvary: y\r\n folded\r\n\r\n\xff\xfe"),
        (b'GET / HTTP/1.1\r\nCookie: a\r\nCookie: b\r\nX-\xe9: \xe9\r\nHost : b\r\nbad\r\nX-A: \x01"\\\r\n\r\n', OK),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: %d\r\n" % (n, n) for n in range(300)) + b"\r\n", OK),
        (b"not http at all\r\n\r\n", b"\x00\x01\x02"),
        (
            b"OPTIONS  *  HTTP/1.1 \r\nContent-Length: 3, 3\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\nabc\r\n0 \r\n\r\n",
            OK,
        ),
    ]
    for request, response in pairs:
        both = exchange(request, response)
        end = [("E", 1, b""), ("C", 0, b"")]
        for role in (SERVER, CLIENT, UNKNOWN):
            turned = [("O" if v == "I" else "I", a, t) for v, a, t in both] if role == CLIENT else both
            yield seed(*turned, *end, connection=role)
            if role != UNKNOWN:
                yield seed(*turned, *turned, kind=b"U", connection=role)
        yield seed(*both, *both, settings=128)
        yield seed(*[(v, 4, t) for v, _, t in both], *both)
        yield seed(*[(v, 0x27, t) for v, _, t in both], *both, ("T", 0x8A, b""))  # the second piece is lost
    yield seed(("I", 0, POST + b"Content-Length: 256\r\n\r\n"), ("Y", 6 << 1, b'ab"\xc3\xa9'), ("O", 0, OK))
    for number, size in enumerate((256, 384, 577, 2048, 2049)):
        yield seed(
            ("I", 0, POST + b"Content-Length: %d\r\n\r\n" % size + b"0123456789abcde\xe9" * 40),
            ("O", 0, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size),
            ("Y", (7, 10, 11, 14, 15)[number] << 1 | 1, b"text"),
            ("C", 0, b""),
        )
    yield seed(("I", 0, POST + b"Content-Length: 1000\r\n\r\nabc"), ("Z", 12 << 1, b""), ("O", 0, OK), *exchange(GET, OK))
    yield seed(("I", 0, POST + b"Content-Length: 1000\r\n\r\nabc"), ("i", 5, b""), ("O", 0, OK), *exchange(GET, OK))
    yield seed(("I", 0, POST + b"Content-Length: 10\r\n\r\n"), ("F", 6, b"abc"), ("O", 0, OK), *exchange(GET, OK))
    yield seed(*exchange(GET, OK), ("V", 0x40, GET), *exchange(GET, OK))
    both = exchange(GET, OK)
    yield seed(("w", 1, b""), *both, ("T", 0x86, b""), *both, ("w", 8, b""), *both, ("C", 0, b""))  # late
    yield seed(("w", 1, b""), *both, ("C", 0, b""), ("w", 8, b""), ("q", 0xC1, b""))
    yield seed(("w", 16, b""), *both, ("q", 0xC0, b""), ("I", 0, GET), ("w", 2, b""), ("O", 0, OK), ("w", 24, b""), *both)
    yield seed(("I", 0, GET), ("r", 7, b""), ("O", 0, OK), ("r", 5, b""))  # more than MAX_QUEUED
    yield seed(("I", 0, GET), ("T", 0x87, b""), ("T", 0x8A, b""), ("O", 0, OK), *exchange(GET, OK))
    yield seed(("O", 0, OK), ("T", 0x87, b""), ("I", 0, GET), connection=CLIENT)  # parked
    yield seed(("I", 0, OK), ("O", 0, GET), connection=CLIENT)
    yield seed(("I", 0, OK), ("T", 0x87, b""), ("O", 0, GET), ("I", 0, OK), connection=CLIENT)
    yield seed(("I", 0, OK[:20]), ("O", 0, GET), ("E", 0, b""), connection=CLIENT)
    yield seed(("I", 0, GET[:20]), ("O", 0, OK), *exchange(GET, OK))  # answered before its head was whole
    big = POST + b"Content-Length: 2048\r\n\r\n" + b"z" * 700
    many = [step for n in range(8) for step in (("c", SERVER | n, b""), ("I", 0, big))]
    yield seed(*many)
    yield seed(*many, limits=12)
    yield seed(*many, ("B", 2, b""), ("X", 0, b""), *exchange(GET, OK), settings=64)
    for start in range(4):
        for settings in (0, 2, 4, 8, 16, 32):
            pair = exchange(GET, OK)
            yield seed(
                *pair,
                ("A", 1 | settings << 1, b""),
                *pair,
                ("g", 1, b""),
                *pair,
                ("C", 7 * (start & 1), b""),
                settings=settings,
                connection=SERVER | start << 5,
                limits=16 * (start % 3),
            )
    for host in (b"169.254.169.254", b"[::1]:80", b"a.example", b""):
        for limits in (0, 16, 32):
            get = b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nX-A: 2\r\nx-a: 0\r\nx-envoy-peer-metadata-id: y\r\n\r\n"
            yield seed(*exchange(get, OK), settings=4, limits=limits)
            yield seed(*exchange(get, OK), limits=limits)
    yield seed(*exchange(OK, GET), connection=CLIENT, settings=8)
    # limits: fields of a head, bytes of a head that comes whole, of a chunk's line, of queue, table and nesting
    fields = b"GET /f HTTP/1.1\r\nHost: a\r\n"
    for limits in (0, 16):
        yield seed(long(0, 4096, fields, b"a:b\r\n", b"Content-Length: 1\r\n\r\nz"), ("O", 0, OK), limits=limits)
    for size in (577, 20_000, 70_000):
        yield seed(long(0, size, fields + b"X: ", b"y", b"\r\n\r\n"), ("O", 0, OK), *exchange(GET, OK))
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n4;"
        yield seed(long(0, size, chunked, b"y", b"\r\nabcd\r\n0\r\n\r\n"), ("O", 0, OK))
    for size in (2047, 4095, 4096):
        yield seed(
            ("I", 0, POST + b"Transfer-Encoding: chunked\r\n\r\n4"),
            long(0, 2047, b";", b"y", b""),
            long(0, size, b"", b"y", b"\r\nabcd\r\n0\r\n\r\n"),
            ("O", 0, OK),
            *exchange(GET, OK),
        )
        yield seed(
            ("I", 0, POST + b"Transfer-Encoding: chunked\r\n\r\n4"),
            long(0, size, b";", b"y", b""),
            ("I", 0, b"yyy\r\nabcd\r\n0\r\n\r\n"),
            ("O", 0, OK),
            *exchange(GET, OK),
        )
    for preamble in (
        b"PROXY TCP4 192.0.2.10 198.51.100.20 51000 443\r\n",
        b"PROXY UNKNOWN x\r\n",
        b"PROXY TCP4 bad\r\n",
        b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c\xc0\0\x02\x0a\xc6\x33\x64\x14\xc7\x38\x01\xbb",
        b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x13\xc0\0\x02\x0a\xc6\x33\x64\x14\xc7\x38\x01\xbb\x03\0\x04abcd",
    ):
        for cut in (0, 3, 5):
            yield seed(("I", cut, preamble + GET), ("O", 0, OK), *exchange(GET, OK))
        yield seed(("I", 0, preamble), ("L", 0x1D, b""), *exchange(GET, OK), ("C", 0, b""))
        yield seed(("I", 0, preamble[:20]), ("i", 3, b""), *exchange(GET, OK), ("O", 0, OK))
    yield seed(("I", 0, GET[:-2] + b"X-Forwarded-For: 1.2.3.4, 10.0.0.9\r\n\r\n"), ("O", 0, OK))
    yield seed(("L", 0x1D, b""), ("b", 0x1A, b""), *exchange(GET, OK), ("c", 2, b""), *exchange(GET, OK), ("C", 0, b""))
    yield seed(
        ("c", 2, b""),
        *exchange(GET, OK),
        ("c", 0, b""),
        ("L", 0x1D, b""),
        ("b", 0x1A, b""),
        *exchange(GET, OK),
        ("c", 3, b""),
        ("L", 5, b""),
        ("b", 0x0A, b""),
        *exchange(GET, OK),
        ("X", 0, b""),
    )
    told = [("l", 1, b"openssl-3.0.22"), ("t", 0x0B, b"h2api.example")]
    for last in (("b", 0x1A, b""), ("T", 0x84, b""), ("C", 0, b""), ("A", 0x09, b""), ("c", 1, b"")):
        # an object whose socket is not known, until something ends the waiting
        for settings in (0, 32):
            yield seed(
                ("n", 0, b""),
                ("L", 0x0D, b""),
                *told,
                *exchange(GET, OK),
                ("T", 0x83, b""),
                *exchange(GET, OK),
                last,
                ("t", 0x12, b"\x00\x01" + b"x" * 80),
                *exchange(GET, OK),
                connection=128,
                settings=settings,
                limits=4,
            )
    yield seed(("I", 0, GET), ("O", 0, b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x05hello"), *exchange(GET, OK))
    yield seed(("B", 255, b""), ("I", 0, GET), ("r", 7, b""), *exchange(GET, OK))
    yield seed(("h", 0, b""), *exchange(GET, OK), ("h", 255, b""), *exchange(GET, OK), ("h", 0, b""), *exchange(GET, OK) * 2)
    yield seed(("I", 0, GET), ("h", 0, b""), ("O", 0, OK[:30]), ("T", 200, b""), ("O", 0, OK[30:]), *exchange(GET, OK))
    secret = (
        b'{"password": "a", "x": {"y": "4111 1111 1111 1111", '
        b'"z": "pass\\u0077ord=b %70in%3D1 ZXlKaGJHY2lPaUpJVXpJMU5pSjk="}}'
    )
    marked = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"
    failed = b"HTTP/1.1 500 No token=abc\r\nSet-Cookie: a=b; Path=/\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"
    for policy in range(len(POLICIES)):
        ask = (
            b"POST /x/1234?password=a&q=eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.abc HTTP/1.1\r\nHost: h\r\n"
            b"Authorization: Basic YTpi\r\nCookie: a=b; c\r\nX-Id: 7\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(secret)
        ) + secret
        form = ask.replace(b"application/json", b"application/x-www-form-urlencoded")
        for number in (policy, policy | 128):
            yield seed(
                ("p", number, b""),
                *exchange(ask, OK),
                *exchange(form, failed) * 3,
                *exchange(GET, OK) * 12,
                *(step for one in (b"/a", b"/b", b"/c", b"/d") for step in exchange(GET.replace(b"/x", one), OK)),
                ("I", 0, ask[:200]),
                ("p", number + 1, b""),
                ("I", 0, ask[200:]),
                ("O", 0, marked),
                ("p", number, b""),
                ("I", 0, GET),
                ("T", 11, b""),
            )
    for limits in (0, 12):
        yield seed(("M", 5, GET), ("M", 128 | 3, GET), ("X", 0, b""), limits=limits)
    json_head = POST + b"Content-Type: application/json\r\nContent-Length: 4096\r\n\r\n"
    for text in (b"[", b'[{"a":', b"\xc3\xa9", b'["\xf0\x9f\x98\x80",', b'{"k":true,'):
        for before in (b"", b"[", b'[1,"'):
            yield seed(("I", 0, json_head), long(0, 4096, before, text, b""), ("O", 0, OK))
    for length in (8191, 20_000):
        sized = b"Content-Length: %d\r\n\r\n" % length
        yield seed(
            ("I", 0, POST + sized),
            long(0, length, b"", b"ab\xe9c", b""),
            ("O", 0, b"HTTP/1.1 200 OK\r\n" + sized),
            long(1, length, b"", b'{"x":1}', b""),
            limits=64,
        )
    for limits in (48, 48 | 64):  # of a connection, of a minute; in slots
        yield seed(*many, *exchange(GET, OK), *many, limits=limits, settings=64 | 2)
        yield seed(("I", 0, POST + sized), long(0, 20_000, b"", b"ab", b""), ("I", 0, GET), ("r", 3, b""), limits=limits)
        yield seed(*(exchange(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"\x01" * 1000) * 9), limits=limits)
    yield seed(*([*exchange(GET, OK), ("K", 1, b"")] * 4), ("K", 0, b""), *(exchange(LONG_HEAD, OK) * 4), settings=64)
    up = b"GET /ws HTTP/1.1\r\nUpgrade: x\r\n\r\n" + POST + b"Content-Length: 9\r\n\r\nabc"
    yield seed(*exchange(up, b"HTTP/1.1 101 Up\r\n\r\n"), *exchange(GET, OK))
    for media in (
        b"image/svg+xml",
        b"audio/x",
        b"font/woff",
        b"application/octet-stream",
        b"application/zip",
        b"application/x",
        b"text/x; charset=utf-8",
        b"text/x;charset=US-ASCII",
        b"text/x;charset=utf-16",
        b"text/x; charset=zz",
    ):
        yield seed(*exchange(GET, b"HTTP/1.1 200 OK\r\nContent-Type: " + media + b"\r\n\r\n\xff\xfea\0"))
    yield seed(("I", 0, OK), ("T", 0x85, b""), ("T", 0x87, b""), ("O", 0, GET), connection=CLIENT)
    yield seed(("I", 0, POST), ("O", 0, OK), ("T", 0x40, b""), *exchange(GET, OK), ("I", 0, GET), limits=128)
    yield seed(("c", 128 | 1, b""), ("H", 48, b"\x01" + GET), ("P", 0x80, b""), *exchange(GET, OK))
    yield seed(*exchange(GET, OK), ("A", 1 | 5 << 4, b""), *exchange(GET, OK), settings=16)
    yield seed(*exchange(b"GET / HTTP/1.1\r\nX: " + b"\x01" * 1500 + b"\r\n\r\n", OK), limits=1)
    yield seed(*exchange(GET, OK), ("C", 0, b""), connection=SERVER | abi.UNCONFIRMED << 5)
    yield seed(*exchange(GET, OK), connection=SERVER | 128)  # joined by its data
    yield seed(("H", 53, b"\x02" + GET), ("D", 0, GET), ("S", 1, b""), *exchange(GET, OK), ("K", 0, b""))
    yield seed(("I", 0, POST + b"Content-Length: 2048\r\n\r\n"), ("Y", 14 << 1, b"\x01\xc3\xa9"), ("O", 0, OK), limits=1)
    for turn in range(4):
        yield seed(*[("IO"[n * (turn + 1) // 3 & 1], turn, text[:200]) for n, text in enumerate(FRAGMENTS)])
    for length in (0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64, 100):
        for tail in (b"", b'"', b"\\", b"\x01", b"\n", b"\xc3\xa9", b"\xff", b"\xe2\x82"):
            yield b"T\0\0\0" + b"x" * length + tail + b"y" * (length % 7)
    escapes = b'[1, -2.5e+3, true, {"a\\u00e9": "\\ud83d\\ude00", "": [null]}]'
    for plain in (json_body, GET, OK, escapes, LONG_HEAD, span_of_all()):
        yield b"T\0\0\0" + plain
    yield b"R\0\x08\0" + span_of_all()
    conn = ident(100, 5)
    yield b"R\0\x88\0" + abi.pack_data(conn, 0, 7, GET, len_true=100) + abi.pack_open(conn, type=abi.ADDRESS)
    yield from described()


def span_of_all() -> bytes:
    """One event of each kind."""
    return (
        abi.pack_open(ident(1, 2))
        + abi.pack_data(ident(1, 2), 0, 0, GET)
        + abi.pack_data(ident(1, 2), 1, 0, OK)
        + abi.pack_eof(ident(1, 2), 0, len(GET))
        + abi.pack_close(ident(1, 2), final_in=len(GET), final_out=50)
        + abi.pack_process(1, b"name")
        + abi.pack_library(1, b"openssl-3.0.22")
        + abi.pack_tls(ident(1, 2), version=0x0304, library=1, alpn=b"h2", sni=b"a")
        + abi.pack_exit(1)
    )


def of_streams(path: Path) -> bytes:
    """A recorded conversation, as far as it fits."""
    numbers: dict[tuple[int, int, int], int] = {}
    positions: dict[tuple[int, int, int, int], int] = {}
    out: list[tuple[str, int, bytes]] = []
    size = 0
    for event in streams.StreamsFile(str(path)).events(1, streams.BASE_NS):
        for e in abi.walk(event.record):
            conn = e["conn"]
            number = numbers.setdefault(conn, len(numbers) % 8)
            seen = e["type"] == abi.OPEN and e["start"] == abi.SEEN
            out.append(("c", number | SERVER | (abi.SEEN if seen else abi.MID) << 5, b""))
            if e["type"] == abi.DATA:
                if positions.get((*conn, e["dir"]), e["pos"]) != e["pos"]:
                    out.append(("io"[e["dir"]], 6, b""))
                positions[(*conn, e["dir"])] = e["pos"] + e["len_true"]
                data = e.get("data", b"")[:1500]
                out.append(("IO"[e["dir"]], 0, data))
                size += len(data)
            elif e["type"] == abi.EOF:
                out.append(("E", e["dir"], b""))
            elif e["type"] == abi.CLOSE:
                out.append(("C", 0, b""))
        if size > MOST:
            break
    return seed(*out)


def websocket() -> Iterator[bytes]:
    """Chats of another implementation: whole, in two cuts, with a call lost here and there; handshakes of all extensions."""
    for number in range(12):
        steps = [("IO"[side], 0, data) for side, data in random_chat(number, 6).calls]
        yield seed(*steps)
        yield seed(*steps, kind=b"U")
        yield seed(*[(verb, 0x1B if n % 5 == 4 else 0, data) for n, (verb, _, data) in enumerate(steps)])
    up = b"Upgrade: websocket\r\nConnection: upgrade\r\n"
    for extension in (b"", b"permessage-deflate", b"permessage-deflate;server_no_context_takeover", b"x-other"):
        head = b"HTTP/1.1 101 Up\r\n" + up + b"Sec-WebSocket-Extensions: " + extension + b"\r\n\r\n"
        steps = [("I", 0, b"GET /w HTTP/1.1\r\nHost: a\r\n" + up + b"\r\n"), ("O", 0, head)]
        packed = zlib.compress(b"hi", wbits=-15) + b"\0"
        frames = b"\x81\x02hi" + bytes((0xC1, len(packed))) + packed + b"\x82\x7e\x00\x80" + bytes(128) + b"\x88\x00"
        yield seed(*steps, ("O", 0, frames), ("T", 3, b""), ("I", 3, frames))


def parts() -> Iterator[bytes]:
    """Streams that are recorded in parts."""
    for media, body in (
        (b"text/event-stream", b"data: a\n\ndata: b\r\n\r\nda"),
        (b"application/x-ndjson", b'{"a":1}\n{"b":'),
        (b"application/grpc", b"\0\0\0\0\3abc\0\0\0\0\0\0\0\0\1\0xy"),
    ):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: " + media + b"\r\n\r\n"
        steps: list[tuple[str, int, bytes]] = [("I", 0, GET), ("O", 0, head)]
        for n in range(3):
            steps += [("O", n, body), ("T", 3, b""), ("O", 0x1B if n == 1 else 0, body * 3)]
        yield seed(*steps)
        yield seed(*steps, settings=3)


def http2() -> Iterator[bytes]:
    """Conversations of another implementation: whole, with an event lost here and there, from the middle on."""
    for number in range(12):
        talk = random_talk(number, 16)
        steps = [("IO"[side], 0, data) for side, data in talk.events]
        yield seed(*steps)
        yield seed(*steps, kind=b"U")
        yield seed(*steps[len(steps) // 2 :], connection=UNKNOWN)
        lossy = [(verb, 0x1B if n % 5 == 4 else side, data) for n, (verb, side, data) in enumerate(steps)]
        yield seed(*lossy)
    for media in (b"grpc", b"grpc-web", b"grpc-web-text", b"connect+proto"):
        body = b"\0\0\0\0\3abc\0\0\0\0\0" + b"\1\0\0\0\x17" + gzip.compress(b"abc", mtime=0)
        if media.endswith(b"text"):
            body = base64.b64encode(body) + base64.b64encode(b"\x80\0\0\0\1x")
        head = b"Content-Type: application/%s\r\ngrpc-encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (media, len(body))
        steps = exchange(POST + head + body, b"HTTP/1.1 200 OK\r\n" + head + body)
        yield seed(*steps)
        yield seed(*steps, kind=b"U")


def described() -> Iterator[bytes]:
    """Messages of a method that is known, and of one that is not."""
    for path, media in ((PATH, b"grpc"), (PATH, b"proto"), (b"/a.B/C", b"proto")):
        # a text, a message in a message, values in a row; then one that is cut off
        message = b"\x0a\3abc\x2a\5\x0a\1a\x18\2" + b"\xba\1\3\1\2\3" + b"\x3a\2\x08\1" + b"\x42\2\x1a\0"
        messages = b"".join(b"\0" + len(one).to_bytes(4) + one for one in (message, message[:-1]))
        body = messages if media == b"grpc" else message
        head = b"Content-Type: application/%s\r\nContent-Length: %d\r\n\r\n" % (media, len(body))
        steps = exchange(b"POST %s HTTP/1.1\r\nHost: a\r\n" % path + head + body, b"HTTP/1.1 200 OK\r\n" + head + body)
        yield seed(*steps)
        yield seed(*steps, kind=b"U")


def public(corpora: Path) -> Iterator[bytes]:
    """libhtp's conversations, gunicorn's and llhttp's requests, each also in cuts."""
    for path in sorted(corpora.glob("libhtp/files/*.streams.jsonl")):
        yield of_streams(path)
    if not corpora.is_dir():
        return
    for path in sorted((corpora / "nghttp2-h2spec" / "seeds").iterdir()):
        yield seed(("I", 0, path.read_bytes()[:MOST]))
    for case in (*cases.gunicorn(corpora), *cases.llhttp(corpora)):
        ((_, data),) = case.chunks
        steps = exchange(data[:MOST], OK)
        yield seed(*steps)
        yield seed(*steps, kind=b"U")


def main(folder: Path) -> None:
    """Write them, each under its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    where = os.environ.get("COLLECTOR_CORPORA") or Path(__file__).resolve().parents[3] / "shared" / "corpora"
    inputs = {*own(), *http2(), *websocket(), *parts(), *public(Path(where))}
    for data in inputs:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    sys.stdout.write(f"{len(inputs)} seeds\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
