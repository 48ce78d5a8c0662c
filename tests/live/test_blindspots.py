"""What cannot be captured is named: TLS of libraries without probes, by process and library, in the metrics, the
status and `collector check --tls`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import skip_or_fail
from tests.live.harness import HERE, Collector, wait_for

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]
PASSWORD = "changeit"
HELLO = b"\x16\x03\x01\x00\x05hello"  # begins like a TLS handshake
PROGRAM = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())  # PR_SET_NAME
port, data, stay = int(sys.argv[2]), bytes.fromhex(sys.argv[3]), sys.argv[4] == "stay"
for _ in range(int(sys.argv[5])):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(data)
        sock.recv(1)
print("done", flush=True)
if stay:
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def collector(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("blindspots")
    directory.chmod(0o755)
    running = Collector(directory)
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that answers each connection with one byte and closes it; in this process, so it is counted as well."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _address = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(1000)
                    sock.sendall(b"x")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


class Java:
    """tests/live/Https.java: a server and its client in one process."""

    def __init__(self, directory: Path) -> None:
        java, keytool = shutil.which("java"), shutil.which("keytool")
        if java is None or keytool is None:
            skip_or_fail("needs java and keytool")
        assert java is not None and keytool is not None
        store = directory / "store.p12"
        name = "CN=localhost"
        common: list[str | Path] = ["-keystore", store, "-storepass", PASSWORD, "-storetype", "PKCS12"]
        subprocess.run(
            [keytool, "-genkeypair", "-alias", "a", "-keyalg", "EC", "-dname", name, "-ext", "san=dns:localhost", *common],
            check=True,
            capture_output=True,
        )
        self.process = subprocess.Popen(
            [java, "-Xmx64m", HERE / "Https.java", store, PASSWORD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            self.close()
            raise RuntimeError(line)

    def exchange(self, number: int) -> None:
        """So many exchanges, each on a connection of its own."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "done"

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def value(collector: Collector, metric: str, library: str, process: str) -> float:
    line = f'{metric}_total{{library="{library}",process="{process}"}} '
    return sum(float(each.removeprefix(line)) for each in collector.page("metrics").splitlines() if each.startswith(line))


def listed() -> list[dict[str, Any]]:
    """What `collector check --tls` says of processes."""
    command = [sys.executable, "-m", "collector", "check", "--tls", "--json"]
    said = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    rows: list[dict[str, Any]] = said["processes"]
    return rows


TLS = "collector_tls_unsupported_connections"


def play(name: str, port: int, data: bytes, number: int, *, stay: bool) -> subprocess.Popen[str]:
    """A process of that name with so many connections that begin with these bytes."""
    arguments = [name, str(port), data.hex(), "stay" if stay else "-", str(number)]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    return process


def test_https_of_java_is_counted_under_its_name_and_listed(collector: Collector, tmp_path: Path) -> None:
    java = Java(tmp_path)
    try:
        java.exchange(7)
        wait_for(lambda: value(collector, TLS, "jsse", "java") == 14, 20)  # client and server
        (row,) = [row for row in listed() if row["pid"] == java.process.pid]
        assert (row["process"], row["library"], row["state"]) == ("java", "jsse", "not captured")
        assert row["version"] and "Java" in row["why"] and row["file"].endswith("/libjvm.so")
        java.exchange(3)
        wait_for(lambda: value(collector, TLS, "jsse", "java") == 20, 20)
    finally:
        java.close()
    assert collector.log().count("process 'java': TLS that is not captured: jsse") == 1
    assert not collector.records("/java")
    status = json.loads(
        subprocess.run(
            [sys.executable, "-m", "collector", "status", "--json"],
            env={**os.environ, "COLLECTOR_RUNTIME_DIR": str(collector.directory / "run")},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    )
    assert [TLS, "jsse", "java", 20] in status["unsupported"]


def test_a_program_whose_library_is_not_known_is_counted_under_its_own_name(collector: Collector, port: int) -> None:
    process = play('odd"na\nme', port, HELLO, 5, stay=True)
    program = os.path.basename(os.path.realpath(f"/proc/{process.pid}/exe"))
    try:
        wait_for(lambda: value(collector, TLS, program, 'odd\\"na?me') == 5, 20)
    finally:
        process.communicate("")


def test_a_process_that_has_ended_is_counted(collector: Collector, port: int) -> None:
    play("moment", port, HELLO, 3, stay=False).communicate()
    wait_for(lambda: sum(value(collector, TLS, label, "moment") for label in ("unknown", "python3.11")) == 3, 20)


def test_a_new_loader_counts_nothing_twice(collector: Collector, port: int) -> None:
    process = play("twice", port, HELLO, 4, stay=True)
    program = os.path.basename(os.path.realpath(f"/proc/{process.pid}/exe"))

    def counted() -> float:
        return sum(value(collector, TLS, label, "twice") for label in ("unknown", program))

    try:
        wait_for(lambda: counted() == 4, 20)
        victim = collector.child("loader.process")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: collector.child("loader.process") not in (0, victim), 30)
        wait_for(lambda: collector.page("readyz").strip() == "ok", 30)
        play("twice", port, HELLO, 2, stay=False).communicate()
        wait_for(lambda: counted() >= 6, 20)
        assert counted() == 6
    finally:
        process.communicate("")


HOOKED = """
import ctypes, socket, ssl, sys, threading
ctypes.CDLL(None).prctl(15, b"hooked")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
mine = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
mine.check_hostname, mine.verify_mode = False, ssl.CERT_NONE
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        try:
            with context.wrap_socket(listener.accept()[0], server_side=True) as sock:
                sock.recv(1000)
                sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
        except OSError:
            pass
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        sock = mine.wrap_socket(socket.create_connection(listener.getsockname()))
        sock.sendall(b"GET /hooked HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        while sock.recv(1000):
            pass
        sock.close()
    if line.startswith("0"):  # no handshake comes of it
        with socket.create_connection(listener.getsockname()) as sock:
            sock.sendall(b"\\x16\\x03\\x01\\x00\\x05hello")
            while sock.recv(1000):
                pass
    print("done", flush=True)
"""
UNBOUND = "collector_tls_unbound_connections"


def test_what_is_seen_is_not_counted_and_a_failed_handshake_is_told_apart(collector: Collector, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-subj", "/CN=x", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    certificate.write_text(certificate.read_text() + key.read_text())
    process = subprocess.Popen(
        [sys.executable, "-c", HOOKED, certificate], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def play(number: int) -> None:
        stdin.write(f"{number}\n")
        stdin.flush()
        assert stdout.readline() == "done\n"

    try:
        assert stdout.readline() == "ready\n"
        wait_for(lambda: re.search(r"attached: library '[^']*/libssl", collector.log()), 20)
        play(7)
        collector.wait_records("/hooked", 14)
        play(0)  # both ends of it
        wait_for(lambda: value(collector, UNBOUND, "openssl", "hooked") == 2, 20)
        metrics = collector.page("metrics").splitlines()
        assert not [line for line in metrics if line.startswith(TLS) and 'process="hooked"' in line]
        assert value(collector, UNBOUND, "openssl", "hooked") == 2
        states = {(row["library"], row["state"]) for row in listed() if row["pid"] == process.pid}
        assert ("openssl", "attached") in states
    finally:
        process.communicate("")
