"""scripts/bench websocket: the shard's path of WebSocket messages alone: CPU time of a frame, each in an event of its own.

scripts/bench websocket --size 100              us of CPU time, the least of several runs
scripts/bench websocket --size 100 --deflate    with permessage-deflate and context takeover
"""

from __future__ import annotations

import argparse
import json
import random
import time
import zlib

from collector import abi
from tests.bench.core import feed, pipeline
from tests.bench.traffic import json_body

CONNECTIONS, FRAMES = 40, 1024  # each connection makes four records
MASK = b"\x37\xfa\x21\x3d"
ASK = (
    b"GET /room HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


def frame(data: bytes, *, masked: bool, packed: bool) -> bytes:
    """One frame, a whole message of less than 64 KiB."""
    first = 0xC1 if packed else 0x81
    length = bytes([len(data) | masked << 7]) if len(data) < 126 else bytes([126 | masked << 7]) + len(data).to_bytes(2)
    if masked:
        data = MASK + bytes(byte ^ MASK[i & 3] for i, byte in enumerate(data))
    return bytes([first]) + length + data


def spans(size: int, *, deflate: bool) -> tuple[list[bytes], list[bytes]]:
    """(handshakes, frames of both directions in turn), as the loader sends them."""
    rng = random.Random(size)
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else b""
    conns = [(i + 1 << 12, 1000 + i % 8, 10 + i // 8) for i in range(CONNECTIONS)]
    opened = []
    ts = 1_000_000_000
    for i, conn in enumerate(conns):
        opened += [
            abi.pack_open(conn, ts_ns=ts, local=("10.0.0.1", 8080), remote=("10.0.0.2", 20000 + i)),
            abi.pack_data(conn, 0, 0, ASK, ts_ns=ts),
            abi.pack_data(conn, 1, 0, ANSWER + extension + b"\r\n", ts_ns=ts),
        ]
    position = [[len(ASK), len(ANSWER + extension) + 2] for _ in conns]
    packers = [[zlib.compressobj(wbits=-15) for _ in range(2)] for _ in conns]
    out, current = [], bytearray()
    for n in range(FRAMES):
        for i, conn in enumerate(conns):
            side = n & 1
            data = json_body(size, rng)
            if deflate:
                packer = packers[i][side]
                data = (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
            wire = frame(data, masked=side == 0, packed=deflate)
            ts += 1000
            current += abi.pack_data(conn, side, position[i][side], wire, ts_ns=ts)
            position[i][side] += len(wire)
            if len(current) > 128 * 1024:
                out.append(bytes(current))
                current.clear()
    out.append(bytes(current))
    return [b"".join(opened)], out


def main(arguments: list[str]) -> None:
    """Entry of `scripts/bench websocket`."""
    parser = argparse.ArgumentParser(prog="scripts/bench websocket", description=__doc__)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(arguments)
    opened, frames = spans(options.size, deflate=options.deflate)
    best = []
    for _ in range(options.runs):
        pipe = pipeline()
        feed(pipe, opened)
        before = pipe.statistics()["buffer_bytes"]
        started = time.process_time()
        feed(pipe, frames)
        best.append((time.process_time() - started) / (CONNECTIONS * FRAMES) * 1e6)
        held = (pipe.statistics()["buffer_bytes"] - before) / CONNECTIONS
        assert pipe.statistics()["records_marked"] == 0 and pipe.statistics()["skipped_bytes"] == 0
    print(
        json.dumps(
            {
                "size": options.size,
                "deflate": options.deflate,
                "us_per_frame": round(min(best), 3),
                "all": [round(b, 3) for b in sorted(best)],
                "held_bytes_per_connection": round(held),
            }
        )
    )
