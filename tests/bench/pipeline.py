"""scripts/bench pipeline: events in a memfd ring -> loader drain -> router -> shard -> sink, CPU time by process."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import psutil

from collector import config
from collector.loader.ringbuffer import memfd_ring
from collector.policy.source import Source
from collector.settings import LoaderSettings, ShardSettings, SupervisorSettings
from collector.sink import destinations
from collector.supervisor import memory
from collector.supervisor.lock import OWN_NAME
from collector.supervisor.starting import Plan
from collector.supervisor.supervisor import Supervisor

WARM_UP_SHARE = 0.1


def reference_seconds() -> float:
    """CPU seconds of a fixed loop, the best of five: to compare machines and moments."""
    best = 1e9
    for _ in range(5):
        started = time.process_time()
        total = 0
        for i in range(300_000):
            total += i & 7
        best = min(best, time.process_time() - started)
    return best


def run_once(options: argparse.Namespace) -> dict[str, Any]:
    """One run; the result as documented in docs/benchmarks.md."""
    environment = {
        "COLLECTOR_SHARDS": str(options.shards),
        "AKTO_LOG_LEVEL": "ERROR",
        "COLLECTOR_HEALTH_ADDRESS": "127.0.0.1:0",
        "TRAFFIC_BUFFER_THRESHOLD": "2000",
        "AKTO_MEM_THRESH_RESTART": "4000",
        "COLLECTOR_POLICY": options.policy,
    }
    broker = os.environ.get("AKTO_KAFKA_BROKER_MAL", "")
    if options.output == "kafka":
        if not broker:
            sys.exit("--output kafka needs AKTO_KAFKA_BROKER_MAL")
        environment["AKTO_KAFKA_BROKER_MAL"] = broker
        environment["AKTO_TRAFFIC_BATCH_TIME_SECS"] = "0.1"
    settings = config.load(environment)
    rings = [memfd_ring(options.ring_bytes) for _ in range(options.shards)]
    path = ""
    if options.output == "jsonl":
        file, path = tempfile.mkstemp(prefix="bench-", suffix=".jsonl")
        os.close(file)
    output = destinations.chosen(settings, path or options.output)
    runtime, own = _runtime_directory() if options.viewer else ("", None)
    supervisor = Supervisor(
        Plan(
            supervisor=SupervisorSettings.of(settings, live=False),
            shard=ShardSettings.of(
                settings,
                shards=settings.shards,
                want_details=output.destination.wants_details,
                record_prefix="bench-",
                daemonset_id="bench",
                batches=output.destination.batches(settings),
            ),
            loader=dataclasses.replace(
                LoaderSettings.of(settings, rings=len(rings)), ring_bytes=options.ring_bytes, test_rings=True
            ),
            sink=output.settings(settings, lossless=not options.rate, stop_seconds=60.0),
            loader_fds=rings,
            output_fd=output.open(settings, shared=False),
            directory=tempfile.mkdtemp(prefix="bench-"),
            directory_exists=True,
            health_directory=own,
            policy=Source.of(settings),
            view_directory=own,
        )
    )
    reference = reference_seconds()
    result: dict[str, Any] = {}
    measured = threading.Thread(target=_measure, args=(supervisor, options, rings, runtime, result), daemon=True)
    measured.start()
    code = supervisor.run()
    measured.join(5)
    totals = supervisor.totals()
    for ring in rings:
        os.close(ring)
    if path:
        os.unlink(path)
    if own is not None:
        os.close(own)
        shutil.rmtree(runtime)
    if code or "generator" not in result:
        sys.exit(f"the pipeline ended with {code}: {supervisor.problems}")
    offered = result["generator"]["exchanges"]
    complete = totals["records"] - totals["records_marked"]
    before, after = result["before"], result["after"]
    n = max(1, after["records"] - before["records"])

    def each(*keys: str) -> float:
        microseconds: float = round(sum(after[k] - before[k] for k in keys) / n / 1000, 3)
        return microseconds

    cpu = {"loader": each("loader_cpu_ns"), "shard": each("cpu_ns"), "sink": each("sink_cpu_ns")}
    cpu["total"] = round(sum(cpu.values()), 3)
    cpu["user"] = round(result["user"] / n * 1e6, 3)
    return {
        "exchanges_per_s": round(n / result["seconds"]),
        "cpu_us_per_exchange": cpu,
        "reference": round(reference * 1e6),
        "bytes": result["generator"]["bytes"],
        "lost": {
            "exchanges": offered - complete,
            "marked": totals["records_marked"],
            "ring_refused_events": result["generator"]["refused_events"],
            "dropped_records": totals["sink_dropped_records"],
        },
        "viewer": {
            "command": options.viewer,
            "records": totals["viewer_lines"],
            "lost": totals["viewer_lost_lines"],
            "cpu_us_per_exchange": round(result["viewer_cpu"] / n * 1e6, 3),
        },
        "delivered": totals["sink_delivered_records"],
        "peak_pss_mib": round(result["peak"] / memory.MIB, 1),
        "exchanges": offered,
        "body": options.body,
        "output": options.output,
        "policy": options.policy,
        "mean_span_kib": round(totals["loader_span_bytes"] / max(1, totals["loader_spans"]) / 1024, 1),
        "mean_batch_kib": round(totals["batch_bytes"] / max(1, totals["batches"]) / 1024, 1),
    }


def _user_seconds(supervisor: Supervisor) -> float:
    """CPU time of all processes but ours, in user mode."""
    return sum(psutil.Process(pid).cpu_times().user for pid in supervisor.pids() if pid != os.getpid())


def _runtime_directory() -> tuple[str, int]:
    """One as COLLECTOR_RUNTIME_DIR has, and a descriptor of what is ours in it."""
    runtime = tempfile.mkdtemp(prefix="bench-run-")
    os.mkdir(os.path.join(runtime, OWN_NAME), 0o700)
    return runtime, os.open(os.path.join(runtime, OWN_NAME), os.O_RDONLY | os.O_DIRECTORY)


def _viewer(options: argparse.Namespace, runtime: str) -> psutil.Popen | None:
    """The command under measurement, once it is connected."""
    if not options.viewer:
        return None
    environment = {**os.environ, "COLLECTOR_RUNTIME_DIR": runtime}
    return psutil.Popen(
        [sys.executable, "-m", "collector", *options.viewer.split()], env=environment, stdout=subprocess.DEVNULL
    )


def _measure(
    supervisor: Supervisor, options: argparse.Namespace, rings: list[int], runtime: str, result: dict[str, Any]
) -> None:
    while not supervisor.ready()[0]:
        time.sleep(0.02)
    viewer = _viewer(options, runtime)
    while viewer is not None and not supervisor.own["viewers"] and viewer.poll() is None:
        time.sleep(0.02)
    if viewer is not None and options.stopped:
        viewer.send_signal(signal.SIGSTOP)
    message = json.dumps(
        {
            "fds": rings,
            "ring_bytes": options.ring_bytes,
            "exchanges": options.exchanges,
            "body": options.body,
            "zipped": options.gzip,
            "rate": options.rate,
        }
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.generator", message], pass_fds=rings, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    warm = int(options.exchanges * WARM_UP_SHARE)
    while supervisor.totals()["records"] < warm and process.poll() is None:
        time.sleep(0.005)
    result["before"] = supervisor.totals()
    result["user"] = -_user_seconds(supervisor)
    started = time.monotonic()
    peak = 0
    while process.poll() is None:
        time.sleep(0.1)
        peak = max(peak, memory.pss_bytes(supervisor.pids()))
    result["generator"] = json.loads(process.stdout.read())
    last, still = -1, 0
    while still < 4:  # until nothing moves any more
        time.sleep(0.05)
        now = supervisor.totals()
        moved = now["records"] + now["sink_delivered_records"]
        still = still + 1 if moved == last else 0
        if still == 0:
            result["seconds"] = time.monotonic() - started
        last = moved
    time.sleep(0.15)
    result["after"] = supervisor.totals()
    result["user"] += _user_seconds(supervisor)
    result["viewer_cpu"] = 0.0
    if viewer is not None:
        result["viewer_cpu"] = sum(viewer.cpu_times()[:2])
        viewer.kill()
        viewer.wait()
    result["peak"] = max(peak, memory.pss_bytes(supervisor.pids()))
    supervisor._stop("measured")


def main(arguments: list[str]) -> None:
    """Entry of `scripts/bench pipeline`."""
    parser = argparse.ArgumentParser(prog="scripts/bench pipeline", description=__doc__)
    parser.add_argument("--exchanges", type=int, default=200_000)
    parser.add_argument("--body", type=int, default=1024, help="bytes of JSON body in each direction")
    parser.add_argument("--output", choices=("null", "jsonl", "kafka"), default="null")
    parser.add_argument("--rate", type=float, default=0, help="exchanges per second offered (default: closed loop)")
    parser.add_argument("--gzip", action="store_true", help="gzip-encoded responses")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--ring-bytes", type=int, default=8 << 20)
    parser.add_argument("--policy", default="off", help="COLLECTOR_POLICY: a built-in one, or a file")
    parser.add_argument(
        "--viewer", default="", metavar="COMMAND", help="look at it meanwhile: `tail`, `top`, with arguments"
    )
    parser.add_argument("--stopped", action="store_true", help="stop the viewer as soon as it is connected (SIGSTOP)")
    parser.add_argument("--runs", type=int, default=1, help="repeat and report the run with the least total CPU")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    options = parser.parse_args(arguments)
    results = []
    for number in range(options.runs):
        results.append(run_once(options))
        if not options.json:
            print(f"run {number + 1}: {results[-1]}", file=sys.stderr)
    best = min(results, key=lambda r: r["cpu_us_per_exchange"]["total"])
    if options.runs > 1:
        best["spread_total_us"] = sorted(r["cpu_us_per_exchange"]["total"] for r in results)
        best["spread_shard_us"] = sorted(r["cpu_us_per_exchange"]["shard"] for r in results)
    print(json.dumps(best))
