"""scripts/bench overhead: what capture costs the traced programs (root; attaches and detaches real probes).

Untraced, an empty program on the same hooks, and capture alternate round by round, so that drift of the machine meets
all of them; the figures are medians of the differences within a round, with the 95 % interval of the median (order
statistics). Loops: CPU time of the calling thread, in C. nginx: CPU time of its worker per request (schedstat), with a
body of 1 KB over 32 keep-alive connections; and the run time of the programs by the kernel's own count
(kernel.bpf_stats_enabled, which itself adds to each run).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

from collector.loader import compiler, kernel
from collector.loader.probes import SOURCES
from collector.loader.probes.attachments import Attachments
from collector.loader.probes.probe import DESCRIPTOR, RAW, SOCKET, TPX, Tracepoint
from collector.loader.process import attach_sources
from collector.loader.programs import Loaded, compile_programs
from collector.loader.ringbuffer import Ring, RingView

LOOPS = ("getppid", "devnull", "tcp200", "tcp1024", "udp64", "udp1300", "mudp64", "mudp1300")
NGINX_BODY = 1024

_C = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
static void tcp_pair(int pair[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (void *)&a, n);
    getsockname(listener, (void *)&a, &n);
    listen(listener, 1);
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    connect(pair[0], (void *)&a, n);
    pair[1] = accept(listener, 0, 0);
    setsockopt(pair[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    close(listener);
}
static void udp_pair(int pair[2])
{
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        pair[i] = socket(AF_INET, SOCK_DGRAM, 0);
        bind(pair[i], (void *)&a, sizeof(a));
    }
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in a;
        socklen_t n = sizeof(a);
        getsockname(pair[i], (void *)&a, &n);
        connect(pair[1 - i], (void *)&a, n);
    }
}
#define BATCH 16
/* A batch of datagrams by one sendmmsg and one recvmmsg. */
static int batch(int pair[2], char *out, char *in, int size)
{
    struct mmsghdr m[2][BATCH] = {};
    struct iovec v[2] = {{out, size}, {in, size}};
    for (int i = 0; i < 2 * BATCH; i++) {
        m[i / BATCH][i % BATCH].msg_hdr.msg_iov = &v[i / BATCH];
        m[i / BATCH][i % BATCH].msg_hdr.msg_iovlen = 1;
    }
    return sendmmsg(pair[0], m[0], BATCH, 0) == BATCH && recvmmsg(pair[1], m[1], BATCH, 0, 0) == BATCH;
}
int main(void)
{
    static char out[2048], in[2048];
    int pair[2], null = open("/dev/null", O_WRONLY), n;
    char name[32];
    memset(out, 'x', sizeof(out));
    memcpy(out, "GET /bench HTTP/1.1\r\nX: ", 24);
    setvbuf(stdout, NULL, _IONBF, 0);
    while (scanf("%31s %d", name, &n) == 2) {
        if (strstr(name, "udp")) udp_pair(pair);
        else tcp_pair(pair);
        int size = strstr(name, "1024") ? 1024 : strstr(name, "1300") ? 1300 : strstr(name, "64") ? 64 : 200;
        double start = now();
        if (name[0] == 'g') for (int i = 0; i < n; i++) syscall(SYS_getppid);
        else if (name[0] == 'd') for (int i = 0; i < n; i++) { if (write(null, in, 100) < 0) return 1; }
        else if (name[0] == 'm') for (int i = 0; i < n; i++) { if (!batch(pair, out, in, size)) return 1; }
        else for (int i = 0; i < n; i++) {
            if (send(pair[0], out, size, 0) != size || recv(pair[1], in, size, MSG_WAITALL) != size) return 1;
        }
        printf("%f\n", (now() - start) / n);
        close(pair[0]); close(pair[1]);
    }
    return 0;
}
"""


def empty_program() -> int:
    """A tracepoint program that returns 0 (bpf(BPF_PROG_LOAD))."""
    instructions = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIQQ", 5, 2, ctypes.addressof(instructions), ctypes.addressof(licence)), 128
    )
    fd = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(321), ctypes.c_long(5), attributes, ctypes.c_long(128))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "BPF_PROG_LOAD")
    return int(fd)


class Probes:
    """The kernel programs, loaded once; attached and detached by turns; rings drained to nowhere by a thread."""

    def __init__(self, variant: str, identity: str, ring_bytes: int = 8 << 20) -> None:
        self.tracefs = kernel.find_tracefs() or sys.exit("no tracefs")
        rings = 2
        self.loaded: Loaded = compile_programs(
            {
                **compiler.DEFAULTS,
                "RINGS": rings,
                "CPUS": kernel.possible_cpus(),
                "WAKE_BYTES": ring_bytes,
                "RUN_BYTES": 1 << 31,
                "WINDOW_BYTES": 1 << 31,
            },
            [variant],
            identity,
        )
        self.empty = empty_program()
        self.rings = []
        self.views = []
        for i in range(rings):
            fd = kernel.create_ring(ring_bytes)
            self.loaded.rings.append(fd)
            kernel.map_update(self.loaded.maps["rings"], struct.pack("=I", i), struct.pack("=I", fd))
            self.rings.append(Ring(fd, ring_bytes))
            self.views.append(RingView(fd, ring_bytes))
        self._empties: list[int] = []
        self._attachments = Attachments(self.loaded.programs, self.tracefs, multi=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while not self._stop.is_set():
            for ring, view in zip(self.rings, self.views, strict=True):
                span = ring.next_span(ring.size)
                if span:
                    zlib.crc32(view.view(*span))  # as a shard does: another core reads what the program has written
                    ring.release(span[0] + span[1])
            time.sleep(0.01)

    def ignore(self, pid: int, on: bool) -> None:
        """Set or clear a process's bit."""
        word = kernel.map_lookup(self.loaded.maps["pid_bits"], struct.pack("=I", pid >> 6), 8) or bytes(8)
        bits = struct.unpack("=Q", word)[0]
        bits = bits | (1 << (pid & 63)) if on else bits & ~(1 << (pid & 63))
        kernel.map_update(self.loaded.maps["pid_bits"], struct.pack("=I", pid >> 6), struct.pack("=Q", bits))

    def set(self, mode: str) -> None:
        """off, empty or traced."""
        self._attachments.close_kernel()
        for fd in self._empties:
            os.close(fd)
        self._empties.clear()
        if mode == "traced":
            attach_sources(SOURCES, self.loaded, self._attachments)
        elif mode == "empty":
            for probe in SOURCES[0].probes(self.loaded.build):
                if not probe.need and isinstance(probe.at, Tracepoint):
                    self._empties.append(
                        kernel.attach_tracepoint(self.empty, probe.at.category, probe.at.name, self.tracefs)
                    )

    def run_times(self) -> dict[str, tuple[int, int]]:
        """(ns, runs) of each program by the kernel's count."""
        out = {}
        for name, fd in self.loaded.programs.items():
            text = Path(f"/proc/self/fdinfo/{fd}").read_text()
            found = dict(re.findall(r"(run_time_ns|run_cnt):\s*(\d+)", text))
            out[name] = int(found.get("run_time_ns", 0)), int(found.get("run_cnt", 0))
        return out

    def dropped(self) -> int:
        """Events that found no room."""
        value = kernel.map_lookup(self.loaded.maps["stats"], struct.pack("=I", 0), 8 * kernel.possible_cpus())
        return sum(struct.unpack(f"={kernel.possible_cpus()}Q", value or b""))

    def close(self) -> None:
        """Detach and stop."""
        self.set("off")
        self._stop.set()
        self._thread.join()


def interval(values: list[float]) -> dict[str, float]:
    """Median with its 95 % interval by order statistics."""
    ordered = sorted(values)
    n = len(ordered)
    half = 0.98 * math.sqrt(n)
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return {
        "median": round(ordered[n // 2], 1),
        "low": round(ordered[low], 1),
        "high": round(ordered[high], 1),
        "min": round(ordered[0], 1),
    }


def loops(probes: Probes, rounds: int, iterations: int) -> dict[str, object]:
    """Nanoseconds added per iteration of each loop."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "loop.c")
        path.write_text(_C)
        subprocess.run(["gcc", "-O2", "-o", f"{folder}/loop", path], check=True)
        process = subprocess.Popen([f"{folder}/loop"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def measure(loop: str) -> float:
            stdin.write(f"{loop} {iterations}\n")
            stdin.flush()
            return float(stdout.readline())

        out: dict[str, object] = {}
        for loop in LOOPS:
            measure(loop)
            series: dict[str, list[float]] = {"off": [], "empty": [], "ignored": [], "traced": []}
            for _ in range(rounds):
                for mode in series:
                    probes.ignore(process.pid, mode == "ignored")
                    probes.set("traced" if mode == "ignored" else mode)
                    series[mode].append(measure(loop))
            base = series["off"]
            out[loop] = {
                "off_ns": round(min(base), 1),
                **{
                    f"{mode}_added_ns": interval([b - a for a, b in zip(base, series[mode], strict=True)])
                    for mode in ("empty", "ignored", "traced")
                },
                "traced_over_empty_ns": interval([b - a for a, b in zip(series["empty"], series["traced"], strict=True)]),
                "ignored_over_empty_ns": interval([b - a for a, b in zip(series["empty"], series["ignored"], strict=True)]),
            }
        stdin.close()
        process.wait()
    return out


def nginx(probes: Probes, rounds: int, seconds: float) -> dict[str, object]:
    """CPU microseconds of an nginx worker per request."""
    from tests.live.harness import Nginx

    with tempfile.TemporaryDirectory() as folder:
        text = "x" * (NGINX_BODY - len('{"text":""}'))
        server = Nginx(Path(folder), 'location / { return 200 \'{"text":"' + text + "\"}'; }")
        worker = server.workers()[0]
        series: dict[str, list[float]] = {"off": [], "empty": [], "traced": []}
        try:
            for _ in range(rounds):
                for mode in series:
                    probes.set(mode)
                    before = int(Path(f"/proc/{worker}/schedstat").read_text().split()[0])
                    with subprocess.Popen(
                        ["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{server.port}/x"],
                        stdout=subprocess.PIPE,
                        text=True,
                    ) as wrk:
                        probes.ignore(wrk.pid, True)
                        text = wrk.communicate()[0]
                        probes.ignore(wrk.pid, False)
                    used = int(Path(f"/proc/{worker}/schedstat").read_text().split()[0]) - before
                    found = re.search(r"(\d+) requests in", text)
                    assert found, text
                    series[mode].append(used / int(found[1]) / 1000)
            programs = run_time(probes, server, seconds)
        finally:
            server.close()
    return {
        "programs_ns": programs,
        "off_us": interval(series["off"]),
        "empty_us": interval(series["empty"]),
        "traced_us": interval(series["traced"]),
        "added_us": interval([round(b - a, 3) for a, b in zip(series["off"], series["traced"], strict=True)]),
        "over_empty_us": interval([round(b - a, 3) for a, b in zip(series["empty"], series["traced"], strict=True)]),
    }


def run_time(probes: Probes, server: object, seconds: float, rounds: int = 5) -> dict[str, list[float]]:
    """Mean ns of a run of the programs that nginx's worker meets, least and middle of the rounds."""
    from tests.live.harness import Nginx

    assert isinstance(server, Nginx)
    switch = Path("/proc/sys/kernel/bpf_stats_enabled")
    found: dict[str, list[float]] = {}
    probes.set("traced")
    switch.write_text("1")
    try:
        for _ in range(rounds):
            before = probes.run_times()
            with subprocess.Popen(
                ["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{server.port}/x"], stdout=subprocess.DEVNULL
            ) as wrk:
                probes.ignore(wrk.pid, True)
                wrk.wait()
                probes.ignore(wrk.pid, False)
            for name, (ns, runs) in probes.run_times().items():
                if name.endswith(("exit_recvfrom", "exit_writev")) and runs - before[name][1] > 1000:
                    found.setdefault(name, []).append((ns - before[name][0]) / (runs - before[name][1]))
    finally:
        switch.write_text("0")
        probes.set("off")
    return {name: [round(min(values), 1), round(sorted(values)[len(values) // 2], 1)] for name, values in found.items()}


def main(arguments: list[str]) -> None:
    """Entry of `scripts/bench overhead`."""
    parser = argparse.ArgumentParser(prog="scripts/bench overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--iterations", type=int, default=20000)
    parser.add_argument("--nginx-rounds", type=int, default=8)
    parser.add_argument("--nginx-seconds", type=int, default=1)
    parser.add_argument("--variant", choices=(TPX, RAW), default=TPX)
    parser.add_argument("--identity", choices=(SOCKET, DESCRIPTOR), default=SOCKET)
    parser.add_argument("--ring-bytes", type=int, default=8 << 20)
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the output is always one JSON line")
    options = parser.parse_args(arguments)
    probes = Probes(options.variant, options.identity, options.ring_bytes)
    try:
        result = {
            "variant": options.variant,
            "identity": options.identity,
            "ring_bytes": options.ring_bytes,
            "loops": loops(probes, options.rounds, options.iterations),
        }
        if options.nginx_rounds:
            result["nginx"] = nginx(probes, options.nginx_rounds, options.nginx_seconds)
        result["dropped_events"] = probes.dropped()
    finally:
        probes.close()
    print(json.dumps(result))
