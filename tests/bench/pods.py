"""scripts/bench pods: what the process that follows the API server takes, with many pods that come and go."""

from __future__ import annotations

import argparse
import os
import random
import socket
import time
from typing import Any

from collector.counter_names import KUBERNETES_NAMES
from collector.counters import CounterMemory, Counters
from collector.settings import KubernetesSettings, KubernetesStart
from collector.supervisor.child import ChildProcess
from tests.collector.kubernetes.api_server import NAMESPACES, PATH, ApiServer, running

_TICKS = os.sysconf("SC_CLK_TCK")
NAMESPACE_COUNT = 50


def pod(number: int, generation: int) -> dict[str, Any]:
    """One as the API server tells of it: some 5 KB, most of which nobody asks for."""
    uid = f"{number:08x}-0000-4000-8000-{generation:012x}"
    containers = [f"c{i}" for i in range(2)]
    return {
        "metadata": {
            "uid": uid,
            "name": f"pod-{number}-{generation}",
            "namespace": f"namespace-{number % NAMESPACE_COUNT}",
            "labels": {"app": f"app-{number % 100}", "pod-template-hash": "7d9c5b8f6", "tier": "backend"},
            "annotations": {"checksum/config": "0" * 64, "mirror.wallarm.com/enabled": "true"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {f"f:field{i}": {} for i in range(100)}}],
            "ownerReferences": [{"kind": "ReplicaSet", "name": "app-7d9c5b8f6", "controller": True}],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": name, "image": f"registry/{name}:1"} for name in containers]},
        "status": {
            "podIPs": [{"ip": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}],
            "containerStatuses": [
                {"name": name, "containerID": f"containerd://{uid.replace('-', '')}{i:032x}"}
                for i, name in enumerate(containers)
            ],
        },
    }


def usage(pid: int) -> tuple[float, int]:
    """(CPU seconds, proportional set size in KiB)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return (int(fields[11]) + int(fields[12])) / _TICKS, pss


def take(sock: socket.socket, until: bytes, seconds: float = 120.0) -> int:
    """Read messages until one has ``until`` in it; how many came."""
    sock.settimeout(seconds)
    count = 0
    while True:
        message = sock.recv(1 << 18)
        assert message, "the process has ended"
        count += 1
        if until in message:
            return count


def follow(api: ApiServer, port: int, pods: int, changes: int) -> None:
    """One run, and what it took."""
    for number in range(NAMESPACE_COUNT):
        api.tell(NAMESPACES, "ADDED", {"metadata": {"name": f"namespace-{number}", "labels": {}}})
    for number in range(pods):
        api.tell(PATH, "ADDED", pod(number, 0))
    memory = CounterMemory(1)
    child = ChildProcess(
        "kubernetes", "kubernetes", "collector.kubernetes.process", 0, Counters(memory.block(0), KUBERNETES_NAMES)
    )
    settings = KubernetesSettings(host="127.0.0.1", port=port, token_path="", ca_path="", node="n1", tls=False)
    child.start(
        KubernetesStart(log_level="WARN", block=0, blocks=1, uid=None, settings=settings, token=""), [memory.fd], "/"
    )
    assert child.pid is not None
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            child.tell({"kind": "loader"}, [theirs.fileno()])
        with ours:
            told = take(ours, b'"done"')
            listed, pss = usage(child.pid)
            print(f"{pods} pods listed and told ({told} messages): {listed:.2f} s of CPU, {pss / 1024:.1f} MiB")
            rng = random.Random(1)
            generations = dict.fromkeys(range(pods), 0)
            for _ in range(changes // 2):
                number = rng.randrange(pods)
                api.tell(PATH, "DELETED", pod(number, generations[number]))
                generations[number] += 1
                api.tell(PATH, "ADDED", pod(number, generations[number]))
            api.tell(PATH, "ADDED", pod(pods, 999))
            told = take(ours, f"pod-{pods}-999".encode())
            cpu, pss = usage(child.pid)
            each = (cpu - listed) / changes * 1e6
            print(f"{changes} changes ({told} messages): {each:.0f} us of CPU each, {pss / 1024:.1f} MiB")
            time.sleep(10)
            after, pss = usage(child.pid)
            print(f"10 s in which nothing changes: {after - cpu:.2f} s of CPU, {pss / 1024:.1f} MiB")
    finally:
        child.kill()
        while not child.reap():
            time.sleep(0.01)


def main(arguments: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="scripts/bench pods", description=__doc__)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--changes", type=int, default=10000)
    options = parser.parse_args(arguments)
    with running("") as (api, server):
        api.token = ""
        follow(api, server.port, options.pods, options.changes)
