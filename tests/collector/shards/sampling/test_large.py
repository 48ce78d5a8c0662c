"""A million exchanges: exact for each endpoint, within memory that does not grow."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from collector import abi
from collector.policy.model import Policy, Sampling
from collector.router import partition
from collector.shards.folding import folded
from collector.shards.pipeline import Pipeline
from tests.events import ident, pipeline

MILLION = 1_000_000
CONNECTIONS, RINGS = 64, 4
MINUTES = 10
SPAN_BYTES = 1 << 17
ENDS: dict[str, Any] = {"local": ("10.0.0.1", 80), "remote": ("10.0.0.2", 40000)}
Asked = tuple[bytes, bytes, bytes]  # host, method, target
ANSWERS = {status: b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nhi" % status for status in (200, 404, 500)}


class Wire:
    """Exchanges on keep-alive connections of several rings, in spans as a loader sends them."""

    def __init__(self) -> None:
        self.conns = [ident(1, number + 1, 1) for number in range(CONNECTIONS)]
        self._positions = [[0, 0] for _ in self.conns]
        self._turns = list(range(CONNECTIONS))
        self._number = 0
        self._open = b"".join(
            abi.pack_open(conn, ts_ns=1, ring=partition.ring_of(conn[0], RINGS), **ENDS) for conn in self.conns
        )

    def one_of_each_ring(self) -> None:
        """From here on use only so many of the connections."""
        self._turns = list({partition.ring_of(conn[0], RINGS): which for which, conn in enumerate(self.conns)}.values())

    def spans(self, mix: Iterator[tuple[Asked, int]], step_ns: int) -> Iterator[bytes]:
        span = bytearray(self._open)
        self._open = b""
        for (host, method, target), status in mix:
            self._number += 1
            which, ts = self._turns[self._number % len(self._turns)], self._number * step_ns
            conn, at = self.conns[which], self._positions[which]
            asks = b"%s %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (method, target, host)
            answer = ANSWERS[status]
            span += abi.pack_data(conn, abi.IN, at[0], asks, ts_ns=ts)
            span += abi.pack_data(conn, abi.OUT, at[1], answer, ts_ns=ts)
            at[0] += len(asks)
            at[1] += len(answer)
            if len(span) > SPAN_BYTES:
                yield bytes(span)
                span.clear()
        yield bytes(span)


def feed(pipe: Pipeline, spans: Iterator[bytes]) -> Iterator[dict[str, str]]:
    """The records."""
    for span in spans:
        at = 0
        while at < len(span):
            at = pipe.feed(span, 0, at)
            batch = pipe.take()
            if batch is not None:
                assert isinstance(batch[0], bytes)
                yield from map(json.loads, batch[0].splitlines())


def endpoint_of(record: dict[str, str]) -> Asked:
    host = json.loads(record["requestHeaders"])["host"]
    return host.encode(), record["method"].encode(), folded(record["path"].encode())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_exchanges_of_a_skewed_mix_are_exact_for_each_endpoint() -> None:
    choose = random.Random(14)
    endpoints: list[Asked] = [
        (b"%s.example" % host, method, b"/%s/%%d/%s" % (kind, part))
        for host in (b"shop", b"api", b"auth")
        for method in (b"GET", b"POST", b"PUT", b"DELETE")
        for kind in (b"users", b"orders", b"items", b"carts", b"invoices", b"sessions", b"teams", b"devices")
        for part in (b"", b"events", b"history", b"state", b"notes", b"owner")
    ]
    choose.shuffle(endpoints)
    weights = list(accumulate(1 / (rank + 1) ** 1.2 for rank in range(len(endpoints))))
    went_by: Counter[Asked] = Counter()

    def mix() -> Iterator[tuple[Asked, int]]:
        for host, method, form in choose.choices(endpoints, cum_weights=weights, k=MILLION):
            went_by[host, method, folded(form % 7)] += 1
            yield (host, method, form % choose.randrange(10**6)), choose.choices((200, 404, 500), (97, 2, 1))[0]

    pipe, wire = pipeline(), Wire()
    pipe.use_policy(Policy(sampling=Sampling(first=2, one_in=1000, errors_one_in=20)))
    delivered: Counter[Asked] = Counter()
    told: Counter[Asked] = Counter()
    errors = 0
    for record in feed(pipe, wire.spans(mix(), MINUTES * 60 * 10**9 // MILLION)):
        delivered[endpoint_of(record)] += 1
        told[endpoint_of(record)] += int(record.get("sampledOut", 0))
        errors += record["statusCode"] != "200"
    assert went_by.total() == MILLION and len(went_by) == len(endpoints)
    assert delivered.total() < MILLION // 10
    assert delivered.total() + told.total() + pipe.untold() == MILLION
    assert 1 < errors / (MILLION * 0.03 / 20) < 2.5  # one in twenty, and those among the first ones
    pending = pipe.untold()
    pipe.use_policy(Policy())  # everything is recorded: a last one of each endpoint in each ring tells what is left
    wire.one_of_each_ring()
    last = [((host, method, form % 1), 200) for host, method, form in endpoints for _ in range(RINGS)]
    after = 0
    for record in feed(pipe, wire.spans(iter(last), MINUTES * 60 * 10**9 // MILLION)):
        after += 1
        told[endpoint_of(record)] += int(record.get("sampledOut", 0))
    assert (after, pipe.untold(), pending > 0) == (len(last), 0, True)
    assert {one: delivered[one] + told[one] for one in went_by} == went_by


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["names", "identifiers"])
def test_a_million_random_paths_take_no_memory_and_no_volume(form: str) -> None:
    choose = random.Random(14)
    words = "abcdefghijklmnopqrstuvwxyz"

    def mix() -> Iterator[tuple[Asked, int]]:
        for _ in range(MILLION):
            bits = choose.getrandbits(64)
            name = "".join(words[bits >> shift & 15] for shift in range(0, 64, 4)) if form == "names" else f"{bits:016x}"
            yield (b"a.example", b"GET", b"/" + name.encode()), 200

    most, first, one_in = 1000, 2, 100
    pipe = pipeline()
    pipe.use_policy(Policy(sampling=Sampling(first=first, one_in=one_in, endpoints=most)))
    delivered = told = 0
    before = 0
    for record in feed(pipe, Wire().spans(mix(), MINUTES * 60 * 10**9 // MILLION)):
        delivered += 1
        told += int(record.get("sampledOut", 0)) + int(record.get("sampledOutOthers", 0))
        before = before or resident_bytes()
    grown = resident_bytes() - before
    assert delivered + told + pipe.untold() == MILLION
    assert pipe.statistics()["sampling_endpoints"] == (most * RINGS if form == "names" else RINGS)
    places = most + 1 if form == "names" else 1  # the one more is what all others share
    assert delivered < places * RINGS * first * MINUTES + 1.1 * MILLION / one_in
    assert grown < 24 << 20  # of a million endpoints the table alone would have 48
