"""Every way in which a program uses OpenSSL gives the records that clear text would have given (tlsplay.c)."""

from __future__ import annotations

import http.client
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from collector.loader.probes import SOURCES
from collector.loader.probes.probe import Found
from tests.bench.tls import certificate
from tests.live.harness import Collector, Nginx, wait_for
from tests.live.matrix import build

BODY = 65536  # of a body that is recorded, by default

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


class Player:
    """A run of tlsplay."""

    def __init__(self, folder: Path, scenario: str) -> None:
        self.scenario = scenario
        self.process = subprocess.Popen(
            [*build.command("tlsplay"), folder / "cert.pem", folder / "key.pem", scenario],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Begin, or go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def exchanges(self) -> dict[str, tuple[int, int]]:
        """What it has made until its end: path -> bytes of the answer, port of the client."""
        out, _err = self.process.communicate(timeout=60)
        *lines, last = out.splitlines()
        assert last == "done" and self.process.returncode == 0, out
        return {path: (int(size), int(port)) for path, size, port in map(str.split, lines)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certificates")
    certificate(found)
    return found


@pytest.fixture(scope="module", params=["socket", "descriptor"])
def collector(
    live: None, folder: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("tls")
    first = Player(folder, "plain")  # keeps the library mapped until the collector has found it
    found = Collector(directory, COLLECTOR_IDENTITY=request.param)
    try:
        wait_for(lambda: attached(found, "libssl.so.3"), 60)
        first.go()
        first.exchanges()
        yield found
    finally:
        assert found.stop() == 0, found.log()


def attached(collector: Collector, library: str) -> bool:
    return re.search(rf"attached: library '[^']*/{re.escape(library)}'", collector.log()) is not None


def compare(collector: Collector, made: dict[str, tuple[int, int]], part: str) -> list[dict]:
    """Both sides of each exchange are recorded once, whole and with their ends."""
    records = collector.wait_records(part, 2 * len(made))
    for direction in ("1", "2"):
        assert sorted(r["path"] for r in records if r["direction"] == direction) == sorted(made)
    for record in records:
        size, port = made[record["path"]]
        assert (record["tls"], int(record["responseSize"]), len(record["responsePayload"])) == (
            "true",
            size,
            min(size, BODY),
        ), record
        assert record["ip"].rpartition(":")[2] == str(port), (record["path"], record["ip"], port)
        assert record["tlsLibrary"].startswith("openssl-3."), record
        assert record["tlsVersion"] == ("1.2" if part == "/renegotiate/" else "1.3"), record
    return records


@pytest.mark.parametrize(
    "scenario", ["peek", "ex", "partial", "renegotiate", "keyupdate", "early", "moved", "freed", "referenced"]
)
def test_a_use_of_the_library(collector: Collector, folder: Path, scenario: str) -> None:
    player = Player(folder, scenario)
    player.go()
    made = player.exchanges()
    for record in compare(collector, made, f"/{scenario}/"):
        assert not [mark for mark in record["mark"] if not mark.startswith("response_body_cut")], record


def test_an_object_that_writes_into_memory_is_found_by_its_records(collector: Collector, folder: Path) -> None:
    before = collector.metric("collector_probes")
    player = Player(folder, "memory")
    player.go()
    wait_for(lambda: collector.metric("collector_probes") > before, 20)  # those on demand, for this process
    player.go()
    made = player.exchanges()
    records = collector.wait_records("/memory/", 2 * len(made))
    for record in records:
        size, port = made[record["path"]]
        assert (record["tls"], record["responseSize"]) == ("true", str(size))
        if record["path"] != "/memory/0":  # which may have been before the probes
            assert (record["ip"].rpartition(":")[2], record["mark"]) == (str(port), []), record


def test_a_child_goes_on_with_its_parents_connection(collector: Collector, folder: Path) -> None:
    player = Player(folder, "fork")
    player.go()
    made = player.exchanges()
    records = compare(collector, made, "/fork/")
    assert len({r["process_id"] for r in records if r["direction"] == "1"}) == 2


def test_tls_inside_tls(collector: Collector, folder: Path) -> None:
    player = Player(folder, "inside")
    player.go()
    made = player.exchanges()
    records = collector.wait_records("/inside/", 2 * len(made))
    ports = {r["ip"].rpartition(":")[2] for r in records}
    assert ports <= {"0", *(str(port) for _size, port in made.values())}, "no connection's ends or its own"


def test_a_preamble_before_tls_is_kept(collector: Collector, folder: Path) -> None:
    player = Player(folder, "preamble")
    player.go()
    records = compare(collector, player.exchanges(), "/preamble/")
    assert {r["clientIp"] for r in records} == {"192.0.2.7:4711"}


def test_a_connect_before_tls(collector: Collector, folder: Path) -> None:
    player = Player(folder, "connect")
    player.go()
    compare(collector, player.exchanges(), "/connect/")


@pytest.mark.parametrize("identity", ["socket", "descriptor"])
def test_a_connection_that_is_older_is_joined_at_its_next_message(
    live: None, folder: Path, tmp_path: Path, identity: str
) -> None:
    player = Player(folder, "joined")
    player.go()
    assert player.process.stdout is not None
    lines = [player.process.stdout.readline() for _ in range(2)]
    collector = Collector(tmp_path, COLLECTOR_IDENTITY=identity)
    try:
        wait_for(lambda: attached(collector, "libssl.so.3"), 60)
        player.go()
        made = player.exchanges()
        assert len(made) == 3 and not set(made) & {line.split()[0] for line in lines}
        for record in compare(collector, made, "/joined/"):
            assert "joined_mid_stream" in record["mark"], record
    finally:
        assert collector.stop() == 0, collector.log()


def test_programs_go_on_whenever_the_collector_is_killed(live: None, folder: Path, tmp_path: Path) -> None:
    """Transfers with checksums over TLS, in C and in Python, while collectors begin, attach and are killed."""
    body = random.Random(5).randbytes(300_000)
    answers = tmp_path / "answers"
    answers.mkdir()
    (answers / "file").write_bytes(body)
    nginx = Nginx(answers, f"location / {{ alias {answers}/; }}", tls=(folder / "cert.pem", folder / "key.pem"))
    before = probed(nginx.workers()[0])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stop = threading.Event()
    problems: list[object] = []
    made = [0]

    def transfer() -> None:
        while not stop.is_set():
            try:
                connection = http.client.HTTPSConnection("127.0.0.1", nginx.port, context=context, timeout=20)
                for _ in range(20):
                    connection.request("GET", "/file")
                    if connection.getresponse().read() != body:
                        problems.append("other bytes")
                    made[0] += 1
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                problems.append(error)

    threads = [threading.Thread(target=transfer) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for number, victim in enumerate(("", "collector.loader.process", "collector.shards.process", "", "")):
            (directory := tmp_path / str(number)).mkdir()
            collector = Collector(directory)
            wait_for(lambda found=collector: attached(found, "libssl.so.3"), 60)  # type: ignore[misc]
            at = made[0]
            wait_for(lambda at=at: made[0] > at + 50, 30)  # type: ignore[misc]
            if victim:
                os.kill(collector.child(victim), signal.SIGKILL)
                wait_for(lambda found=collector: "ended with -9" in found.log(), 20)  # type: ignore[misc]
                assert collector.stop() in (0, 1)
            else:
                collector.process.kill()
                collector.process.wait()
            wait_for(lambda: probed(nginx.workers()[0]) == before, 30)
        at = made[0]
        wait_for(lambda: made[0] > at + 50, 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        nginx.close()
    assert not problems, problems[:3]


def probed(pid: int) -> bytes:
    """The bytes of OpenSSL's code in a process that differ when there are probes in it."""
    (source,) = (source for source in SOURCES if source.name == "openssl")
    maps = Path(f"/proc/{pid}/maps").read_text()
    path, begin, offset = next(
        (line.split()[5], int(line.split("-")[0], 16), int(line.split()[2], 16))
        for line in maps.splitlines()
        if "/libssl.so" in line and "r-xp" in line
    )
    with open(path, "rb") as file:
        found = source.locate(ELFFile(file))
    assert isinstance(found, Found)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return b"".join(os.pread(memory.fileno(), 1, begin + site.offset - offset) for site in found.sites)


def test_a_program_that_is_replaced_with_its_connection_open(collector: Collector, folder: Path) -> None:
    """exec takes the library's objects away, and not the socket; whoever has it next is not taken for TLS's plaintext."""
    script = f"""
import os, socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain({str(folder / "cert.pem")!r}, {str(folder / "key.pem")!r})
server = socket.create_server(("127.0.0.1", 0))
client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
pid = os.fork()
if pid:
    plain = socket.create_connection(server.getsockname())
    secure = client.wrap_socket(plain)
    secure.sendall(b"GET /exec/1 HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
    assert secure.recv(1000).endswith(b"one")
    socket.socket(fileno=os.dup(secure.fileno())).sendall(b"\\n")  # not TLS any more
    assert os.read(secure.fileno(), 1000).endswith(b"two")
    os.waitpid(pid, 0)
else:
    connection, _peer = server.accept()
    secure = context.wrap_socket(connection, server_side=True)
    secure.recv(1000)
    secure.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\none")
    os.set_inheritable(secure.fileno(), True)
    code = "import os, sys; fd = int(sys.argv[1]); os.read(fd, 100); os.write(fd, b'HTTP/1.1 200 OK: two')"
    os.execv(sys.executable, [sys.executable, "-c", code, str(secure.fileno())])
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
    records = collector.wait_records("/exec/", 2)
    assert {r["responsePayload"] for r in records} == {"one"}
