"""Synthetic raw events: realistic exchanges on interleaved keep-alive connections, as the kernel would put them."""

from __future__ import annotations

import gzip
import json
import random

from collector import abi

CONNECTIONS, EXCHANGES_EACH = 64, 10
CHUNK = 16384

_REQUEST_HEADERS = (
    "Host: api.shop.example.com",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
    "Accept: application/json, text/plain, */*",
    "Accept-Encoding: gzip, deflate, br",
    "Accept-Language: en-US,en;q=0.9",
    "Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "X-Request-Id: 7f8d5c1a-3b2e-4f6a-9c8d-1e2f3a4b5c6d",
    "Content-Type: application/json",
    "Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; consent=yes",
)
_RESPONSE_HEADERS = (
    "Server: nginx/1.24.0",
    "Date: Sun, 22 Nov 2026 10:00:00 GMT",
    "Content-Type: application/json",
    "Cache-Control: no-store",
    "X-Request-Id: 7f8d5c1a-3b2e-4f6a-9c8d-1e2f3a4b5c6d",
    "Vary: Accept-Encoding",
    "Strict-Transport-Security: max-age=31536000; includeSubDomains",
    "X-Content-Type-Options: nosniff",
    "Set-Cookie: session=8f14e45fceea167a5a36dedd4bea2543; Path=/; HttpOnly; Secure; SameSite=Lax",
)


def json_body(size: int, rng: random.Random) -> bytes:
    """A JSON object of exactly ``size`` bytes (at least 2), strings and numbers as APIs have them."""
    head, tail = '{"items": [', '], "pad": ""}'
    items: list[str] = []
    length = len(head) + len(tail)
    while True:
        item = json.dumps(
            {
                "id": rng.randrange(10**6),
                "name": f"item {rng.randrange(1000)}",
                "price": round(rng.random() * 100, 2),
                "tags": ["new", "sale"],
                "active": rng.random() < 0.5,
            }
        )
        if length + len(item) + 2 > size:
            break
        items.append(item)
        length += len(item) + (2 if len(items) > 1 else 0)
    text = head + ", ".join(items) + tail
    if len(text) > size:
        return b"{" + b" " * (size - 2) + b"}" if size >= 2 else b""
    return (text[:-2] + "x" * (size - len(text)) + text[-2:]).encode()


def request(size: int, rng: random.Random) -> bytes:
    """One request with ten headers and a body of ``size`` bytes."""
    body = json_body(size, rng) if size else b""
    head = [
        f"POST /v1/orders/{rng.randrange(10**6)}/items?expand=customer&page={rng.randrange(50)} HTTP/1.1",
        *_REQUEST_HEADERS,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def response(size: int, rng: random.Random, *, zipped: bool = False) -> bytes:
    """One response with ten headers and a body of ``size`` bytes (before gzip)."""
    body = json_body(size, rng) if size else b""
    extra = []
    if zipped:
        body = gzip.compress(body, 6)
        extra = ["Content-Encoding: gzip"]
    head = [
        "HTTP/1.1 200 OK",
        *(_RESPONSE_HEADERS[:-1] if zipped else _RESPONSE_HEADERS),
        *extra,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _data(conn: tuple[int, int, int], direction: int, pos: int, data: bytes, ts: int) -> bytes:
    out = b""
    for at in range(0, len(data), CHUNK):
        out += abi.pack_data(conn, direction, pos + at, data[at : at + CHUNK], ts_ns=ts)
    return out


def round_of(
    number: int,
    size: int,
    *,
    zipped: bool = False,
    connections: int = CONNECTIONS,
    exchanges: int = EXCHANGES_EACH,
    close: bool = True,
) -> list[bytes]:
    """One round: ``connections`` connections with ``exchanges`` exchanges each, interleaved; a list of pieces that
    each fit any ring. ``number`` distinguishes rounds (it becomes a part of the identities)."""
    rng = random.Random(number)
    pieces: list[bytes] = []
    conns = [((number + 1) * connections + i << 12, 1000 + i % 8, 10 + i // 8) for i in range(connections)]
    positions = [[0, 0] for _ in conns]
    ts = 1_000_000_000 + number * 1_000_000_000
    for i, conn in enumerate(conns):
        pieces.append(abi.pack_open(conn, ts_ns=ts, local=("10.0.0.1", 8080), remote=("10.0.0.2", 20000 + i)))
    for _ in range(exchanges):
        for direction in (abi.IN, abi.OUT):
            for i, conn in enumerate(conns):
                ts += 1000
                data = request(size, rng) if direction == abi.IN else response(size, rng, zipped=zipped)
                pieces.append(_data(conn, direction, positions[i][direction], data, ts))
                positions[i][direction] += len(data)
    if close:
        for i, conn in enumerate(conns):
            pieces.append(abi.pack_close(conn, ts_ns=ts, final_in=positions[i][0], final_out=positions[i][1]))
    return pieces


def http2_round_of(
    number: int, size: int, *, connections: int = CONNECTIONS, exchanges: int = EXCHANGES_EACH
) -> list[bytes]:
    """As round_of, the same exchanges as streams of HTTP/2, by another implementation (h2). Each message is one event."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection

    rng = random.Random(number)
    conns = [((number + 1) * connections + i << 12, 1000 + i % 8, 10 + i // 8) for i in range(connections)]
    positions = [[0, 0] for _ in conns]
    ts = 1_000_000_000 + number * 1_000_000_000
    pieces = [
        abi.pack_open(c, ts_ns=ts, local=("10.0.0.1", 8080), remote=("10.0.0.2", 20000 + i)) for i, c in enumerate(conns)
    ]
    ends = [[H2Connection(H2Configuration(client_side=side, header_encoding=None)) for side in (True, False)] for _ in conns]

    def say(i: int, direction: int) -> None:
        nonlocal ts
        ts += 1000
        data = ends[i][direction].data_to_send()
        if data:
            ends[i][1 - direction].receive_data(data)
            pieces.append(_data(conns[i], direction, positions[i][direction], data, ts))
            positions[i][direction] += len(data)

    for i, both in enumerate(ends):
        for end in both:
            end.initiate_connection()
        for direction in (abi.IN, abi.OUT, abi.IN, abi.OUT):
            say(i, direction)
    for _ in range(exchanges):
        streams = []
        for i, (client, _server) in enumerate(ends):
            streams.append(client.get_next_available_stream_id())
            body = json_body(size, rng) if size else b""
            path = f"/v1/orders/{rng.randrange(10**6)}/items?expand=customer&page={rng.randrange(50)}"
            pseudo = [(":method", "POST"), (":scheme", "https"), (":path", path)]
            client.send_headers(streams[i], [*pseudo, *_fields(_REQUEST_HEADERS, len(body))])
            client.send_data(streams[i], body, end_stream=True)
            say(i, abi.IN)
        for i, (client, server) in enumerate(ends):
            body = json_body(size, rng) if size else b""
            server.send_headers(streams[i], [(":status", "200"), *_fields(_RESPONSE_HEADERS, len(body))])
            server.send_data(streams[i], body, end_stream=True)
            say(i, abi.OUT)
            for end in (client, server):  # the windows, which go out with what comes next
                end.increment_flow_control_window(max(size, 1))
    for i, conn in enumerate(conns):
        pieces.append(abi.pack_close(conn, ts_ns=ts, final_in=positions[i][0], final_out=positions[i][1]))
    return pieces


def _fields(lines: tuple[str, ...], length: int) -> list[tuple[str, str]]:
    """Header lines as HTTP/2 has them."""
    pairs = [line.partition(": ")[::2] for line in lines]
    named = [(":authority" if name == "Host" else name.lower(), value) for name, value in pairs]
    return sorted(named, key=lambda pair: pair[0] != ":authority") + [("content-length", str(length))]
