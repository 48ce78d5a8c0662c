"""scripts/bench core: the shard's path alone, in this process: CPU time, or instructions under callgrind.

scripts/bench core --body 1024                 us of CPU time, the least of several runs
scripts/bench core --body 1024 --callgrind     instructions per exchange; they repeat for the same build
scripts/bench core --one-in 1000               with sampling: so many exchanges have one record, and all with errors or marks
scripts/bench core --one-in 0 --no-exceptions  with sampling, by which errors and marks have no rates of their own
"""

from __future__ import annotations

import argparse
import array
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from collector import abi, config
from collector.policy.model import BUILTIN, Sampling
from collector.router.slots import BATCH_BYTES, SLOT_BYTES
from collector.settings import ShardSettings
from collector.shards.filters import Filters
from collector.shards.filters.rules import parse_rules
from collector.shards.pipeline import Pipeline
from collector.shards.records.content import Decoder
from tests.bench import traffic

SETTINGS = dataclasses.replace(
    ShardSettings.of(config.load({}), record_prefix="bench-", daemonset_id="bench"),
    max_connections=1_000_000,
    buffer_bytes=1 << 31,
    ignore_ports=(9092, 6379),
)


def pipeline(policy: str = "off", sampling: Sampling | None = None, **changes: Any) -> Pipeline:
    """A pipeline with its counters and slots in ordinary memory."""
    pipe = Pipeline(
        dataclasses.replace(SETTINGS, **changes),
        Filters(parse_rules(None)),
        Decoder(),
        memoryview(array.array("Q", [0] * 128)),
    )
    pipe.use_policy(dataclasses.replace(BUILTIN[policy], sampling=sampling))
    pipe.use_slots(bytearray(4 * SLOT_BYTES), 4, BATCH_BYTES)
    return pipe


def pieces_of(number: int, body: int, *, zipped: bool, http2: bool) -> list[bytes]:
    """One round of traffic."""
    return traffic.http2_round_of(number, body) if http2 else traffic.round_of(number, body, zipped=zipped)


def spans(body: int, rounds: int, *, zipped: bool = False, http2: bool = False) -> list[bytes]:
    """Spans of about 128 KiB, as the loader sends them."""
    out, current = [], bytearray()
    for number in range(rounds):
        for piece in pieces_of(number, body, zipped=zipped, http2=http2):
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


def idle_span(first: int, count: int) -> bytes:
    """``count`` connections that stay open, each with one exchange behind it."""
    ask = b"GET /idle HTTP/1.1\r\nHost: idle\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    out = []
    for i in range(first, first + count):
        conn = (1 << 50 | i << 12, 50000 + i % 1000, 100 + i // 1000)
        out += [
            abi.pack_open(conn, ts_ns=1, local=("10.0.0.1", 80), remote=("10.0.0.2", 1)),
            abi.pack_data(conn, 0, 0, ask, ts_ns=1),
            abi.pack_data(conn, 1, 0, answer, ts_ns=1),
        ]
    return b"".join(out)


def open_idle(pipe: Pipeline, count: int) -> None:
    """``count`` further connections."""
    for first in range(0, count, 1000):
        feed(pipe, [idle_span(first, min(1000, count - first))])


ROUNDS = (1, 3)


def instructions(
    body: int, zipped: bool, idle: int, http2: bool = False, policy: str = "off", sampling: Sampling | None = None
) -> float:
    """Instructions per exchange by callgrind, as the difference of a long and a short run over the same file."""
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events"
        pieces = [b"".join(pieces_of(number, body, zipped=zipped, http2=http2)) for number in range(ROUNDS[1])]
        idles = [idle_span(first, min(1000, idle - first)) for first in range(0, idle, 1000)]
        with events.open("wb") as file:
            for piece in (*idles, *pieces):
                file.write(len(piece).to_bytes(8, "little") + piece)
        with ThreadPoolExecutor() as pool:
            counts = list(pool.map(lambda n: _counted(events, len(idles) + n, policy, sampling), ROUNDS))
    return (counts[1] - counts[0]) / ((ROUNDS[1] - ROUNDS[0]) * traffic.CONNECTIONS * traffic.EXCHANGES_EACH)


def _counted(events: Path, pieces: int, policy: str, sampling: Sampling | None) -> int:
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            sys.executable,
            "-m",
            "tests.bench",
            "core",
            "--events",
            str(events),
            "--once",
            str(pieces),
            "--policy",
            policy,
            *([] if sampling is None else ["--one-in", str(sampling.one_in)]),
            *([] if sampling is None or sampling.errors_one_in else ["--no-exceptions"]),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found, done.stderr[-500:]
    return int(found[1])


def feed_file(path: Path, pieces: int, policy: str, sampling: Sampling | None = None) -> None:
    """The first pieces of a file that `instructions` made."""
    pipe = pipeline(policy, sampling)
    with path.open("rb") as file:
        for _ in range(pieces):
            feed(pipe, [file.read(int.from_bytes(file.read(8), "little"))])


def main(arguments: list[str]) -> None:
    """Entry of `scripts/bench core`."""
    parser = argparse.ArgumentParser(prog="scripts/bench core", description=__doc__)
    parser.add_argument("--body", type=int, default=1024)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--http2", action="store_true", help="the same exchanges as streams, ten of each connection")
    parser.add_argument("--policy", choices=list(BUILTIN), default="off")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--idle", type=int, default=0, help="further open connections")
    parser.add_argument("--once", type=int, metavar="PIECES", help="feed so many pieces of --events once, and end")
    parser.add_argument("--events", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--callgrind", action="store_true", help="count instructions per exchange")
    parser.add_argument("--one-in", type=int, metavar="N", help="sample: record one in so many exchanges; 0: none")
    parser.add_argument("--no-exceptions", action="store_true", help="sample errors and exchanges with marks as the others")
    options = parser.parse_args(arguments)
    sampling = None
    if options.one_in is not None:
        others = int(not options.no_exceptions)
        sampling = Sampling(first=0, one_in=options.one_in, errors_one_in=others, marked_one_in=others)
    if options.callgrind:
        print(
            json.dumps(
                {
                    "body": options.body,
                    "gzip": options.gzip,
                    "http2": options.http2,
                    "idle": options.idle,
                    "policy": options.policy,
                    "instructions_per_exchange": round(
                        instructions(options.body, options.gzip, options.idle, options.http2, options.policy, sampling)
                    ),
                }
            )
        )
        return
    if options.once:
        feed_file(options.events, options.once, options.policy, sampling)
        return
    rounds = 8
    pieces = spans(options.body, rounds, zipped=options.gzip, http2=options.http2)
    n = rounds * traffic.CONNECTIONS * traffic.EXCHANGES_EACH
    best = []
    for _ in range(options.runs):
        pipe = pipeline(options.policy, sampling)
        open_idle(pipe, options.idle)
        feed(pipe, pieces)  # what is touched for the first time is not what is measured
        started = time.process_time()
        feed(pipe, pieces)
        best.append((time.process_time() - started) / n * 1e6)
        counted = pipe.statistics()
        assert counted["records"] + counted["sampling_left_out"] == 2 * n + options.idle, counted
        assert pipe.statistics()["records_marked"] == 0
    print(
        json.dumps(
            {
                "body": options.body,
                "gzip": options.gzip,
                "http2": options.http2,
                "policy": options.policy,
                "us_per_exchange": round(min(best), 3),
                "all": [round(b, 3) for b in sorted(best)],
            }
        )
    )
