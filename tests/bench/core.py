"""scripts/bench core: the shard's path alone, in this process: CPU time, or instructions under callgrind.

    scripts/bench core --body 1024
    valgrind --tool=callgrind --toggle-collect=... is not needed: --callgrind N prints instructions per exchange
"""

from __future__ import annotations

import argparse
import array
import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

from collector.router.slots import SLOT_BYTES
from collector.shards.filters import Filters
from collector.shards.filters.rules import parse_rules
from collector.shards.pipeline import Pipeline
from collector.shards.process import BATCH_BYTES
from collector.shards.records.content import Decoder
from tests.bench import traffic


def settings(**changes: object) -> SimpleNamespace:
    """Pipeline settings with the product's defaults."""
    values: dict[str, object] = {
        "header_bytes": 65536, "body_bytes": 65536, "record_bytes": 1_000_000, "max_connections": 1_000_000,
        "buffer_bytes": 1 << 31, "connection_bytes": 10 << 20,
        "input_bytes_per_minute": 0, "output_bytes_per_minute": 0, "idle_seconds": 3.0,
        "unanswered_seconds": 60.0, "response_bodies": True,
        "disable_egress": False, "ignore_ip_hosts": False, "ignore_metadata": False, "want_details": False,
        "ignore_ports": [9092, 6379], "only_ports": [], "record_prefix": "bench-", "daemonset_id": "bench"}
    values.update(changes)
    return SimpleNamespace(**values)


def pipeline(**changes: object) -> Pipeline:
    """A pipeline with its counters and slots in ordinary memory."""
    pipe = Pipeline(settings(**changes), Filters(parse_rules(None)), Decoder(),
                    memoryview(array.array("Q", [0] * 128)))
    pipe.use_slots(bytearray(4 * SLOT_BYTES), 4, BATCH_BYTES)
    return pipe


def spans(body: int, rounds: int, *, zipped: bool = False) -> list[bytes]:
    """Spans of about 128 KiB, as the loader sends them."""
    out, current = [], bytearray()
    for number in range(rounds):
        for piece in traffic.round_of(number, body, zipped=zipped):
            current += piece
            if len(current) > 128 * 1024:
                out.append(bytes(current))
                current.clear()
    out.append(bytes(current))
    return out


def feed(pipe: Pipeline, pieces: list[bytes]) -> int:
    """All spans, records taken as the shard would; returns the record bytes."""
    size = 0
    for piece in pieces:
        at = 0
        while at < len(piece):
            at = pipe.feed(piece, 0, at)
            if pipe.pending() > BATCH_BYTES:
                size += taken(pipe)
    return size + taken(pipe)


def taken(pipe: Pipeline) -> int:
    """Take the batch and give its slot back at once, as a sink without delay; returns its bytes."""
    batch = pipe.take()
    if batch is None:
        return 0
    assert isinstance(batch[0], tuple)
    pipe.release(batch[0][0])
    return batch[0][1]


def open_idle(pipe: Pipeline, count: int) -> None:
    """``count`` further connections, each with one exchange behind it."""
    import random

    from collector import abi

    rng = random.Random(1)
    ask, answer = traffic.request(200, rng), traffic.response(200, rng)
    for i in range(count):
        conn = (50000 + i % 1000, 100 + i // 1000, 1)
        pipe.feed(abi.pack_open(conn, ts_ns=1, local=("10.0.0.1", 80), remote=("10.0.0.2", 1))
                  + abi.pack_data(conn, 0, 0, ask, ts_ns=1) + abi.pack_data(conn, 1, 0, answer, ts_ns=1), 0)
        if pipe.pending() > BATCH_BYTES:
            taken(pipe)
    taken(pipe)


def instructions(body: int, zipped: bool, idle: int) -> float:
    """Instructions per exchange by callgrind, as the difference of a long and a short run."""
    counts = []
    rounds = (2, 6)
    for n in rounds:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m", "tests.bench",
             "core", "--body", str(body), "--once", str(n), "--idle", str(idle), *(["--gzip"] if zipped else [])],
            capture_output=True, text=True, check=True)
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert found, done.stderr[-500:]
        counts.append(int(found[1]))
    return (counts[1] - counts[0]) / ((rounds[1] - rounds[0]) * traffic.CONNECTIONS * traffic.EXCHANGES_EACH)


def main(arguments: list[str]) -> None:
    """Entry of `scripts/bench core`."""
    parser = argparse.ArgumentParser(prog="scripts/bench core", description=__doc__)
    parser.add_argument("--body", type=int, default=1024)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--idle", type=int, default=0, help="further open connections")
    parser.add_argument("--once", type=int, metavar="ROUNDS", help="feed these rounds once and end")
    parser.add_argument("--callgrind", action="store_true", help="count instructions per exchange")
    options = parser.parse_args(arguments)
    if options.callgrind:
        print(json.dumps({"body": options.body, "gzip": options.gzip, "idle": options.idle,
                          "instructions_per_exchange": round(instructions(options.body, options.gzip, options.idle))}))
        return
    if options.once:
        # the traffic of the long run in both cases, so that making it costs the same
        pieces = [spans_of_round for number in range(6) for spans_of_round in
                  [b"".join(traffic.round_of(number, options.body, zipped=options.gzip))]]
        pipe = pipeline()
        open_idle(pipe, options.idle)
        feed(pipe, pieces[: options.once])
        return
    rounds = 8
    pieces = spans(options.body, rounds, zipped=options.gzip)
    n = rounds * traffic.CONNECTIONS * traffic.EXCHANGES_EACH
    best = []
    for _ in range(options.runs):
        pipe = pipeline()
        open_idle(pipe, options.idle)
        started = time.process_time()
        feed(pipe, pieces)
        best.append((time.process_time() - started) / n * 1e6)
        assert pipe.statistics()["records"] == n + options.idle, pipe.statistics()
        assert pipe.statistics()["records_marked"] == 0
    print(json.dumps({"body": options.body, "gzip": options.gzip, "us_per_exchange": round(min(best), 3),
                      "all": [round(b, 3) for b in sorted(best)]}))
