"""Every way in which a program uses OpenSSL gives the records that clear text would have given (tlsplay.c)."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.bench.tls import certificate
from tests.live.harness import Collector, wait_for
from tests.live.tlsplay import Player, attached, compare

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


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


@pytest.mark.parametrize(
    "scenario",
    ["peek", "ex", "partial", "renegotiate", "keyupdate", "early", "moved", "freed", "referenced", "callback", "dup"],
)
def test_a_use_of_the_library(collector: Collector, folder: Path, scenario: str) -> None:
    player = Player(folder, scenario)
    player.go()
    made = player.exchanges()
    for record in compare(collector, made, f"/{scenario}/"):
        allowed = (
            ("response_body_cut", "peer_unknown") if "identity descriptor" in collector.log() else ("response_body_cut",)
        )
        assert not [mark for mark in record["mark"] if not mark.startswith(allowed)], record


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
        known = [str(port), "0"] if "identity descriptor" in collector.log() else [str(port)]
        assert (record["tls"], record["responseSize"]) == ("true", str(size))
        if record["path"] != "/memory/0":  # which may have been before the probes
            assert record["mark"] in ([], ["peer_unknown"]) and record["ip"].rpartition(":")[2] in known, record


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


# A client that stands in SSL_read until it is killed
STANDS = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
secure = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
print("stands", flush=True)
secure.recv(1)
"""
# A server whose TLS works on memory
ANSWERS = """
import asyncio, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])

async def answer(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nnext")

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def started_as(pid: int, command: Sequence[str | Path]) -> subprocess.Popen[str]:
    """A process that has this number, which nobody has."""
    for _ in range(100):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if process.pid == pid:
            return process
        process.kill()
        process.communicate()
    raise AssertionError("others were faster")


def test_a_process_with_the_number_of_one_that_was_killed_in_a_call(collector: Collector, folder: Path) -> None:
    """Its sockets are not taken for those of that call."""
    in_place = ["setarch", "--addr-no-randomize", sys.executable, "-c"]  # the later stack is below that of the call
    pair = folder / "cert.pem", folder / "key.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    other = subprocess.Popen([sys.executable, "-c", ANSWERS, *pair], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    stands = subprocess.Popen([*in_place, STANDS, other.stdout.readline().strip()], stdout=subprocess.PIPE, text=True)
    assert stands.stdout is not None and stands.stdout.readline()
    wait_for(lambda: Path(f"/proc/{stands.pid}/syscall").read_text().startswith("0 "))  # it reads
    stands.kill()
    stands.communicate()
    before = collector.metric("collector_probes")
    server = started_as(stands.pid, [*in_place, ANSWERS, *pair])
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        for number in range(2):
            with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as connection:
                connection.sendall(b"GET /next/%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
                assert connection.recv(1000).endswith(b"next")
            wait_for(lambda: collector.metric("collector_probes") > before, 20)  # those on demand
    finally:
        for process in (other, server):
            process.kill()
            process.communicate()
    second = [record for record in collector.wait_records("/next/", 4) if record["path"] == "/next/1"]
    assert {(r["destIp"], tuple(r["mark"])) for r in second} == {(f"127.0.0.1:{port}", ())}


BESIDE = """
import asyncio, ssl, sys

async def secure(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nsecure")

async def clear(reader, writer):
    await reader.readuntil(b"\\r\\n")  # the preamble
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nclear")

async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:])
    one = await asyncio.start_server(secure, "127.0.0.1", 0, ssl=context)
    two = await asyncio.start_server(clear, "127.0.0.1", 0)
    print(one.sockets[0].getsockname()[1], two.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_clear_text_behind_a_preamble_in_a_process_whose_tls_works_on_memory(collector: Collector, folder: Path) -> None:
    """Its sockets' writes are compared with the library's records; what is none is captured as ever."""
    with subprocess.Popen(
        [sys.executable, "-c", BESIDE, folder / "cert.pem", folder / "key.pem"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            secure, clear = map(int, server.stdout.readline().split())
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

            def seen() -> bool:
                with context.wrap_socket(socket.create_connection(("127.0.0.1", secure))) as connection:
                    connection.sendall(b"GET /beside/secure HTTP/1.1\r\nHost: h\r\n\r\n")
                    assert connection.recv(1000).endswith(b"secure")
                return wait_for(
                    lambda: {"1", "2"} <= {r["direction"] for r in collector.records("/beside/secure")}, 1, quiet=True
                )

            assert wait_for(seen, 20)  # its probes are there
            with socket.create_connection(("127.0.0.1", clear)) as connection:
                connection.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n")
                for number in range(3):
                    connection.sendall(b"GET /beside/clear/%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
                    assert connection.recv(1000).endswith(b"clear")
        finally:
            server.kill()
    records = collector.wait_records("/beside/clear/", 6)
    assert {(r["responsePayload"], r["tls"], tuple(r["mark"])) for r in records} == {("clear", "false", ())}


class Socks(socketserver.BaseRequestHandler):
    """A SOCKS 5 proxy, as much of it as a client needs (RFC 1928): no login, CONNECT to an IPv4 address."""

    def handle(self) -> None:
        self.request.recv(2 + 255)
        self.request.sendall(b"\x05\x00")
        request = self.request.recv(10)
        host, port = socket.inet_ntoa(request[4:8]), int.from_bytes(request[8:10], "big")
        with socket.create_connection((host, port)) as behind:
            self.request.sendall(b"\x05\x00\x00\x01" + bytes(6))
            other = threading.Thread(target=self._pass_on, args=(behind, self.request))
            other.start()
            self._pass_on(self.request, behind)
            other.join()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # either side may be gone first
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_tls_behind_socks_has_the_ends_of_its_socket(collector: Collector, folder: Path) -> None:
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Socks) as proxy,
        subprocess.Popen(
            [sys.executable, "-c", BESIDE, folder / "cert.pem", folder / "key.pem"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server,
    ):
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        assert server.stdout is not None
        try:
            secure, _clear = map(int, server.stdout.readline().split())
            port = proxy.server_address[1]
            command = ["curl", "-sk", "--socks5", f"127.0.0.1:{port}", "--http1.1"]
            for _ in range(2):
                urls = [f"https://127.0.0.1:{secure}/socks/{number}" for number in range(3)]
                assert subprocess.run([*command, *urls], capture_output=True, timeout=30, check=True).stdout == b"secure" * 3
        finally:
            server.kill()
            proxy.shutdown()
    records = [r for r in collector.wait_records("/socks/", 12) if r["process_name"] == "curl"]
    assert len(records) == 6
    assert {(r["destIp"], r["tls"], tuple(r["mark"])) for r in records} == {(f"127.0.0.1:{port}", "true", ())}


KILLED = """
import os, socket, ssl, struct, sys, threading
at_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
at_server.load_cert_chain(*sys.argv[1:3])
at_client = ssl.create_default_context()
at_client.check_hostname, at_client.verify_mode = False, ssl.CERT_NONE
listener = socket.create_server(("127.0.0.1", 0), backlog=500)
kept = []

def serve():
    while True:
        one = at_server.wrap_socket(listener.accept()[0], server_side=True)
        kept.append(one)
        one.recv(1000)
        one.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")

threading.Thread(target=serve, daemon=True).start()
for number in range(200):
    one = at_client.wrap_socket(socket.create_connection(listener.getsockname()))
    one.sendall(b"GET /killed/tls/%s/%d HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n" % (sys.argv[3].encode(), number))
    assert one.recv(1000)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
os.setuid(65534)
os.kill(os.getpid(), 9)
"""


def test_connections_inside_tls_hide_no_later_ones(collector: Collector, folder: Path) -> None:
    """Reset, and their process killed before it closed them: what the kernel knows them by is another's at once."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Ok) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = int(server.server_address[1])
        for turn in range(3):
            command = [sys.executable, "-c", KILLED, str(folder / "cert.pem"), str(folder / "key.pem"), str(turn)]
            assert subprocess.run(command, check=False).returncode == -9
            for number in range(100):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(b"GET /killed/clear/%d/%d HTTP/1.1\r\nHost: h\r\n\r\n" % (turn, number))
                    assert connection.recv(1000)
        server.shutdown()
    # where descriptors are the identity, a server's addresses may become known too late
    allowed = {"peer_unknown"} if "identity descriptor" in collector.log() else set()
    assert not [r for r in collector.wait_records("/killed/clear/", 600) if r["words"] - allowed]
    assert len(collector.records("/killed/tls/")) == 3 * 2 * 200


class Ok(socketserver.BaseRequestHandler):
    """One exchange, and the end of the connection."""

    def handle(self) -> None:
        self.request.recv(1000)
        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
