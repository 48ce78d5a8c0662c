"""scripts/bench sizing: what the collector takes of a node at given rates: nginx, a load generator with so many requests a
second, and a real broker, all on this machine; both ends of each exchange are recorded.

scripts/bench sizing --rates 100,1000,10000 --connections 100 --body 1024 --seconds 20
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from tests.bench.start import family, used
from tests.live.harness import Collector, Nginx
from tests.live.kafka_broker import Broker


def held(pid: int) -> float:
    """MiB of PSS, of a process and all below it."""
    return sum(psutil.Process(one).memory_full_info().pss for one in family(pid)) / (1 << 20)


def load(port: int, rate: int, connections: int, seconds: float) -> int:
    """Requests at that rate, spread over the connections; how many were answered."""
    each = max(1, rate // connections)
    command = ["h2load", "--h1", "-c", str(min(connections, rate)), "-t", "1", "--rps", str(each), "-D", str(int(seconds))]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/x"], capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("requests:"))
    return int(line.split(" total")[0].split()[-1])


def main(arguments: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="scripts/bench sizing")
    parser.add_argument("--rates", default="0,100,1000,10000")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--body", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--shards", default="2")
    options = parser.parse_args(arguments)
    body = json.dumps({"text": "x" * options.body})[: options.body]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.chmod(directory, 0o755)
        (directory / "broker").mkdir()
        broker = Broker(directory / "broker")
        broker.start()
        nginx = Nginx(directory, f"location / {{ return 200 '{body}'; }}")
        try:
            for rate in map(int, options.rates.split(",")):
                place = directory / str(rate)
                place.mkdir()
                collector = Collector(
                    place,
                    *("--output", "kafka"),
                    AKTO_KAFKA_BROKER_MAL=broker.address,
                    COLLECTOR_KAFKA_TOPIC=f"rate-{rate}",
                    COLLECTOR_SHARDS=options.shards,
                )
                try:
                    time.sleep(35)  # the libraries of the node are read, and their readers gone
                    pid = collector.process.pid
                    cpu, began = used(pid), time.monotonic()
                    answered = load(nginx.port, rate, options.connections, options.seconds) if rate else 0
                    if not rate:
                        time.sleep(options.seconds)
                    cpu, took = used(pid) - cpu, time.monotonic() - began
                    delivered = functools.partial(collector.metric, "collector_delivered_records_total")
                    deadline = time.monotonic() + 30
                    while delivered() < 2 * answered and time.monotonic() < deadline:
                        time.sleep(0.1)
                    print(  # noqa: T201
                        f"{answered / took:8.0f} requests/s: {100 * cpu / took:6.1f} % of a core, "
                        f"{held(pid):6.1f} MiB of PSS, {delivered():.0f} of {2 * answered} records"
                    )
                finally:
                    collector.stop()
        finally:
            nginx.close()
            broker.close()
