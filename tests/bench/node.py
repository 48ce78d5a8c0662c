"""The kernel's place in `scripts/bench day`: the events of a node over hours of event time, into memfd rings. Run as a
process of its own.

argv: JSON {fds, ring_bytes, hours, rate, hour_seconds}; an hour lasts so long at least. Prints `hour N` for each part of an
hour (N has a fraction), and what it made at the end.
"""

from __future__ import annotations

import gzip
import heapq
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator

from collector import abi
from collector.loader.ringbuffer import Ring
from collector.router import partition
from tests.bench import traffic

SECOND = 1_000_000_000
PARTS = 16  # of an hour
LOST_SHARE = 0.0005  # of events: holes
PROCESS_SECONDS = 1800  # then another process serves
SOURCE_SYSCALL, SOURCE_OPENSSL = 0, 1
# In the first half hour so many connections are left behind besides. Each that gives way is remembered in a table of fixed
# size (shards/state.pxd GHOSTS), whose pages are there when they are touched: afterwards all are.
FLOOD, FLOOD_SECONDS = 9000, 1800
PREAMBLE = b"PROXY TCP4 192.0.2.10 198.51.100.20 51000 443\r\n"
LOCAL = ("10.0.0.1", 443)

_rng = random.Random(24)


def _messages() -> list[tuple[bytes, bytes]]:
    """Requests and answers of all kinds; bodies from nothing to 200 KB."""
    out = [(traffic.request(size, _rng), traffic.response(size, _rng)) for size in (0, 0, 0, 200, 200, 1024, 1024, 4096)]
    out += [(traffic.request(0, _rng), traffic.response(size, _rng, zipped=True)) for size in (1024, 8192, 65536)]
    out.append((traffic.request(100_000, _rng), traffic.response(0, _rng)))
    out.append((traffic.request(0, _rng), traffic.response(200_000, _rng)))
    piece = traffic.json_body(3000, _rng)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for _ in range(5)) + b"0\r\n\r\n"
    out.append((traffic.request(0, _rng), head + b"\r\n" + chunked))
    zipped = gzip.compress(piece)
    out.append(
        (traffic.request(0, _rng), head + b"Content-Encoding: gzip\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(zipped), zipped))
    )
    return out


MESSAGES = _messages()
COMMON = len(MESSAGES) - 5


class Connection:
    """One connection: ``step(now)`` makes its next events; the time of the next step, or None when it is over."""

    def __init__(self, number: int, now: int, kind: str = "") -> None:
        self.kind = kind or _rng.choices(("short", "kept", "abandoned", "reset"), (70, 22, 3, 5))[0]
        self.tls = _rng.random() < 0.3
        self.proxied = _rng.random() < 0.1
        self.source = SOURCE_OPENSSL if self.tls else SOURCE_SYSCALL
        process = 1000 + now // SECOND // PROCESS_SECONDS * 4 + number % 4
        self.conn = (number << 4, process, -1 if self.tls else 10 + number % 1000)
        self.remote = ("10.0.0.2", 1024 + number % 60000)
        self.left = {"short": _rng.randrange(1, 6), "kept": _rng.randrange(10, 60)}.get(self.kind, _rng.randrange(1, 4))
        self.opened = False
        self.positions = [0, 0]

    def step(self, now: int) -> tuple[list[bytes], int, int | None]:
        """(events, exchanges, when it goes on)."""
        out: list[bytes] = []
        if not self.opened:
            self._open(out, now)
        if not self.left:
            reason = {"final_in": self.positions[0], "final_out": self.positions[1]}
            out.append(abi.pack_close(self.conn, ts_ns=now, source=self.source, **reason))
            return out, 0, None
        ask, answer = MESSAGES[_rng.randrange(COMMON) if _rng.random() < 0.97 else _rng.randrange(len(MESSAGES))]
        if self.proxied and not self.positions[0]:
            ask = PREAMBLE + ask
        self.left -= 1
        self._data(out, abi.IN, ask, now)
        if not self.left and self.kind in ("abandoned", "reset"):
            if self.kind == "abandoned":  # half an answer, and nobody says that it is over
                self._data(out, abi.OUT, answer[: len(answer) // 2], now)
                return out, 1, None
            return out, 1, now + SECOND
        self._data(out, abi.OUT, answer, now + 20_000_000)
        pause = _rng.expovariate(1 / 45) if self.kind == "kept" else _rng.random()
        return out, 1, now + 30_000_000 + int(pause * SECOND)

    def _open(self, out: list[bytes], now: int) -> None:
        self.opened = True
        out.append(abi.pack_process(self.conn[1], b"server-%d" % (self.conn[1] % 4), ts_ns=now))
        out.append(abi.pack_open(self.conn, ts_ns=now, local=LOCAL, remote=self.remote, source=self.source))
        if self.tls:
            socket_id = self.conn[0] | 1 << 60
            out.append(abi.pack_bind(self.conn, socket_id, ts_ns=now, role=abi.SERVER, local=LOCAL, remote=self.remote))
            out.append(abi.pack_tls(self.conn, ts_ns=now, version=0x0304, alpn=b"http/1.1", sni=b"api.example"))

    def _data(self, out: list[bytes], direction: int, data: bytes, ts: int) -> None:
        for at in range(0, len(data), traffic.CHUNK):
            piece = data[at : at + traffic.CHUNK]
            if _rng.random() >= LOST_SHARE:
                out.append(
                    abi.pack_data(self.conn, direction, self.positions[direction], piece, ts_ns=ts, source=self.source)
                )
            self.positions[direction] += len(piece)


def events(hours: float, rate: float) -> Iterator[tuple[int, int, int, list[bytes]]]:
    """(time ns, exchanges, conn_id, events) in the order of time; so many exchanges a second of event time, about."""
    begin = 1000 * SECOND
    end = begin + int(hours * 3600 * SECOND)
    numbers = itertools.count(1)
    exchanges_each = 0.70 * 3 + 0.22 * 34.5 + 0.08 * 2
    gap = exchanges_each / rate  # seconds between two new connections
    due: list[tuple[int, int, Connection]] = []
    opens = begin
    for n in range(FLOOD):
        at = begin + n * FLOOD_SECONDS * SECOND // FLOOD
        due.append((at, number := next(numbers), Connection(number, at, "abandoned")))
    while True:
        if not due or opens <= due[0][0]:
            number = next(numbers)
            heapq.heappush(due, (opens, number, Connection(number, opens)))
            opens += int(_rng.expovariate(1 / gap) * SECOND)
        now, number, connection = heapq.heappop(due)
        if now >= end:
            return
        made, exchanges, then = connection.step(now)
        if then is not None:
            heapq.heappush(due, (then, number, connection))
        yield now - begin, exchanges, connection.conn[0], made


def main() -> None:
    """Entry."""
    options = json.loads(sys.argv[1])
    rings = [Ring(fd, options["ring_bytes"], memfd=True) for fd in options["fds"]]
    total, part = 0, 3600 * SECOND // PARTS
    said, started = 0, time.monotonic()
    pace = options["hour_seconds"] / (3600 * SECOND)
    for now, exchanges, conn_id, made in events(options["hours"], options["rate"]):
        ring = rings[partition.ring_of(conn_id, len(rings))]
        for piece in made:
            while not ring.put(piece):
                time.sleep(0.0005)
        total += exchanges
        if not total & 15 and (ahead := started + now * pace - time.monotonic()) > 0.002:
            time.sleep(ahead)
        if now // part > said:
            said = now // part
            print(f"hour {said / PARTS}", flush=True)
    print(json.dumps({"exchanges": total}))


if __name__ == "__main__":
    main()
