"""kill -9 of each child under load, hostile and foreign traffic, signals, what is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.supervisor import memory
from tests.live.harness import Collector, Nginx, Program, wait_for
from tests.live.test_capture import http

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

DOUBT = {"joined_mid_stream", "pairing_uncertain", "request_framing_uncertain", "response_framing_uncertain"}


def loaded_programs() -> int:
    """BPF programs in the kernel (BPF_PROG_GET_NEXT_ID)."""
    libc, count, number = ctypes.CDLL(None), 0, 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 128)
        if libc.syscall(ctypes.c_long(321), ctypes.c_long(11), attributes, ctypes.c_long(128)) != 0:
            return count
        number = struct.unpack_from("=I", attributes.raw, 4)[0]
        count += 1


class Load:
    """Exchanges on keep-alive connections, as fast as it goes, until stopped; counts what was answered."""

    def __init__(self, port: int, path: str, threads: int = 4, pause: float = 0.0) -> None:
        self.answered = 0
        self._until = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(port, path, n, pause), daemon=True) for n in range(threads)
        ]
        for t in self._threads:
            t.start()

    def _work(self, port: int, path: str, number: int, pause: float) -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            i = 0
            while not self._stop.is_set():
                http(sock, f"GET {path}/{number}/{i} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                i += 1
                with self._lock:
                    self.answered += 1
                if pause:
                    time.sleep(max(pause, self._until - time.monotonic()))

    def rest(self, seconds: float) -> None:
        """All connections are silent for so long."""
        self._until = time.monotonic() + seconds
        time.sleep(seconds + 0.2)

    def stop(self) -> int:
        self._stop.set()
        for t in self._threads:
            t.join()
        return self.answered


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    server = Nginx(tmp_path, "location / { return 200 '{\"ok\":true}'; }")
    yield server
    server.close()


@pytest.fixture
def collector(live: None, tmp_path: Path) -> Iterator[Collector]:
    c = Collector(tmp_path, COLLECTOR_UNANSWERED_SECS="3")
    yield c
    c.stop()


def replaced(collector: Collector, module: str, victim: int) -> bool:
    """Is another process in the victim's place, and everything at work?"""
    return collector.child(module) not in (0, victim) and collector.page("readyz").startswith("ok")


def counted(collector: Collector, events: float) -> bool:
    """Were more events than that counted?"""
    return collector.metric("collector_events_total") > events


def test_kill_9_of_each_child_under_load(collector: Collector, nginx: Nginx) -> None:
    load = Load(nginx.port, "/under-load", pause=0.001)
    programs = loaded_programs()
    try:
        for module in ("shards.process", "sink.process", "loader.process"):
            before = collector.metric("collector_events_total")
            victim = collector.child(module)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            wait_for(functools.partial(replaced, collector, module, victim), 5)
            assert time.monotonic() - killed < 2.0, module
            wait_for(functools.partial(counted, collector, before + 100), 10)
            mark = f"/after-{module}"
            with socket.create_connection(("127.0.0.1", nginx.port)) as sock:
                http(sock, f"GET {mark} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            after = collector.wait_records(mark, 2)
            assert all(r["mark"] == [] for r in after)
        assert loaded_programs() == programs  # nothing was compiled or loaded again
        assert collector.metric("collector_restarts_total") == 3
        load.rest(3.1)
        time.sleep(1)
    finally:
        answered = load.stop()
    time.sleep(1)
    log = collector.log()
    assert log.count("ended with -9") == 3
    assert "open connections re-announced" in log  # said by the loader, after a shard was killed
    # the supervisor logs on after three kills
    assert collector.stop() == 0
    assert "supervisor: stopping" in collector.log()
    records = collector.records("/under-load")
    right = {(r["direction"], r["path"]) for r in records if r["words"] <= DOUBT}
    # a dead shard's connections are joined again, in doubt until they are quiet; nothing else may differ, but repetitions
    assert len(right) > 2 * answered * 0.9, (len(right), answered)
    assert not [r for r in records[-100:] if r["mark"]]
    assert not [r for r in records if "peer_unknown" in r["words"]]
    assert collector.process.returncode == 0


def test_kill_9_of_all_children_at_once(collector: Collector, nginx: Nginx) -> None:
    """The same record has the same id, made by whatever life of a shard; another never has it. Addresses stay known."""
    load = Load(nginx.port, "/all-at-once", pause=0.001)
    try:
        for _ in range(3):
            before = collector.metric("collector_events_total")
            victims = {module: collector.child(module) for module in ("shards.process", "sink.process", "loader.process")}
            for pid in victims.values():
                os.kill(pid, signal.SIGKILL)
            for module, pid in victims.items():
                wait_for(functools.partial(replaced, collector, module, pid), 10)
            wait_for(functools.partial(counted, collector, before + 500), 10)
    finally:
        load.stop()
    assert collector.stop() == 0
    records = collector.records("/all-at-once")
    by_id: dict[str, set[tuple[str, str]]] = {}
    by_exchange: dict[tuple[str, str], set[str]] = {}
    for r in records:
        by_id.setdefault(r["recordId"], set()).add((r["direction"], r["path"]))
        by_exchange.setdefault((r["direction"], r["path"]), set()).add(r["recordId"])
    assert all(len(exchanges) == 1 for exchanges in by_id.values())
    assert all(len(ids) == 1 for ids in by_exchange.values())
    assert not [r for r in records if "0.0.0.0:0" in (r["ip"], r["destIp"])]


def test_nothing_is_left_behind(live: None, tmp_path: Path) -> None:
    programs = loaded_programs()
    c = Collector(tmp_path)
    children = c.children()
    assert len(children) == 5 and loaded_programs() > programs
    assert c.stop(signal.SIGINT) == 0
    wait_for(lambda: loaded_programs() == programs, 5)
    assert not [p for p in children if Path(f"/proc/{p}").exists()]
    assert [p.name for p in (tmp_path / "run").rglob("*")] == ["ebpf-api-collector", "lock"]
    assert "collector: stopped:" in c.log()


def test_kill_9_of_the_supervisor_leaves_nothing(live: None, tmp_path: Path) -> None:
    programs = loaded_programs()
    c = Collector(tmp_path)
    children = c.children()
    c.process.kill()
    c.process.wait()
    wait_for(lambda: not [p for p in children if Path(f"/proc/{p}").exists()], 10)
    wait_for(lambda: loaded_programs() == programs, 5)
    again = Collector(tmp_path)
    assert again.stop() == 0


def test_group_signal_still_drains_in_order(live: None, tmp_path: Path) -> None:
    """timeout(1) and systemd signal every process of the group."""
    c = Collector(tmp_path)
    server = Program("echo")
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            for i in range(50):
                http(sock, b"GET /group/%d HTTP/1.1\r\nHost: h\r\n\r\n" % i)
        for pid in [*c.children(), c.process.pid]:
            os.kill(pid, signal.SIGTERM)
        assert c.process.wait(30) == 0
    finally:
        server.close()
    assert len(c.records("/group/")) == 100


def bulk(megabytes: int) -> None:
    """An unrelated transfer through loopback TCP, beginning like nothing we know."""
    listener = socket.create_server(("127.0.0.1", 0))
    piece = os.urandom(1 << 20)

    def receive() -> None:
        sock, _ = listener.accept()
        with sock:
            while sock.recv(1 << 20):
                pass

    thread = threading.Thread(target=receive)
    thread.start()
    with socket.create_connection(listener.getsockname()) as sock:
        for _ in range(megabytes):
            sock.sendall(piece)
    thread.join()
    listener.close()


def strangers(count: int, seed: int) -> None:
    """Connections that speak something else, or nothing in particular."""
    rng = random.Random(seed)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    starts = [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"SSH-2.0-x\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"EHLO me\r\n",
        b"GET",
        b"\0" * 50,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x" * 100,
    ]
    for _ in range(count):
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
            client.send(rng.choice(starts) + rng.randbytes(rng.randrange(1, 400)))
            server.recv(1024)
            server.send(rng.randbytes(rng.randrange(1, 400)))
    listener.close()


def test_foreign_traffic_costs_no_exchange_and_no_memory(collector: Collector, nginx: Nginx) -> None:
    load = Load(nginx.port, "/beside", threads=2, pause=0.0005)
    strangers(200, 1)
    bulk(64)
    time.sleep(1)
    pids = [collector.process.pid, *collector.children()]
    before = memory.pss_bytes(pids)
    scale = int(os.environ.get("NOISE_SCALE", "1"))
    for i in range(3 * scale):
        strangers(1000, i)
        bulk(256)
    answered = load.stop()
    wait_for(lambda: len(collector.records("/beside")) >= 2 * answered, 20, quiet=True)
    records = collector.records("/beside")
    assert len(records) == 2 * answered and not [r for r in records if r["mark"]]
    assert collector.metric("collector_kernel_dropped_events_total") == 0
    assert collector.metric("collector_kernel_ignored_total") > 1000 * scale
    after = memory.pss_bytes(pids)
    rings = 2 * 8 * memory.MIB  # touched little by little as events go round them
    assert after < before * 1.1 + rings, (before >> 20, after >> 20)


def test_output_that_goes_away_ends_the_collector(live: None, tmp_path: Path) -> None:
    env = {**os.environ, "COLLECTOR_RUNTIME_DIR": str(tmp_path / "run"), "COLLECTOR_HEALTH_ADDRESS": "127.0.0.1:0"}
    with subprocess.Popen(
        ["sh", "-c", "python3 -m collector run 2>err.txt | head -1 >out.txt; true"],
        cwd=tmp_path,
        env={**env, "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"},
    ) as shell:
        wait_for(lambda: (tmp_path / "err.txt").exists() and "capturing" in (tmp_path / "err.txt").read_text(), 60)
        server = Program("echo")
        try:
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                deadline = time.monotonic() + 30
                while shell.poll() is None and time.monotonic() < deadline:
                    http(sock, b"GET /pipe HTTP/1.1\r\nHost: h\r\n\r\n")
                    time.sleep(0.1)
        finally:
            server.close()
    assert (tmp_path / "out.txt").read_text().startswith("{")
    assert "output" in (tmp_path / "err.txt").read_text()


def test_memory_limit_drains_and_exits_with_3(live: None, tmp_path: Path) -> None:
    done = subprocess.run(
        [os.sys.executable, "-m", "collector", "run", "--output", "null"],  # type: ignore[attr-defined]
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "COLLECTOR_RUNTIME_DIR": str(tmp_path / "run"),
            "AKTO_MEM_HARD_LIMIT": "40",
            "AKTO_MEM_SOFT_LIMIT": "30",
            "COLLECTOR_HEALTH_ADDRESS": "127.0.0.1:0",
        },
    )
    assert done.returncode == 3, done.stderr
    assert "above AKTO_MEM_THRESH_RESTART (40 MiB)" in done.stderr


def test_new_shards_learn_the_names_of_processes_that_had_nothing_open(collector: Collector) -> None:
    server = Program("instant")

    def call(path: str) -> None:
        for n in range(10):
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                http(sock, f"GET {path}/{n} HTTP/1.1\r\nHost: h\r\n\r\n".encode())

    try:
        call("/named/before")
        collector.wait_records("/named/before", 20)
        for pid in collector.children():
            if b"shards" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: collector.page("readyz").strip() == "ok" and collector.metric("collector_restarts_total") >= 2)
        call("/named/after")
        names = {r["process_name"] for r in collector.wait_records("/named/", 40)}
    finally:
        server.close()
    assert "" not in names


class Pipeliner:
    """One connection with always ``depth`` requests outstanding; each answer's body is the path of its request."""

    def __init__(self, depth: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self.answered = 0
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._ask, args=(depth,))]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with contextlib.suppress(ConnectionError), sock, sock.makefile("rb") as file:
            while line := file.readline():
                while file.readline() != b"\r\n":
                    pass
                path = line.split(b" ")[1]
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

    def _ask(self, depth: int) -> None:
        with socket.create_connection(self._listener.getsockname()) as sock, sock.makefile("rb") as file:
            sent = 0
            while not self._stop.is_set():
                while sent < self.answered + depth:
                    sock.sendall(b"GET /deep/%d HTTP/1.1\r\nHost: h\r\n\r\n" % sent)
                    sent += 1
                while file.readline() != b"\r\n":
                    pass
                assert file.read(len(b"/deep/%d" % self.answered)) == b"/deep/%d" % self.answered
                self.answered += 1
                time.sleep(0.001)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_pipelining_client_older_than_the_collector(live: None, tmp_path: Path, depth: int) -> None:
    """Its answers are those of earlier requests for ever, and nothing in the bytes says so: all of it is in doubt."""
    pipeliner = Pipeliner(depth)
    try:
        collector = Collector(tmp_path)
        before = pipeliner.answered
        wait_for(lambda: pipeliner.answered > before + 1000, 30)
    finally:
        pipeliner.stop()
    assert collector.stop() == 0
    records = collector.records("/deep/")
    answered = [r for r in records if r["statusCode"] == "200"]
    assert len(answered) > 1800
    assert all("pairing_uncertain" in r["words"] for r in answered if r["responsePayload"] != r["path"])


def test_a_loader_that_dies_while_we_are_told_to_stop_loses_nothing(live: None, tmp_path: Path) -> None:
    collector = Collector(tmp_path)
    server = Program("echo")
    try:
        loader = collector.child("collector.loader")
        os.kill(loader, signal.SIGSTOP)
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            for number in range(20):
                http(sock, b"GET /last/%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        os.kill(loader, signal.SIGKILL)
        assert collector.stop() == 0, collector.log()
    finally:
        server.close()
    assert len(collector.records("/last/")) == 40, collector.log()
    assert "loader ended with -9" in collector.log()


def test_the_compiler_ends_with_whoever_started_it(live: None, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "COLLECTOR_RUNTIME_DIR": str(tmp_path / "run"),
        "COLLECTOR_HEALTH_ADDRESS": "127.0.0.1:0",
        "COLLECTOR_PROGRAM_CACHE": "off",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "collector", "run", "--output", "null"], env=env, stderr=subprocess.DEVNULL
    ) as process:

        def compiling() -> list[int]:
            found = []
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if b"collector.loader.compiler" in path.read_bytes().split(b"\0"):
                        found.append(int(path.parent.name))
            return found

        wait_for(lambda: bool(compiling()), 30)
        (compiler,) = compiling()
        process.kill()
    wait_for(lambda: compiler not in compiling())
