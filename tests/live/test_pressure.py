"""Little room: rings that overflow, limits that are met, answers that are too long; each with a collector of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.live.harness import Collector, Nginx, Program, wait_for
from tests.live.kafka_broker import free_port
from tests.live.programs import read_request
from tests.live.test_capture import http
from tests.live.test_sockets import GET, Server, echo, serve_one

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]


def test_a_connection_that_was_given_up_keeps_its_ends(live: None, tmp_path: Path) -> None:
    collector = Collector(tmp_path, TRAFFIC_MAX_ACTIVE_CONN="50")
    server = Server(echo)
    try:
        socks = [server.connect() for _ in range(200)]
        for turn in range(3):
            for sock in socks:
                http(sock, GET % f"/turn/{turn}".encode())
        records = collector.wait_records("/turn/", 1200)
        assert not [r for r in records if "0.0.0.0:0" in (r["ip"], r["destIp"]) or r["process_name"] == ""]
        assert collector.metric("collector_evicted_connections_total") > 500
        for sock in socks:
            sock.close()
    finally:
        server.close()
        collector.stop()


def test_two_big_downloads_leave_small_exchanges_alone(live: None, tmp_path: Path) -> None:
    """Rings too small for the downloads: beyond the body limit nothing is copied, or, until the shard has said so, no more
    than four ends may fill between two drains (bpf/capture.h too_much), which is less than the ring has.
    """
    collector = Collector(tmp_path, COLLECTOR_RING_BYTES=str(4 << 20), COLLECTOR_SHARDS="1")
    big = b"0123456789abcdef" * (50 << 16)

    def serve(sock: socket.socket) -> None:
        while read_request(sock) is not None:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big))
            for at in range(0, len(big), 65536):
                sock.sendall(big[at : at + 65536])

    downloads, small = Server(serve), Program("echo")

    def download(n: int) -> None:
        with downloads.connect() as sock:
            assert len(http(sock, GET % f"/big/{n}".encode())) == len(big)

    threads = [threading.Thread(target=download, args=(n,)) for n in range(2)]
    try:
        sent = 0
        with socket.create_connection(("127.0.0.1", small.port)) as sock:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                http(sock, GET % f"/small/{sent}".encode())
                sent += 1
                time.sleep(0.0025)
        records = collector.wait_records("/small/", 2 * sent)
        assert not [r for r in records if r["mark"]]
        assert collector.metric("collector_kernel_dropped_events_total") == 0
        bodies = collector.wait_records("/big/", 4)
        for r in bodies:
            assert r["responseSize"] == str(len(big)) and r["words"] == {"response_body_cut"}, r["mark"]
        assert collector.metric("collector_kernel_size_only_bytes_total") > 3 * len(big)
        # and what follows on such a connection is right
    finally:
        downloads.close()
        small.close()
        assert collector.stop() == 0


@pytest.mark.parametrize("ring", [256 << 10, 1 << 20])
def test_under_pressure_every_unmarked_record_is_right(live: None, tmp_path: Path, ring: int) -> None:
    """wrk on nginx as fast as it goes, rings too small for it; each answer names its request."""
    collector = Collector(tmp_path, COLLECTOR_RING_BYTES=str(ring))
    nginx = Nginx(tmp_path, 'location / { return 200 \'{"of":"$request_uri","text":"' + "x" * 900 + "\"}'; }")
    script = tmp_path / "numbers.lua"
    script.write_text('local n = 0\nrequest = function() n = n + 1 return wrk.format("GET", "/wrk/" .. n) end\n')
    try:
        text = subprocess.run(
            ["wrk", "-t1", "-c32", "-d2s", "-s", script, f"http://127.0.0.1:{nginx.port}/"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        done = int(re.findall(r"(\d+) requests in", text)[0])
        wait_for(lambda: collector.metric("collector_queued_exchanges") == 0, 20, quiet=True)
        time.sleep(1)
        # without the schema's validation, which takes longer than everything else together
        records = [json.loads(line) for line in collector.output.read_bytes().split(b"\n")[:-1] if b"/wrk/" in line]
        dropped = collector.metric("collector_kernel_dropped_events_total")
    finally:
        nginx.close()
        collector.stop()
    unmarked = [r for r in records if r["marks"] == "[]"]
    wrong = [r for r in unmarked if f'"of":"{r["path"]}"' not in r["responsePayload"]]
    print(  # noqa: T201
        f"ring {ring}: {done} exchanges, {len(records)} records, {len(records) - len(unmarked)} marked, "
        f"{dropped:.0f} events dropped"
    )
    assert not wrong, wrong[:3]
    # and it is not for want of records; what came behind a loss on a connection that is never silent stays in doubt
    assert len(records) > done / 10 and unmarked


# ---- the command line ----


@pytest.mark.parametrize("possible", [False, True])
def test_pid_of_nobody_is_a_clear_error(live: None, tmp_path: Path, *, possible: bool) -> None:
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    free = (number for number in range(most - 1, 1, -1) if not Path(f"/proc/{number}").exists())
    pid = str(next(free)) if possible else "999999999"
    done = run_briefly(tmp_path, "--pid", pid)
    assert done.returncode == 78 and f"--pid {pid}: " in done.stderr


def test_pid_of_a_thread_means_its_process(live: None, tmp_path: Path) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    done = run_briefly(tmp_path, "--pid", str(thread.native_id))
    stop.set()
    thread.join()
    assert done.returncode == 0 and f"is a thread of process {os.getpid()}" in done.stderr
    assert f"HTTP of process {os.getpid()}" in done.stderr


def run_briefly(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collector", "run", "--output", "null", "--duration", "1", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "COLLECTOR_RUNTIME_DIR": str(directory / "run"),
            "COLLECTOR_HEALTH_ADDRESS": f"127.0.0.1:{free_port()}",
        },
    )


def test_unix_sockets_when_asked_for(live: None, tmp_path: Path) -> None:
    """Roles and positions without the kernel's counters; passed on; the entries of killed processes are swept."""
    collector = Collector(tmp_path, COLLECTOR_UNIX_SOCKETS="true")
    path = str(tmp_path / "sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                sock = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve_one, args=(sock,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    killed = """
import os, socket, sys
for n in range(100):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    sock.sendall(b"GET /unix/killed/%d HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n" % n)
    sock.recv(1000)
    sock.detach()
os.kill(os.getpid(), 9)
"""
    try:
        for n in range(10):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                for turn in range(3):
                    http(sock, GET % f"/unix/{n}/{turn}".encode())
        a, b = socket.socketpair()
        with a, b:
            a.send(GET % b"/unix/pair")
            b.recv(1000)
        records = collector.wait_records("/unix/", 60)
        assert {r["direction"] for r in records} == {"1", "2"} and not [r for r in records if r["words"] - {"peer_unknown"}]
        subprocess.run([sys.executable, "-c", killed, path], check=False)
        assert len(collector.wait_records("/unix/killed/", 200)) == 200
        wait_for(lambda: collector.metric("collector_kernel_connections") < 20, 40)
        # others were found when their memory became another file's: how many depends on what else the machine does
        assert collector.metric("collector_kernel_connections_swept_total") >= 1
    finally:
        listener.close()
        collector.stop()
