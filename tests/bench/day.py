"""scripts/bench day: a day of event time in minutes, through rings, loader, shards and sink: does the memory stay the same?

Connections of all kinds begin, live and end (tests/bench/node.py): short ones, ones that are kept for an hour and are silent
for minutes, ones whose end nobody sees, resets, bodies of all sizes and codings, holes, TLS, the PROXY protocol. PSS of the
whole tree, by hour of event time, the least of the samples of each: what is held between two bursts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from collector import config
from collector.loader.ringbuffer import memfd_ring
from collector.settings import LoaderSettings, ShardSettings, SupervisorSettings
from collector.sink import destinations
from collector.supervisor import memory
from collector.supervisor.starting import Plan
from collector.supervisor.supervisor import Supervisor

CONNECTIONS = 400  # fewer than are left behind in two hours: the least recently active give way


def run(hours: float, rate: float, hour_seconds: float, shards: int = 2) -> dict[str, Any]:
    """One run. The result: exchanges, records, what was given up, and MiB by part of an hour."""
    settings = config.load(
        {
            "COLLECTOR_SHARDS": str(shards),
            "AKTO_LOG_LEVEL": "ERROR",
            "TRAFFIC_MAX_ACTIVE_CONN": str(CONNECTIONS),
            "COLLECTOR_TRUSTED_CIDRS": "10.0.0.0/8",
        }
    )
    ring_bytes = settings.COLLECTOR_RING_BYTES
    rings = [memfd_ring(ring_bytes) for _ in range(shards)]
    output = destinations.chosen(settings, "null")
    supervisor = Supervisor(
        Plan(
            supervisor=SupervisorSettings.of(settings, live=False),
            shard=ShardSettings.of(
                settings,
                shards=shards,
                want_details=True,
                record_prefix="day-",
                daemonset_id="day",
                batches=output.destination.batches(settings),
            ),
            loader=dataclasses.replace(LoaderSettings.of(settings, rings=shards), ring_bytes=ring_bytes, test_rings=True),
            sink=output.settings(settings, lossless=True, stop_seconds=60.0),
            loader_fds=rings,
            output_fd=None,
            directory=tempfile.mkdtemp(prefix="day-"),
            directory_exists=True,
        )
    )
    result: dict[str, Any] = {}
    options = {"fds": rings, "ring_bytes": ring_bytes, "hours": hours, "rate": rate, "hour_seconds": hour_seconds}
    watch = threading.Thread(target=_watch, args=(supervisor, options, result), daemon=True)
    watch.start()
    code = supervisor.run()
    watch.join(5)
    for ring in rings:
        os.close(ring)
    if code or "exchanges" not in result:
        sys.exit(f"the pipeline ended with {code}: {supervisor.problems}")
    totals = supervisor.totals()
    names = (
        "records",
        "records_marked",
        "batches_without_slot",
        "evicted_connections",
        "timed_out",
        "holes",
        "connections_opened",
        "bad_events",
    )
    return {**result, **{name: totals[name] for name in names}, "delivered": totals["sink_delivered_records"]}


def _watch(supervisor: Supervisor, options: dict[str, Any], result: dict[str, Any]) -> None:
    while not supervisor.ready()[0]:
        time.sleep(0.02)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.node", json.dumps(options)],
        pass_fds=options["fds"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    by_hour: dict[int, list[float]] = {}
    for line in process.stdout:
        if line.startswith("hour "):
            by_hour.setdefault(int(float(line[5:])), []).append(memory.pss_bytes(supervisor.pids()) / memory.MIB)
            result["connections"] = supervisor.totals()["connections"]
        else:
            result.update(json.loads(line))
    process.wait()
    result["seconds"] = round(time.monotonic() - started, 1)
    result["pss_mib"] = {hour: round(min(samples), 1) for hour, samples in by_hour.items()}
    supervisor._stop("measured")


def main(arguments: list[str]) -> None:
    """Entry of `scripts/bench day`."""
    parser = argparse.ArgumentParser(prog="scripts/bench day", description=__doc__)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--rate", type=float, default=10, help="exchanges per second of event time")
    parser.add_argument("--hour-seconds", type=float, default=8, help="how long an hour lasts, at least")
    options = parser.parse_args(arguments)
    print(json.dumps(run(options.hours, options.rate, options.hour_seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
