"""The socket is the connection: programs that move bytes in unusual ways, that end unusually, and that mean harm.

Each stands for a kind. What cannot be known by descriptor is tried with sockets as the identity only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.harness import Collector, Program, wait_for
from tests.live.kafka_broker import free_port
from tests.live.programs import answer, read_request
from tests.live.test_capture import http

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]
LIBC = ctypes.CDLL(None, use_errno=True)
IPPROTO_MPTCP = 262
GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"


class Server:
    """``serve(socket)`` in a thread for each connection, in this process (which the collector traces as well)."""

    def __init__(
        self, serve: Callable[[socket.socket], None], accept: Callable[[socket.socket], socket.socket] | None = None
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._serve, self._accept = serve, accept or (lambda listener: listener.accept()[0])
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while True:
            try:
                sock = self._accept(self._listener)
            except OSError:
                return
            threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with sock:
            self._serve(sock)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))

    def close(self) -> None:
        self._listener.close()


def echo(sock: socket.socket) -> None:
    while (request := read_request(sock)) is not None:
        sock.sendall(answer(*request))


def serve_one(sock: socket.socket) -> None:
    """As echo, to the end of the connection, however that comes."""
    with sock, contextlib.suppress(OSError):
        echo(sock)


def compiled(folder: Path, name: str, source: str) -> str:
    """A C program of a test."""
    path = folder / name
    path.with_suffix(".c").write_text(textwrap.dedent(source))
    subprocess.run(["gcc", "-w", "-O1", "-o", path, path.with_suffix(".c"), "-lpthread"], check=True)
    return str(path)


def of(records: list[dict], direction: str) -> list[dict]:
    return [r for r in records if r["direction"] == direction]


@pytest.fixture(scope="module", params=["tpx", "raw"])
def collector(live: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Collector]:
    c = Collector(tmp_path_factory.mktemp("collector"), COLLECTOR_HOOKS=request.param, COLLECTOR_IDENTITY="socket")
    yield c
    assert c.stop() == 0, c.log()


@pytest.fixture
def echoing() -> Iterator[Server]:
    server = Server(echo)
    yield server
    server.close()


# ---- bytes that no captured call shows ----


@pytest.mark.parametrize("how", ["recv", "recvmsg"])
def test_bytes_thrown_away_are_never_the_memory_of_the_buffer(collector: Collector, how: str) -> None:
    def serve(sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        old, left = bytearray(b"OLD-MEMORY" * 10), 20
        while left:
            left -= (
                sock.recv_into(old, left, socket.MSG_TRUNC)
                if how == "recv"
                else sock.recvmsg_into([memoryview(old)[:left]], 0, socket.MSG_TRUNC)[0]
            )
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server, path = Server(serve), f"/thrown/{how}"
    with server.connect() as sock:
        http(sock, b"POST " + path.encode() + b" HTTP/1.1\r\nContent-Length: 20\r\n\r\nREAL-BODY-0123456789")
    records = collector.wait_records(path, 2)
    server.close()
    assert [(r["requestPayload"], r["requestSize"], r["mark"]) for r in of(records, "1")] == [
        ("", "20", ["request_body_cut:20"])
    ]
    assert [(r["requestPayload"], r["mark"]) for r in of(records, "2")] == [("REAL-BODY-0123456789", [])]


@pytest.mark.parametrize("how", ["splice", "sendfile"])
def test_a_first_request_that_nobody_saw_shifts_no_pair(collector: Collector, echoing: Server, how: str) -> None:
    first, path = GET % b"/unseen/%s/1" % how.encode(), f"/unseen/{how}"
    with echoing.connect() as sock:
        if how == "splice":
            read, write = os.pipe()
            os.write(write, first)
            LIBC.splice(read, None, sock.fileno(), None, len(first), 0)
            os.close(read)
            os.close(write)
        else:
            with tempfile.TemporaryFile() as file:
                file.write(first)
                file.flush()
                os.sendfile(sock.fileno(), file.fileno(), 0, len(first))
        read_answer(sock)
        for n in (2, 3):
            http(sock, GET % f"{path}/{n}".encode())
    records = collector.wait_records(path, 5)
    assert len(of(records, "1")) == 3 and not [r for r in of(records, "1") if r["mark"]]
    for r in of(records, "2"):
        assert r["path"] in r["responsePayload"] or "pairing_uncertain" in r["words"]


def read_answer(sock: socket.socket) -> None:
    """One answer of echo()."""
    data = b""
    while b"}" not in data:
        data += sock.recv(4096)


@pytest.mark.parametrize("inline", [False, True])
def test_an_urgent_byte_is_a_hole_and_no_shift(collector: Collector, echoing: Server, inline: bool) -> None:
    path = f"/urgent/{inline}"

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
        data = b""
        while data.count(b"\r\n\r\n") < 2:
            piece = sock.recv(4096)
            if not piece:
                return
            data += piece
            for _ in range(data.count(b"\r\n\r\n") - data.count(b"#")):
                sock.sendall(answer(path.encode(), b""))
                data += b"#"

    server = Server(serve)
    with server.connect() as sock:
        http(sock, GET % f"{path}/1".encode())
        sock.send(b"!", socket.MSG_OOB)
        time.sleep(0.05)
        sock.sendall(GET % f"{path}/2".encode())
        time.sleep(0.3)
    wait_for(lambda: len(of(collector.records(path), "1")) >= 1)
    time.sleep(0.5)
    server.close()
    for r in collector.records(path):
        assert r["path"] in (f"{path}/1", f"{path}/2") or r["mark"], r


def test_a_first_answer_that_is_read_before_its_request_is_written(collector: Collector) -> None:
    """A request that is refused while its body is being sent: the call that sends it returns after the one that reads."""
    size = 16 << 20
    request = b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"

    def serve(sock: socket.socket) -> None:
        path = sock.recv(1000).split(b" ")[1]
        sock.sendall(answer(path, b""))
        assert answered.wait(10)
        left = request % (path, size) + bytes(size)
        sock.recv(len(left) - 1000, socket.MSG_WAITALL)
        echo(sock)

    server = Server(serve)
    for n in range(5):
        answered = threading.Event()
        with server.connect() as sock:
            whole = request % (b"/early/%d/refused" % n, size) + b"x" * size
            writes = threading.Thread(target=sock.sendall, args=(whole,))
            writes.start()
            time.sleep(0.1)  # until it waits for room
            assert sock.recv(65536).startswith(b"HTTP/1.1 200") and writes.is_alive()
            answered.set()
            writes.join()
            http(sock, GET % b"/early/%d/next" % n)
    records = collector.wait_records("/early/", 20)
    server.close()
    pairs = {(r["path"].rpartition("/")[2], r["direction"], r["requestSize"], *sorted(r["words"])) for r in records}
    cut, rest = ("request_body_cut",), ()
    assert pairs == {
        ("refused", "1", str(size), *cut),
        ("refused", "2", str(size), *cut),
        ("next", "1", "0", *rest),
        ("next", "2", "0", *rest),
    }


def test_half_closed_and_reset_connections_end_once(collector: Collector, echoing: Server) -> None:
    """FINs are no bytes: neither a hole nor a doubt comes from them, in whatever order they are sent."""
    for n in range(20):
        with echoing.connect() as sock:
            sock.sendall(GET % f"/half/client/{n}".encode())
            sock.shutdown(socket.SHUT_WR)
            data = b""
            while piece := sock.recv(65536):
                data += piece
            assert data.startswith(b"HTTP/1.1 200")

    def until_close(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        sock.shutdown(socket.SHUT_WR)
        sock.recv(10)

    server = Server(until_close)
    for n in range(20):
        with server.connect() as sock:
            sock.sendall(GET % f"/half/server/{n}".encode())
            while sock.recv(65536):
                pass
    server.close()
    records = collector.wait_records("/half/", 80)
    assert not [(r["path"], r["mark"]) for r in records if r["mark"]]


def test_two_threads_on_one_connection_never_make_a_wrong_pair(collector: Collector) -> None:
    """Two readers at once: what each got is known, in which order is not."""

    def serve(sock: socket.socket) -> None:
        lock = threading.Lock()

        def work() -> None:
            while True:
                data = sock.recv(65536)
                if not data:
                    return
                with lock:
                    for line in data.split(b"\r\n"):
                        if line.startswith(b"GET "):
                            sock.sendall(answer(line.split(b" ")[1], b""))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    server = Server(serve)
    with server.connect() as sock:
        for n in range(300):
            http(sock, GET % f"/threads/{n}".encode())
        sock.shutdown(socket.SHUT_WR)
    wait_for(lambda: len(of(collector.records("/threads/"), "2")) == 300)
    server.close()
    for r in collector.records("/threads/"):
        assert f'"path":"{r["path"]}"' in r["responsePayload"] or r["mark"], r


# ---- beginnings ----


@pytest.mark.parametrize(
    "buffers",
    [
        [b"GET", b" /pieces/get HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n"],
        [b"", b"", b"G", b"ET /pieces/empty HTTP/1.1\r\n\r\n"],
        [b"\r\n", b"GET /pieces/crlf HTTP/1.1\r\nHost: x\r\n\r\n"],
        [b"P /pieces/one HTTP/1.1\r\n\r\n"],
        [b"ABCDEFGHIJ", b"KLMNOPQRST", b" /pieces/twenty HTTP/1.1\r\n\r\n"],
        [bytes([b]) for b in b"BASELINE-CONTROL /pieces/bytes HTTP/1.1\r\n\r\n"],
    ],
    ids=range(6),
)
def test_recognised_by_the_first_bytes_of_the_call(collector: Collector, echoing: Server, buffers: list[bytes]) -> None:
    path = re.findall(r"/pieces/\w+", b"".join(buffers).decode())[0]
    with echoing.connect() as sock:
        sock.sendmsg(buffers)
        read_answer(sock)
        http(sock, GET % path.encode())
    records = collector.wait_records(path, 4)
    assert not [r for r in records if r["mark"]]


def test_addresses_without_asking_for_them(collector: Collector) -> None:
    def null(listener: socket.socket) -> socket.socket:
        return socket.socket(fileno=LIBC.accept(listener.fileno(), None, None))

    def short(listener: socket.socket) -> socket.socket:
        length = ctypes.c_uint32(3)
        return socket.socket(fileno=LIBC.accept(listener.fileno(), ctypes.create_string_buffer(16), ctypes.byref(length)))

    for name, accept in (("null", null), ("short", short)):
        server = Server(echo, accept)
        ends = []
        for n in range(100):
            with server.connect() as sock:
                ends.append(f"127.0.0.1:{sock.getsockname()[1]}")
                http(sock, GET % f"/asks/{name}/{n:03}".encode())
        records = sorted(of(collector.wait_records(f"/asks/{name}/", 200), "1"), key=lambda r: str(r["path"]))
        server.close()
        assert [r["ip"] for r in records] == ends and {r["destIp"] for r in records} == {f"127.0.0.1:{server.port}"}


def test_the_name_is_the_process_s_also_after_exec(collector: Collector, tmp_path: Path) -> None:
    """A connection that survives exec, and a thread with a name of its own."""
    second = tmp_path / "after-exec"
    second.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent("""
        import os, sys
        while True:
            head = b""
            while not head.endswith(b"\\r\\n\\r\\n"):
                piece = os.read(0, 1)
                if not piece:
                    sys.exit()
                head += piece
            os.write(1, b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    """)
    )
    os.chmod(second, 0o755)
    first = textwrap.dedent(f"""
        import ctypes, os, socket, threading
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
        def one():
            ctypes.CDLL(None).prctl(15, b"a-thread", 0, 0, 0)
            sock.recv(1000)
            sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        thread = threading.Thread(target=one)
        thread.start()
        thread.join()
        os.dup2(sock.fileno(), 0)
        os.dup2(sock.fileno(), 1)
        os.execv("{second}", ["after-exec"])
    """)
    server = Program(sys.executable, "-c", first)
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            before = Path(f"/proc/{server.process.pid}/comm").read_text().strip()
            http(sock, GET % b"/exec/1")
            wait_for(lambda: Path(f"/proc/{server.process.pid}/comm").read_text().strip() == "after-exec")
            http(sock, GET % b"/exec/2")
        records = of(collector.wait_records("/exec/", 4), "1")
    finally:
        server.close()
    assert [(r["path"], r["process_name"], r["process_id"]) for r in sorted(records, key=lambda r: str(r["path"]))] == [
        ("/exec/1", before, str(server.process.pid)),
        ("/exec/2", "after-exec", str(server.process.pid)),
    ]
    assert not [r for r in records if r["mark"]]


def test_the_identity_of_a_record_is_the_same_for_every_copy(collector: Collector, echoing: Server) -> None:
    with echoing.connect() as sock:
        for n in range(5):
            http(sock, GET % f"/identity/{n}".encode())
    records = collector.wait_records("/identity/", 10)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:16]
    parts = [str(r["recordId"]).split("-") for r in records]
    assert {part[0] for part in parts} == {boot} and len({r["recordId"] for r in records}) == 10
    for direction in "12":
        mine = [str(r["recordId"]).split("-") for r in of(records, direction)]
        size = len(GET % b"/identity/0")
        assert len({part[1] for part in mine}) == 1 and [int(part[2], 16) for part in mine] == [n * size for n in range(5)]


# ---- ends ----


KILLED = r"""
    #include <arpa/inet.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/resource.h>
    #include <unistd.h>
    /* n connections with itself, an exchange on each, then it ends without closing any. */
    int main(int c, char **v)
    {
        int n = atoi(v[1]), listeners[4], done = 0;
        struct rlimit l = {400000, 400000};
        setrlimit(RLIMIT_NOFILE, &l);
        const char *q = "GET /killed HTTP/1.1\r\nHost: x\r\n\r\n", *r = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        char b[500];
        struct sockaddr_in a[4];
        socklen_t k;
        for (int i = 0; i < 4; i++) {
            a[i] = (struct sockaddr_in){.sin_family = AF_INET};
            a[i].sin_addr.s_addr = htonl(0x7f000000 + atoi(v[2]) * 8 + i + 1);
            listeners[i] = socket(AF_INET, SOCK_STREAM, 0);
            bind(listeners[i], (void *)&a[i], sizeof a[i]);
            k = sizeof a[i];
            getsockname(listeners[i], (void *)&a[i], &k);
            listen(listeners[i], 128);
        }
        for (int i = 0; i < n; i++) {
            int s = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(s, (void *)&a[i % 4], sizeof a[0])) break;
            int t = accept(listeners[i % 4], 0, 0);
            if (t < 0) break;
            send(s, q, strlen(q), 0); recv(t, b, 500, 0); send(t, r, strlen(r), 0); recv(s, b, 500, 0);
            done++;
            if (i % 500 == 0) usleep(20000);
        }
        printf("%d\n", done);
        fflush(stdout);
        _exit(0);
    }
"""


def test_sockets_of_killed_processes_leave_no_entry(collector: Collector, tmp_path: Path) -> None:
    """KILLED_SOCKETS=100000 for the whole number."""
    program, total = compiled(tmp_path, "killed", KILLED), int(os.environ.get("KILLED_SOCKETS", "12000"))
    at_a_time = min(total, 20000) // 2
    before = collector.metric("collector_kernel_connections")
    done = 0
    for n in range(-(-total // (2 * at_a_time))):
        done += int(subprocess.run([program, str(at_a_time), str(n + 1)], capture_output=True, check=True).stdout)
    assert 2 * done >= total * 0.95  # the machine may have fewer ports
    wait_for(lambda: collector.metric("collector_kernel_connections") <= before + 20, 30)
    assert collector.metric("collector_kernel_connections_pushed_out_total") == 0
    assert "ready" not in collector.page("readyz") or collector.page("readyz").strip() == "ok"


# ---- neighbours ----


def test_reading_logs_full_of_request_lines_costs_and_drops_nothing(
    collector: Collector, echoing: Server, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"GET /from/a/log/%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(400_000)))
    before = collector.metric("collector_events_total")
    for _ in range(5):
        subprocess.run(["cat", log], stdout=subprocess.DEVNULL, check=True)
    time.sleep(1)
    assert collector.metric("collector_events_total") - before < 200
    with echoing.connect() as sock:
        http(sock, GET % b"/after/the/log")
    assert not [r for r in collector.wait_records("/after/the/log", 2) if r["mark"]]
    assert not collector.records("/from/a/log") and collector.metric("collector_kernel_dropped_events_total") == 0


NINE_BYTES = r"""
    #include <fcntl.h>
    #include <stdlib.h>
    #include <sys/resource.h>
    #include <sys/socket.h>
    #include <unistd.h>
    /* what looks like a request, into what is no TCP socket: /dev/null, pipes, socket pairs; many descriptors, or a loop */
    int main(int c, char **v)
    {
        struct rlimit l = {20000, 20000};
        setrlimit(RLIMIT_NOFILE, &l);
        setuid(65534);
        if (c > 2) {
            for (long i = 0; i < atol(v[2]); i++) {
                int f = open("/dev/null", O_WRONLY);
                write(f, "GET / H/1", 9);
                close(f);
            }
            return 0;
        }
        int base = open("/dev/null", O_WRONLY), pair[2];
        for (int i = 4300; i < 19900; i++) { dup2(base, i); write(i, "GET / H/1", 9); }
        for (int i = 0; i < 500; i++) { pipe(pair); write(pair[1], "GET / H/1", 9); }
        for (int i = 0; i < 500; i++) { socketpair(AF_UNIX, SOCK_STREAM, 0, pair); write(pair[1], "GET / H/1", 9); }
        return 0;
    }
"""


def test_a_hostile_neighbour_blinds_nobody(collector: Collector, echoing: Server, tmp_path: Path) -> None:
    program = compiled(tmp_path, "nine", NINE_BYTES)
    entries = collector.metric("collector_kernel_connections")
    for _ in range(6):
        subprocess.run([program, "table"], check=True)
    assert collector.metric("collector_kernel_connections") <= entries + 20
    loops = [subprocess.Popen([program, "loop", "400000"]) for _ in range(2)]
    sent = 0
    with echoing.connect() as sock:
        while any(loop.poll() is None for loop in loops):
            http(sock, GET % f"/neighbour/{sent}".encode())
            sent += 1
    with echoing.connect() as sock:  # and a new connection
        http(sock, GET % f"/neighbour/{sent}".encode())
    records = collector.wait_records("/neighbour/", 2 * (sent + 1))
    assert sent > 50 and not [r for r in records if r["mark"]]
    assert collector.metric("collector_kernel_dropped_events_total") == 0
    assert collector.page("readyz").strip() == "ok"


def test_mptcp_sockets_are_known_by_their_socket_too(collector: Collector) -> None:
    """Their counters are not TCP's: positions are sums, as where descriptors are the identity."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        threading.Thread(target=lambda: serve_one(listener.accept()[0]), daemon=True).start()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
            sock.connect(("127.0.0.1", port))
            mine = f"127.0.0.1:{sock.getsockname()[1]}"
            for n in range(20):
                http(sock, GET % f"/mptcp/{n}".encode())
    records = collector.wait_records("/mptcp/", 40)
    assert {(r["ip"], r["destIp"]) for r in records} == {(mine, f"127.0.0.1:{port}")}
    assert not [(r["direction"], r["path"], r["mark"]) for r in records if r["mark"]]


def test_32_bit_programs_are_named(collector: Collector, tmp_path: Path) -> None:
    """Their system calls have other numbers and are not captured."""
    code = bytes.fromhex("b814000000cd80b80100000031dbcd80")  # getpid(); exit(0)
    base = 0x08048000
    header = (
        b"\x7fELF\x01\x01\x01"
        + bytes(9)
        + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + 0x54, 0x34, 0, 0, 0x34, 0x20, 1, 0, 0, 0)
    )
    size = 0x54 + len(code)
    program = tmp_path / "thirty-two"
    program.write_bytes(header + struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000) + code)
    program.chmod(0o755)
    subprocess.run([program], check=True)
    wait_for(lambda: 'collector_unseen_processes{process="thirty-two",reason="32bit"} 1.0' in collector.page("metrics"), 12)


# ---- what an attack found ----


def test_buffers_without_room_are_no_end_of_stream(collector: Collector) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recvmsg_into([bytearray(0)])
        path, _body = read_request(sock) or (b"", b"")
        sock.sendall(answer(path, b""))

    server = Server(serve)
    with server.connect() as sock:
        sock.sendall((GET % b"/empty/buffers")[:20])
        time.sleep(0.1)
        sock.sendall((GET % b"/empty/buffers")[20:])
        sock.recvmsg_into([bytearray(0)])
        read_answer(sock)
    records = collector.wait_records("/empty/buffers", 2)
    server.close()
    assert not [r for r in records if r["mark"]]


def test_a_socket_that_is_connected_anew_is_another_connection(collector: Collector) -> None:
    """connect(AF_UNSPEC), then the same port at another address: same socket, same ports."""
    listeners = [socket.socket() for _ in range(2)]
    listeners[0].bind(("127.0.0.1", 0))
    port = listeners[0].getsockname()[1]
    listeners[1].bind(("127.0.0.2", port))
    for listener in listeners:
        listener.listen()
        threading.Thread(target=lambda one: serve_one(one.accept()[0]), args=(listener,), daemon=True).start()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", free_port()))
        for n, host in enumerate(("127.0.0.1", "127.0.0.2")):
            sock.connect((host, port))
            for turn in range(20):
                http(sock, GET % f"/anew/{n}/{turn}".encode())
            unspec = ctypes.create_string_buffer(16)
            assert LIBC.connect(sock.fileno(), unspec, 16) == 0
    records = of(collector.wait_records("/anew/", 80), "2")
    for listener in listeners:
        listener.close()
    assert {(str(r["path"])[6], r["destIp"]) for r in records} == {("0", f"127.0.0.1:{port}"), ("1", f"127.0.0.2:{port}")}


def test_connections_that_are_not_http_hide_no_later_ones(collector: Collector, echoing: Server) -> None:
    """Reset, and their process killed before it closed them: their names are used again at once."""
    junk = """
        import os, socket, struct
        listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        kept = []
        for n in range(200):
            sock = socket.create_connection(listener.getsockname())
            other, _ = listener.accept()
            sock.sendall(bytes(range(100)))
            other.recv(100)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            other.close()
            kept.append(sock.detach())
        os.setuid(65534)
        os.kill(os.getpid(), 9)
    """
    for turn in range(3):
        subprocess.run([sys.executable, "-c", textwrap.dedent(junk)], check=False)
        for n in range(50):
            with echoing.connect() as sock:
                http(sock, GET % f"/behind/junk/{turn}/{n}".encode())
    assert not [r for r in collector.wait_records("/behind/junk/", 300) if r["mark"]]


def test_a_new_name_without_exec(collector: Collector) -> None:
    code = """
        import ctypes, socket
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
        for n in range(2):
            sock.recv(1000)
            sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
            ctypes.CDLL(None).prctl(15, b"renamed", 0, 0, 0)
        sock.recv(1000)
    """
    server = Program(sys.executable, "-c", textwrap.dedent(code))
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            http(sock, GET % b"/rename/1")
            wait_for(lambda: Path(f"/proc/{server.process.pid}/comm").read_text().strip() == "renamed")
            http(sock, GET % b"/rename/2")
        records = of(collector.wait_records("/rename/", 4), "1")
    finally:
        server.close()
    assert [r["process_name"] == "renamed" for r in sorted(records, key=lambda r: str(r["path"]))] == [False, True]


def test_a_request_read_after_its_client_has_reset_keeps_its_addresses(collector: Collector) -> None:
    def serve(sock: socket.socket) -> None:
        time.sleep(0.1)
        sock.recv(1000)

    server = Server(serve)
    ends = []
    for n in range(5):
        sock = server.connect()
        ends.append(f"127.0.0.1:{sock.getsockname()[1]}")
        sock.sendall(GET % f"/reset/{n}".encode())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    records = sorted(collector.wait_records("/reset/", 10), key=lambda r: str(r["path"]))
    server.close()
    assert [r["ip"] for r in of(records, "1")] == ends
    assert {r["destIp"] for r in of(records, "1")} == {f"127.0.0.1:{server.port}"}


def test_bytes_of_a_descriptor_that_was_given_away_are_nobody_s(collector: Collector) -> None:
    """A thread waits in read; the descriptor is closed and is another connection when the call returns."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first, second = (socket.create_connection(listener.getsockname()) for _ in range(2))
        a, b = listener.accept()[0], listener.accept()[0]
        with first, second, a, b:
            number = a.fileno()
            thread = threading.Thread(target=lambda: LIBC.recv(number, ctypes.create_string_buffer(1000), 1000, 0))
            thread.start()
            time.sleep(0.1)
            os.dup2(b.fileno(), number)
            first.sendall(GET % b"/given/away/1")
            thread.join()
            second.sendall(GET % b"/given/away/2")
            b.recv(1000)
            b.sendall(answer(b"/given/away/2", b""))
            read_answer(second)
            mine = f"127.0.0.1:{second.getsockname()[1]}"
    wait_for(lambda: of(collector.records("/given/away/2"), "1"))
    time.sleep(0.5)
    records = collector.records("/given/away/")
    assert not [r for r in of(records, "1") if r["path"] == "/given/away/1" and r["ip"] == mine]
    assert [(r["ip"], r["mark"]) for r in of(records, "1") if r["path"] == "/given/away/2"] == [(mine, [])]


def test_raw_sockets_are_no_streams(collector: Collector) -> None:
    before = collector.metric("collector_events_total")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        for _ in range(100):
            sock.sendto(GET % b"/raw/socket", ("127.0.0.1", 0))
    time.sleep(0.5)
    assert not collector.records("/raw/socket") and collector.metric("collector_events_total") - before < 50
