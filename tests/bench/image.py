"""scripts/bench image: what a start of the image costs, and what it holds when nothing is going on.

scripts/bench image --starts 3 --cpus 0.5     without --cpus: as many as there are. Needs a Docker engine and the image
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from collector import __version__
from tests.bench.start import family, summary, used
from tests.live.kafka_broker import free_port

NAME = "collector-bench"


def docker(*arguments: str) -> str:
    """What a docker command prints on either stream."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def moment(text: str) -> float:
    """RFC 3339 with nanoseconds, as Docker writes it."""
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", text)).timestamp()


class Container:
    """The collector as deploy/daemonset.yaml runs it: privileged, with a root that cannot be written."""

    def __init__(self, image: str, cache: str, cpus: str, *more: str) -> None:
        self.port = free_port()
        limits = ["--cpus", cpus] if cpus else []
        docker(
            *("run", "-d", "--name", NAME, "--privileged", "--pid=host", "--network=host", "--read-only", *limits),
            *("--memory", "1g", "--tmpfs", "/run/collector:mode=700", "--tmpfs", "/tmp"),
            *("-v", "/sys/kernel:/sys/kernel:ro", "-v", f"{cache}:/var/cache"),
            *("-e", "AKTO_LOG_LEVEL=INFO", "-e", f"COLLECTOR_HEALTH_ADDRESS=127.0.0.1:{self.port}", *more),
            *(image, "run", "--output", "null"),
        )

    def ready(self) -> float:
        """When it was first ready, by its page; also when it says "capturing"."""
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close()
            except (OSError, urllib.error.URLError):
                state = json.loads(docker("inspect", NAME))[0]["State"]
                if not state["Running"]:
                    raise SystemExit(docker("logs", NAME)) from None
                time.sleep(0.02)
            else:
                return time.time()

    def started(self) -> tuple[float, int]:
        """When its first process began, and which one that is on the host."""
        state = json.loads(docker("inspect", NAME))[0]["State"]
        return moment(state["StartedAt"]), int(state["Pid"])

    def capturing(self) -> float:
        """When it said so."""
        (line,) = (one for one in docker("logs", "--timestamps", NAME).splitlines() if ": capturing " in one)
        return moment(line.partition(" ")[0])

    def end(self) -> None:
        """As Kubernetes ends it."""
        docker("stop", "-t", "45", NAME)
        docker("rm", NAME)


def start(image: str, cache: str, cpus: str) -> dict[str, float]:
    """Seconds from the first process to "capturing" and to the first answer that it is ready; CPU s of all of it by then."""
    one = Container(image, cache, cpus)
    try:
        ready = one.ready()
        began, pid = one.started()
        return {"capturing": one.capturing() - began, "ready": ready - began, "cpu": used(pid)}
    finally:
        one.end()


def role(pid: int) -> str:
    """Which of the collector's processes it is."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    found = re.search(r"collector\.([a-z.]+)", words)
    return found[1] if found else "supervisor" if "collector run" in words else words[:40]


def memory(pid: int) -> dict[str, dict[str, float]]:
    """MiB of each process: its share of all (PSS), and of that what is its own, what it shares, and what is in files."""
    out: dict[str, dict[str, float]] = {}
    for one in family(pid):
        text = Path(f"/proc/{one}/smaps_rollup").read_text()
        kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
        out[f"{role(one)} {one}"] = {
            "pss": round(kib["Pss"] / 1024, 1),
            "anonymous": round(kib["Pss_Anon"] / 1024, 1),
            "files": round(kib["Pss_File"] / 1024, 1),
            "shared memory": round(kib["Pss_Shmem"] / 1024, 1),
            "private": round((kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, 1),
        }
    out["all"] = {name: round(sum(one[name] for one in out.values()), 1) for name in next(iter(out.values()))}
    return out


def idle(image: str, cache: str, seconds: float, *more: str) -> dict[str, dict[str, float]]:
    """Memory after so many seconds in which nobody asked anything."""
    one = Container(image, cache, "", *more)
    try:
        one.ready()
        time.sleep(seconds)
        return memory(one.started()[1])
    finally:
        one.end()


def main(arguments: list[str]) -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/bench image", description=__doc__)
    parser.add_argument("--image", default=f"ebpf-api-collector:{__version__}")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--cpus", default="", help="as of docker run")
    parser.add_argument("--idle", type=float, default=30, metavar="S", help="before memory is measured; 0: it is not")
    options = parser.parse_args(arguments)
    sizes = json.loads(docker("image", "inspect", options.image))[0]
    print(json.dumps({"image": options.image, "MB": round(sizes["Size"] / 1e6, 1)}))
    first = []
    for _ in range(options.starts):
        with tempfile.TemporaryDirectory() as cache:
            first.append(start(options.image, cache, options.cpus))
    with tempfile.TemporaryDirectory() as cache:
        start(options.image, cache, options.cpus)
        kept = [start(options.image, cache, options.cpus) for _ in range(options.starts)]
        print(json.dumps({"first": summary(first)}))
        print(json.dumps({"kept": summary(kept)}))
        if options.idle:
            for shards in ("1", "2"):
                found = idle(options.image, cache, options.idle, "-e", f"COLLECTOR_SHARDS={shards}")
                print(f"idle, {shards} shards, MiB:")
                for name, figures in found.items():
                    print(f"  {name:32s}" + "".join(f" {what} {value:6.1f}" for what, value in figures.items()))
    sys.stdout.flush()
