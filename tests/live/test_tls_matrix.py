"""Real servers and clients that speak TLS to each other, with certificates on both sides: what they exchanged is what the
records say.

Each row of PAIRS (tests/live/tls/programs.py) makes 1,000 exchanges, some with bodies of megabytes, some with clients that
stop reading, read a few bytes at a time, or go away. First the logs of clients and servers are compared with the plan and
with each other, then the records with the logs (tests/live/tls/comparing.py).

TLS_EXCHANGES=10000 makes ten times as many. TLS_BORING=1 adds Rust over BoringSSL, which takes minutes to compile. The
figures are left in build/tls-matrix; `scripts/tls-matrix` prints them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness import Collector
from tests.live.tls import bed
from tests.live.tls.comparing import compare, log_problems, sides
from tests.live.tls.programs import PAIRS, ROWS, Pair
from tests.live.tls.running import Records, run

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]
EXCHANGES = int(os.environ.get("TLS_EXCHANGES", "1000"))


@pytest.fixture(scope="module")
def collector(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    c = Collector(
        tmp_path_factory.mktemp("tls"),
        COLLECTOR_BODY_BYTES="262144",
        COLLECTOR_RING_BYTES=str(64 << 20),
    )
    yield c
    assert c.stop(seconds=120) == 0, c.log()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bed.Bed:
    return bed.make(tmp_path_factory.mktemp("bed"))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_pair(collector: Collector, made: bed.Bed, pair: Pair, tmp_path: Path) -> None:
    records = Records(collector, pair)
    done = run(pair, made, tmp_path, EXCHANGES, records.seen)
    assert not log_problems(done)
    rows = compare(done, records.wait(len(sides(done))))
    for row in rows:
        row.write(ROWS)
    dropped = collector.metric("collector_kernel_dropped_events_total")
    assert all(row.good() for row in rows), f"{dropped:.0f} dropped events\n" + "\n".join(map(str, rows))
