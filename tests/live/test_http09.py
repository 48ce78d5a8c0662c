"""HTTP/0.9 of real servers, and what only looks like it: a record of each side of the one, none of the other."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.live.harness import Collector, Nginx, wait_for
from tests.live.kafka_broker import free_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

LOCATIONS = """
    sendfile on;
    location /page { default_type text/html; return 200 '<p>$request_uri</p>'; }
    location /json { return 200 '{"of":"$request_uri"}'; }
    location /old { return 301 /new; }
"""
HTTP_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<p>" + self.path.encode() + b"</p>")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def collector(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    running = Collector(tmp_path_factory.mktemp("http09"))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def nginx(collector: Collector) -> Iterator[Nginx]:
    with tempfile.TemporaryDirectory() as name:  # one that nginx's user reaches
        one = Nginx(Path(name), LOCATIONS)
        (one.root / "file.html").write_text("<p>of the kernel</p>" * 1000)
        yield one
        one.close()


@pytest.fixture
def started() -> Iterator[Callable[..., int]]:
    """Starts a server: its command is a function of the port; the port."""
    running = []

    def start(command: Callable[[int], list[str]]) -> int:
        port = free_port()
        running.append(subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def answers() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        wait_for(answers)
        return port

    yield start
    for process in running:
        process.kill()
        process.wait()


def say(port: int, data: bytes, *, half_close: bool = False) -> bytes:
    """What a server says to this, up to its end."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(data)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        found = b""
        while data := sock.recv(65536):
            found += data
        return found


def both(collector: Collector, path: str) -> list[dict]:
    """The records of both sides, complete and of HTTP/0.9."""
    records = collector.wait_records(path, 2)
    assert {r["direction"] for r in records} == {"1", "2"}
    for r in records:
        assert (r["method"], r["path"], r["type"], r["status"], r["statusCode"]) == ("GET", path, "HTTP/0.9", "", "0")
    return records


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_nginx(collector: Collector, nginx: Nginx, end: bytes) -> None:
    for path in (f"/page/{len(end)}?a=1", f"/json/{len(end)}"):
        body = say(nginx.port, b"GET " + path.encode() + end).decode()
        assert path in body
        for r in both(collector, path):
            assert (r["responsePayload"], r["mark"]) == (body, [])


def test_a_file_that_nginx_has_the_kernel_send(collector: Collector, nginx: Nginx) -> None:
    body = say(nginx.port, b"GET /file.html\r\n").decode()
    records = {r["direction"]: r for r in both(collector, "/file.html")}
    assert records["2"]["responsePayload"] == body and records["2"]["mark"] == []
    assert records["1"]["responseSize"] == str(len(body)) and records["1"]["mark"] == [f"response_body_cut:{len(body)}"]


def test_a_client_that_ends_its_side_first(collector: Collector, nginx: Nginx) -> None:
    command = ["socat", "-t5", "-", f"TCP:127.0.0.1:{nginx.port}"]
    body = subprocess.run(command, input=b"GET /page/socat\r\n", capture_output=True, check=True, timeout=20).stdout
    for r in both(collector, "/page/socat"):
        assert (r["responsePayload"], r["mark"]) == (body.decode(), [])


def test_other_servers(collector: Collector, tmp_path: Path, started: Callable[..., int]) -> None:
    (tmp_path / "busybox.html").write_text("<p>busybox</p>")
    (tmp_path / "line.sh").write_text('read -r line; printf "<p>%s</p>" "$line"\n')
    ports = {
        "/python": started(lambda port: ["/usr/bin/python3", "-c", HTTP_SERVER, str(port)]),
        "/busybox.html": started(lambda port: ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(tmp_path)]),
        "/shell": started(
            lambda port: ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", f"EXEC:sh {tmp_path}/line.sh"]
        ),
    }
    for path, port in ports.items():
        # Python's server waits for an empty line
        body = say(port, b"GET " + path.encode() + (b"\r\n\r\n" if path == "/python" else b"\r\n")).decode()
        if body.startswith("HTTP/"):  # busybox: it is a bad request
            records = collector.wait_records(path, 2)
            assert {(r["type"], r["statusCode"], r["protocol"]) for r in records} == {("HTTP/0.9", body.split()[1], "http1")}
            continue
        assert "<p>" in body
        for r in both(collector, path):
            assert (r["responsePayload"], r["mark"]) == (body, [])


def test_a_server_that_answers_in_http1(collector: Collector, started: Callable[..., int]) -> None:
    if not shutil.which("haproxy"):
        skip_or_fail("needs haproxy")
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as config:
        port = started(
            lambda port: [
                "sh",
                "-c",
                f"printf 'defaults\\n mode http\\n timeout client 9s\\n timeout server 9s\\n timeout connect 9s\\n"
                f"frontend f\\n bind 127.0.0.1:{port}\\n' > {config.name}; exec haproxy -db -f {config.name}",
            ]
        )
        assert say(port, b"GET /haproxy\r\n").startswith(b"HTTP/1.")
    for r in collector.wait_records("/haproxy", 2):
        assert (r["type"], r["status"], r["mark"]) == ("HTTP/0.9", "400 Bad request", ["ambiguous_framing:start_line"])


def test_redis_is_no_http(collector: Collector, nginx: Nginx, started: Callable[..., int], tmp_path: Path) -> None:
    if not shutil.which("redis-server"):
        skip_or_fail("needs redis-server")
    port = started(lambda port: ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        file = sock.makefile("rb")
        for line, reply in (
            (b"GET /redis\r\n", b"$-1\r\n"),
            (b"SET /redis hello\r\n", b"+OK\r\n"),
            (b"GET /redis\r\n", b"$5\r\n"),
        ):
            sock.sendall(line)
            assert file.readline() == reply
    for line in (b"GET /redis\r\n", b"GET /redis\n", b"GET redis\r\n"):
        assert say(port, line, half_close=True) in (b"$5\r\nhello\r\n", b"$-1\r\n")
    assert b"page" in say(nginx.port, b"GET /page/behind-redis\r\n")  # later than all of these
    both(collector, "/page/behind-redis")
    assert collector.records("redis") == collector.records("behind-redis")
    assert collector.metric("collector_connections_not_http_total") >= 4


def test_other_line_protocols_are_no_http(
    collector: Collector, nginx: Nginx, started: Callable[..., int], tmp_path: Path
) -> None:
    (tmp_path / "loop.sh").write_text('while read -r line; do echo "you said $line"; done\n')
    (tmp_path / "once.sh").write_text('read -r line; echo "500 what is $line?"\n')
    (tmp_path / "first.sh").write_text('echo "220 ready"; read -r line; echo "bye"\n')

    def shell(name: str) -> int:
        listen = "TCP-LISTEN:{},bind=127.0.0.1,fork,reuseaddr"
        return started(lambda port: ["socat", listen.format(port), f"EXEC:sh {tmp_path}/{name}.sh"])

    loop = shell("loop")
    assert say(loop, b"GET /other\r\n", half_close=True).startswith(b"you said GET /other")
    assert say(loop, b"GET /other\r\nGET /other\r\n", half_close=True).count(b"you") == 2
    assert say(shell("once"), b"GET /other\r\n").startswith(b"500 what")
    assert say(shell("first"), b"GET /other\r\n").endswith(b"bye\n")
    assert b"page" in say(nginx.port, b"GET /page/behind-the-rest\r\n")
    both(collector, "/page/behind-the-rest")
    assert [(r["direction"], r["process_name"], r["responsePayload"], r["mark"]) for r in collector.records("/other")] == []
