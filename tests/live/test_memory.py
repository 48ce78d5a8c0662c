"""Memory limits that hold: the collector in a cgroup of 256 MiB and of 1 GiB, with far more to hold than fits.

Nobody is killed for want of memory, no record is in no counter, and the programs that are watched get what they asked for.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import pytest

from tests.live.confined import Cgroup
from tests.live.harness import HERE, Collector, Program, wait_for
from tests.live.kafka_broker import free_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

MIB = 1 << 20
CONNECTIONS, BODY = 2000, 60_000


def forget_compiler() -> None:
    """Let its libraries be read anew, on account of whoever reads them: as in a container that has just been started."""
    for path in glob.glob("/usr/lib/*-linux-gnu/lib*LLVM-*.so*") + glob.glob("/usr/lib/*-linux-gnu/lib*clang*.so*"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Confined(Collector):
    """A collector that begins in a cgroup."""

    def __init__(self, cgroup: Cgroup, directory: Path, *arguments: str, **environment: str) -> None:
        forget_compiler()
        self.program = ("tests.live.begin", str(cgroup.path), "collector")
        super().__init__(directory, *arguments, **{"COLLECTOR_SHARDS": "0", **environment})


@pytest.fixture(params=[256, 1024], ids=["256MiB", "1GiB"])
def cgroup(live: None, request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    made = Cgroup(request.param * MIB)
    yield made
    print(f"peak {made.peak / MIB:.0f} MiB with page cache")  # noqa: T201
    made.close()


@dataclass(frozen=True)
class Summary:
    """What the collector says at its end, in records."""

    made: int
    delivered: int
    dropped: int
    failed: int
    spooled: int
    missing: int

    @classmethod
    def of(cls, collector: Collector) -> Summary:
        text = collector.log().splitlines()[-1]
        patterns = (r"(\d+) records \(", r"(\d+) delivered,", r"(\d+) dropped", r"(\d+) failed", r"(\d+) in the spool")
        found = [re.search(pattern, text) for pattern in (*patterns, r"(\d+) not delivered")]
        assert found[0], collector.log()[-2000:]
        numbers = [int(one[1]) if one else 0 for one in found]
        assert len(numbers) == len(fields(cls))
        return cls(*numbers)

    def adds_up(self) -> bool:
        return not self.missing and self.made == self.delivered + self.dropped + self.failed + self.spooled


def crowd(rounds: int, prefix: str, connections: int = CONNECTIONS, size: int = BODY) -> int:
    """So many rounds of exchanges; how many the callers got right."""
    script = str(HERE / "crowd.py")
    server = Program(sys.executable, script, "serve", str(connections), str(size))
    try:
        done = subprocess.run(
            [sys.executable, script, "call", str(server.port), str(connections), str(size), str(rounds), prefix],
            capture_output=True,
            text=True,
            timeout=200,
        )
    finally:
        server.close()
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


class Load:
    """Exchanges on so many connections until it is over."""

    def __init__(self, connections: int) -> None:
        script = str(HERE / "crowd.py")
        self._server = Program(sys.executable, script, "serve", str(connections), str(BODY))
        arguments = ("call", str(self._server.port), str(connections), str(BODY), str(1 << 20), "load")
        self.caller = subprocess.Popen([sys.executable, script, *arguments])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.caller.kill()
        self.caller.wait()
        self._server.close()


def test_two_thousand_connections_with_large_bodies(cgroup: Cgroup, tmp_path: Path) -> None:
    """All bodies of a round wait at once, on both sides: 229 MiB of them."""
    collector = Confined(
        cgroup, tmp_path, COLLECTOR_PROGRAM_CACHE="off"
    )  # the first start, whose compiler takes most of all
    try:
        assert crowd(3, "crowd") == 3 * CONNECTIONS
        evicted = collector.metric("collector_evicted_connections_total")
        lost = collector.metric("collector_kernel_dropped_events_total")
        use = collector.metric("collector_memory_cgroup_bytes")
    finally:
        code = collector.stop()
    told = Summary.of(collector)
    print(f"{told}, {evicted:.0f} evicted, {lost:.0f} events lost, {use / MIB:.0f} MiB at the end")  # noqa: T201
    assert cgroup.oom_kills == 0
    assert code == 0, collector.log()[-3000:]
    assert told.adds_up() and not told.failed
    records = collector.records()
    assert len(records) == told.delivered
    records = [r for r in records if r["path"].startswith("/crowd/")]
    assert len({(r["direction"], r["path"]) for r in records}) == len(records)
    # the bodies of a round are a hundred times the rings of the smaller one
    assert lost > 0 or told.made >= 6 * CONNECTIONS
    assert told.made >= 6 * CONNECTIONS * (5 if cgroup.limit >= 1024 * MIB else 1) // 10
    for r in records:
        if not r["mark"]:
            assert r["requestPayload"].startswith(r["path"] + " ") and len(r["requestPayload"]) == BODY
            assert r["responsePayload"].startswith(r["path"] + " ") and len(r["responsePayload"]) == BODY


def kafka_that_is_away() -> dict[str, str]:
    return {
        "AKTO_KAFKA_BROKER_MAL": f"127.0.0.1:{free_port()}",
        "COLLECTOR_COMPRESSION": "none",  # as if nothing could be compressed
        "AKTO_TRAFFIC_BATCH_SIZE": "20",
        "AKTO_TRAFFIC_BATCH_TIME_SECS": "0.5",
    }


@pytest.mark.parametrize("cgroup", [256], ids=["256MiB"], indirect=True)
def test_while_the_broker_is_away_the_oldest_records_give_way_and_no_connection_does(cgroup: Cgroup, tmp_path: Path) -> None:
    collector = Confined(cgroup, tmp_path, "--output", "kafka", **kafka_that_is_away())
    try:
        for turn in range(20):  # 20 connections that are never given up; 229 MiB of records and more
            assert crowd(50, f"away{turn}", connections=20) == 1000
        wait_for(lambda: collector.metric("collector_dropped_records_total") > 100, 30)
        evicted = collector.metric("collector_evicted_connections_total")
    finally:
        code = collector.stop()
    told = Summary.of(collector)
    print(f"{told}, {evicted:.0f} evicted")  # noqa: T201
    assert cgroup.oom_kills == 0
    assert code == 1, collector.log()[-3000:]  # records were not delivered, and it says so
    assert evicted == 0
    assert told.adds_up() and told.dropped > 100 and told.delivered == 0


def test_while_the_broker_is_away_records_go_to_the_spool_and_none_is_lost(cgroup: Cgroup, tmp_path: Path) -> None:
    spool = {"COLLECTOR_SPOOL_DIR": str(tmp_path / "spool"), "COLLECTOR_SPOOL_BYTES": str(2 << 30)}
    settings = {**kafka_that_is_away(), **spool}
    collector = Confined(cgroup, tmp_path, "--output", "kafka", **settings)
    try:
        assert crowd(2, "crowd") == 2 * CONNECTIONS
        for turn in range(2):
            assert crowd(50, f"away{turn}", connections=20) == 1000
    finally:
        code = collector.stop()
    told = Summary.of(collector)
    print(told)  # noqa: T201
    assert cgroup.oom_kills == 0
    assert code == 0, collector.log()[-3000:]
    assert told.adds_up() and told.spooled == told.made > 1000


def test_above_the_hard_threshold_everything_is_in_the_spool_and_the_exit_code_is_3(live: None, tmp_path: Path) -> None:
    """Processes at rest are above it, so nothing that gives way helps: under load all the same nothing of it is lost."""
    limits = {"AKTO_MEM_SOFT_LIMIT": "30", "AKTO_MEM_HARD_LIMIT": "40", "COLLECTOR_SHARDS": "0"}
    settings = {**kafka_that_is_away(), **limits, "COLLECTOR_SPOOL_DIR": str(tmp_path / "spool")}
    with Load(20) as load:
        collector = Collector(tmp_path, "--output", "kafka", **settings)
        try:
            wait_for(lambda: collector.process.poll() is not None, 60)
        finally:
            code = collector.stop()
        assert load.caller.poll() is None  # to the end
    assert code == 3, collector.log()[-3000:]
    assert "above AKTO_MEM_THRESH_RESTART (40 MiB): draining for a restart" in collector.log()
    assert "and 40 MiB end the collector (code 3): it will not run for long" in collector.log()
    told = Summary.of(collector)
    print(told)  # noqa: T201
    assert told.adds_up() and told.spooled == told.made > 100
