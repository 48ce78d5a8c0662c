"""The limits of system calls and files in use: whatever a run needs, no confined process asks for what it may not."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import confine
from collector.sink import ordered
from tests.collector.test_files import HEAD, data, stream_lines
from tests.conftest import skip_or_fail
from tests.events import GET
from tests.live.harness import Collector, Nginx, wait_for
from tests.live.kafka_broker import Broker, needs_broker
from tests.live.refused import Refused
from tests.live.test_adversity import Load, replaced
from tests.live.test_kafka import counted, topic

pytestmark = [pytest.mark.live, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::ResourceWarning")]

CONFINED = ("shards.process", "sink.process", "health.process")


@pytest.fixture
def refused(live: None) -> Iterator[Refused]:
    """What this test's processes are refused; it has to be closed."""
    if confine.missing():
        skip_or_fail(confine.missing())
    found = Refused(os.getpid())
    yield found
    found.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    needs_broker()
    (tmp_path / "kafka").mkdir()
    b = Broker(tmp_path / "kafka")
    b.start()
    yield b
    b.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0711", "tmpfs", str(path)], check=False).returncode:
        skip_or_fail("needs the right to mount")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def ask(port: int, until: threading.Event) -> None:
    """Health pages without end: whole requests, broken ones, and clients that leave at once."""
    while not until.is_set():
        for request in (b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /healthz HTTP/1.0\r\n\r\n", b"\0\r\n\r\n", b""):
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as sock:
                    sock.sendall(request)
                    while request and sock.recv(65536):
                        pass
            except OSError:  # pushed out, or the child was killed
                pass


def test_a_run_with_everything_is_refused_nothing(
    refused: Refused, broker: Broker, small_disk: Path, tmp_path: Path
) -> None:
    """Kafka, libraries to be read, a spool whose disk is full, processes killed and stopped, signals, health pages."""
    server = Nginx(tmp_path, "location / { return 200 '{\"ok\":true}'; }")
    until = threading.Event()
    c = Collector(
        tmp_path,
        "--output",
        "kafka",
        AKTO_KAFKA_BROKER_MAL=broker.address,
        COLLECTOR_KAFKA_TOPIC=topic(broker, "confined"),
        COLLECTOR_SPOOL_DIR=str(small_disk / "spool"),
        COLLECTOR_COMPRESSION="none",  # so that batches are large enough to be sent without a copy
        AKTO_TRAFFIC_BATCH_SIZE="50",
        AKTO_TRAFFIC_BATCH_TIME_SECS="0.2",
        COLLECTOR_SECCOMP="on",
    )
    asking = threading.Thread(target=ask, args=(c.port, until))
    asking.start()
    load = Load(server.port, "/" + "long" * 800, pause=0.001)

    def delivers() -> bool:
        before = counted(c, "delivered_records_total")
        return wait_for(lambda: counted(c, "delivered_records_total") > before + 100, 30)

    try:
        assert delivers()
        for module in (*CONFINED, "loader.process"):
            for number in (signal.SIGKILL, signal.SIGSTOP):
                victim = c.child(module)
                os.kill(victim, number)
                wait_for(functools.partial(replaced, c, module, victim), 30)
        assert delivers()
        for module in CONFINED:
            for thread in Path(f"/proc/{c.child(module)}/task").iterdir():
                assert "Seccomp:\t2\n" in (thread / "status").read_text(), module
        c.process.send_signal(signal.SIGHUP)
        c.process.send_signal(signal.SIGUSR1)
        stacks = ("shards/process.py", "sink/delivery.py", "health/process.py")
        wait_for(lambda: all(line in c.log() for line in stacks))
        for pid in c.children():
            with contextlib.suppress(ProcessLookupError):  # a reader is over when it has read
                os.kill(pid, signal.SIGUSR2)
        restarts, without_slot = counted(c, "restarts_total"), counted(c, "batches_without_slot_total")
        with broker.stopped():
            wait_for(lambda: re.search("spool.*No space left", c.log()), 60)
            wait_for(lambda: counted(c, "batches_without_slot_total") > without_slot + 10, 60)
        assert delivers() and counted(c, "restarts_total") == restarts, c.log()
    finally:
        until.set()
        asking.join()
        load.stop()
        server.close()
        c.stop()
    refused.close()
    assert not refused.calls, refused.calls
    # the supervisor's children twice and more, and a reader, at least for the library that this process has of Python's
    lives = Counter(refused.confined.values())
    assert all(lives[f"collector.{module}"] > 2 for module in CONFINED) and lives["collector.loader"], lives


def test_a_replay_that_is_brought_into_order_in_files_is_refused_nothing(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "large.streams.jsonl"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 32768\r\n\r\n"
    exchanges = (line for n in range(1500) for line in (data("c2s", n, GET), data("s2c", n, answer + b"%032768d" % n)))
    path.write_text(stream_lines(HEAD, *exchanges))
    run = [sys.executable, "-m", "collector", "replay", str(path)]
    done = subprocess.run(run, capture_output=True, timeout=120, env={**os.environ, confine.VARIABLE: "on"})
    refused.close()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1500 and len(done.stdout) > ordered.MEMORY_BYTES
    assert not refused.calls and "collector.sink.process" in refused.confined.values(), refused.calls


def seccomp(pid: int) -> list[str]:
    """What /proc says of the filters of its system calls."""
    return [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Seccomp")]


def test_without_the_binding_it_is_said_and_files_are_limited_still(live: None, tmp_path: Path) -> None:
    """`auto` where python3-seccomp is not installed."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "seccomp.py").write_text("raise ImportError\n")
    c = Collector(tmp_path, COLLECTOR_SECCOMP="auto", PYTHONPATH=f"{tmp_path / 'hidden'}:{Path.cwd()}")
    try:
        for module in CONFINED:
            assert seccomp(c.child(module)) == seccomp(c.process.pid)
        status = [sys.executable, "-m", "collector", "status", "--json"]
        env = {**os.environ, "COLLECTOR_RUNTIME_DIR": str(tmp_path / "run")}
        notes = json.loads(subprocess.run(status, capture_output=True, timeout=30, env=env).stdout)["notes"]
    finally:
        assert c.stop() == 0
    words = "the processes without privilege can make all system calls: no module seccomp: install the distribution's"
    assert any("WARNING" in line and words in line for line in c.log().splitlines()), c.log()
    assert any(words in note for note in notes)
