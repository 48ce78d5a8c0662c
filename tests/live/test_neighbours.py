"""Other users of the node who mean harm: the health port, the processes, the runtime directory; and `collector status`.

Attacks run at a tenth of their scale; ATTACK_SCALE=1 runs them as they were found: 930 slow connections and 12,000 silent
ones against 1,024 descriptors, 440 resets a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.harness import Collector, Program, wait_for
from tests.live.kafka_broker import free_port
from tests.live.test_capture import http

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

SCALE = float(os.environ.get("ATTACK_SCALE", "0.1"))
NOFILE = 1024
STRANGER, NONROOT = 54321, 65532
PYTHON = "/usr/bin/python3"  # the one that every user can run


@pytest.fixture
def collector(live: None, tmp_path: Path) -> Iterator[Collector]:
    c = Collector(tmp_path, COLLECTOR_TLS_LIBRARIES="none")  # what is logged of libraries is not their doing
    resource.prlimit(c.process.pid, resource.RLIMIT_NOFILE, (NOFILE, NOFILE))
    yield c
    c.stop()


@contextlib.contextmanager
def attack(kind: str, port: int, number: int) -> Iterator[None]:
    code = (Path(__file__).parent / "neighbours.py").read_text()
    with subprocess.Popen(
        [PYTHON, "-c", code, kind, str(port), str(number)],
        user=STRANGER,
        group=STRANGER,
        cwd="/",
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "under way\n"
            yield
        finally:
            process.kill()


def status(c: Collector, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collector", "status", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "COLLECTOR_RUNTIME_DIR": str(c.directory / "run")},
    )


def details(c: Collector) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(status(c, "--json").stdout)
    return said


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


ABOUT_A_PROCESS = re.compile(r"\bprocess '(?!neighbour')|\blibrary '")


def lines_because_of_it(log: str) -> list[str]:
    """The lines that the neighbour may be the cause of: all but those that name another process of the node, or a library,
    for others start and map libraries whenever they like."""
    return [line for line in log.splitlines() if not ABOUT_A_PROCESS.search(line)]


def is_ok(c: Collector, page: str) -> bool:
    try:
        return c.page(page).startswith("ok")
    except OSError:
        return False


def test_what_the_neighbour_is_the_cause_of() -> None:
    others = """WARNING loader: process 'node': TLS that is not captured: OpenSSL 3.0 in '/usr/bin/node': it is stripped
INFO loader: read: library 'libssl.so.3' (/usr/lib/libssl.so.3), openssl
"""
    its = """WARNING loader: process 'neighbour': has connections over QUIC (HTTP/3), which cannot be captured
WARNING health: too many connections
ERROR supervisor: health is unresponsive (no heartbeat for 5.0 s); killing it
"""
    assert lines_because_of_it(others + its) == its.splitlines()


@pytest.mark.parametrize(("kind", "number"), [("slow", 930), ("many", 12_000), ("resets", 440)])
def test_attacks_on_the_port_touch_nothing_else(collector: Collector, kind: str, number: int) -> None:
    wait_for(lambda: "loader: attached: hooks" in collector.log())  # lines of children come by a thread of their own
    before = len(collector.log())
    supervisor, health = collector.process.pid, collector.child("health.process")
    supervisor_threads = threads(supervisor)
    server = Program("echo")
    try:
        with attack(kind, collector.port, max(20, int(number * SCALE))):
            for n in range(20 if SCALE >= 1 else 4):
                time.sleep(0.5)
                with socket.create_connection(("127.0.0.1", server.port)) as sock:
                    http(sock, f"GET /beside/{n} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                assert is_ok(collector, "healthz") and is_ok(collector, "readyz"), n
                assert status(collector).returncode == 0
            assert threads(supervisor) == supervisor_threads and threads(health) == 1
            assert len(os.listdir(f"/proc/{health}/fd")) < 400
            assert collector.child("health.process") == health
            said, lines = details(collector)["totals"], lines_because_of_it(collector.log()[before:])
            asked = time.monotonic()
            assert collector.stop() == 0
            stopped = time.monotonic()
        assert lines == []
    finally:
        server.close()
    assert len({(r["direction"], r["path"]) for r in collector.records("/beside/") if not r["mark"]}) == 2 * (n + 1)
    print(  # noqa: T201
        f"\n{kind} x {max(20, int(number * SCALE))}: supervisor threads {supervisor_threads}, health threads 1, "
        f"no line in the log, stopped in {stopped - asked:.1f} s, "
        f"health child {said['health_cpu_ns'] / 1e9:.2f} s CPU, {said['health_pushed_out']} pushed out, "
        f"{said['health_too_slow']} too slow, {said['health_requests']} answered"
    )


def test_kill_9_of_the_health_child_costs_nothing(collector: Collector) -> None:
    others = set(collector.children()) - {collector.child("health.process")}
    for n in range(1, 4):
        victim = collector.child("health.process")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: collector.child("health.process") not in (0, victim) and is_ok(collector, "readyz"), 10)  # noqa: B023
        assert collector.metric("collector_restarts_total") == n
    assert others < set(collector.children()) and status(collector).returncode == 0


def test_a_health_child_that_stops_its_sockets_is_replaced_by_one_with_others(collector: Collector) -> None:
    """What a child that was taken over could do to the supervisor's sockets."""
    child = collector.child("health.process")
    for name in os.listdir(f"/proc/{child}/fd"):
        pidfd = os.pidfd_open(child)
        fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, int(name), 0)  # pidfd_getfd
        os.close(pidfd)
        if fd >= 0:
            with contextlib.suppress(OSError), socket.socket(fileno=fd) as sock:
                if sock.family == socket.AF_INET and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    sock.shutdown(socket.SHUT_RDWR)
    wait_for(functools.partial(is_ok, collector, "readyz"), 20)


def test_a_supervisor_that_hangs_is_not_live(collector: Collector) -> None:
    os.kill(collector.process.pid, signal.SIGSTOP)
    try:
        for page in ("healthz", "readyz"):
            wait_for(lambda: "no heartbeat" in collector.page(page), 30)  # noqa: B023
        done = status(collector, "--live")
        assert done.returncode == 1 and "live      no: the supervisor has sent no heartbeat" in done.stdout
    finally:
        os.kill(collector.process.pid, signal.SIGCONT)
    wait_for(functools.partial(is_ok, collector, "readyz"))
    assert status(collector, "--live").returncode == 0


def test_capture_starts_though_somebody_has_the_port(live: None, tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        collector = Collector(tmp_path, COLLECTOR_HEALTH_ADDRESS=f"127.0.0.1:{port}")
        collector.port = port
        server = Program("echo")
        try:
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                http(sock, b"GET /port-taken HTTP/1.1\r\nHost: h\r\n\r\n")
            collector.wait_records("/port-taken", 2)
            assert collector.log().count("in use by another program; starting without them") == 1
            done = status(collector)
            assert done.returncode == 0 and f"127.0.0.1:{port}: in use by another program" in done.stdout
        except BaseException:
            collector.stop()
            raise
        finally:
            server.close()
    try:
        wait_for(functools.partial(is_ok, collector, "readyz"), 20)
        assert details(collector)["health_problem"] == ""
        assert collector.log().count("health pages:") == 2
    finally:
        assert collector.stop() == 0


@pytest.mark.parametrize("address", ["1.2.3.4:80", "[fe80::1234:5678]:80", "no-such-host.invalid:80"])
def test_an_address_that_this_host_does_not_have(live: None, tmp_path: Path, address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "collector", "run", "--output", "null", "--duration", "1"],
        timeout=60,
        capture_output=True,
        text=True,
        env={**os.environ, "COLLECTOR_HEALTH_ADDRESS": address, "COLLECTOR_RUNTIME_DIR": str(tmp_path / "run")},
    )
    assert done.returncode == 78 and f"COLLECTOR_HEALTH_ADDRESS={address}: " in done.stderr


def test_status(collector: Collector, tmp_path: Path) -> None:
    done = status(collector)
    assert done.returncode == 0 and "ready     yes: ok" in done.stdout and f"127.0.0.1:{collector.port}" in done.stdout
    said = details(collector)
    assert said["live"] and said["ready"] and said["pid"] == collector.process.pid and said["health_problem"] == ""
    assert {child["pid"] for child in said["children"]} == set(collector.children())
    assert [said["totals"][name] for name in ("loader_kernel_dropped_events", "records_marked")] == [0, 0]
    command = [sys.executable, "-m", "collector", "status"]
    os.kill(collector.child("loader.process"), signal.SIGSTOP)
    try:
        assert status(collector, "--live").returncode == 0
    finally:
        os.kill(collector.child("loader.process"), signal.SIGCONT)
    assert collector.stop() == 0
    for place in (tmp_path / "run", tmp_path / "nowhere"):
        environment = {**os.environ, "COLLECTOR_RUNTIME_DIR": str(place)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 3 and "no collector answers" in done.stderr and done.stdout == ""


def test_status_is_for_the_user_of_the_collector_alone(collector: Collector) -> None:
    os.chmod(collector.directory, 0o755)
    os.chmod(collector.directory / "run", 0o755)
    sock = collector.directory / "run" / "ebpf-api-collector" / "status.sock"
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run(
        [PYTHON, "-c", code, str(sock)], user=STRANGER, group=STRANGER, cwd="/", capture_output=True, text=True
    )
    assert "Permission denied" in done.stderr and sock.exists()


def test_users_of_common_images_cannot_touch_the_children(collector: Collector) -> None:
    """Neither signal, nor limit, nor look into their memory."""
    code = """
import errno, os, resource, sys
for pid in map(int, sys.argv[1:]):
    for act in (lambda: os.kill(pid, 0), lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (10, 10)),
                lambda: open(f"/proc/{pid}/mem", "rb"), lambda: os.listdir(f"/proc/{pid}/fd")):
        try:
            act()
            print("could", pid, act)
        except OSError as error:
            assert error.errno in (errno.EPERM, errno.EACCES), error
print("done")
"""
    health = int(Path(f"/proc/{collector.child('health.process')}/status").read_text().split("Uid:")[1].split()[0])
    for user in (NONROOT, STRANGER):
        done = subprocess.run(
            [PYTHON, "-c", code, *map(str, collector.children())],
            user=user,
            group=user,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
        )
        assert done.stdout == "done\n", (done.stdout, done.stderr)
    # and the child that strangers talk to is not of the shards' and the sink's user
    shard = collector.child("shards.process")
    done = subprocess.run(
        [PYTHON, "-c", code, str(shard)], user=health, group=health, extra_groups=[], cwd="/", capture_output=True, text=True
    )
    assert done.stdout == "done\n"


def test_nothing_is_imported_from_where_a_child_works(collector: Collector) -> None:
    """The children's directory belongs to those without privilege; the loader and the compiler are root."""
    run = next((collector.directory / "run" / "ebpf-api-collector").glob("run-*"))
    for name in ("json", "zmq", "bcc", "collector"):
        (run / f"{name}.py").write_text("raise SystemExit('imported from the working directory')\n")
    victim = collector.child("loader.process")
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: collector.child("loader.process") not in (0, victim) and is_ok(collector, "readyz"), 20)
    assert "imported from the working directory" not in collector.log()


def test_recording_goes_to_no_link(live: None, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    for option in ("--record", "--output"):
        done = subprocess.run(
            [sys.executable, "-m", "collector", "run", option, str(tmp_path / "link"), "--duration", "1"],
            timeout=60,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "COLLECTOR_RUNTIME_DIR": str(tmp_path / "run"),
                "COLLECTOR_HEALTH_ADDRESS": f"127.0.0.1:{free_port()}",
            },
        )
        assert done.returncode == 78 and "is a link: refused" in done.stderr
    assert victim.read_text() == "precious"
    device = os.stat("/dev/null").st_mode
    collector = Collector(tmp_path, "--record", "/dev/null")
    assert collector.stop() == 0 and os.stat("/dev/null").st_mode == device
