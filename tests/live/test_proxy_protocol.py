"""Connections that begin with a preamble of the PROXY protocol: HAProxy in front of nginx, and hands that do it wrong.

Of one request through HAProxy there are up to four records: the client's and HAProxy's of the first connection, which no
proxy stands in front of, and HAProxy's and nginx' of the second one, whose preamble HAProxy sends. nginx itself says in
its answers who it thinks its client is.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import crc32c
import pytest

from tests.live.harness import Collector, Nginx, wait_for
from tests.live.kafka_broker import free_port
from tests.live.matrix.starting import Listening, tool
from tests.live.programs import answer, read_request
from tests.live.test_capture import http
from tests.live.test_sockets import Server, of

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

HEADER = b"X-Real-IP: 192.0.2.99\r\n"  # on every request: a preamble goes before it
LOCATION = """location / { return 200 "$remote_addr:$remote_port $proxy_protocol_addr:$proxy_protocol_port"; }"""
FRONTENDS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v6": "send-proxy-v2",
    "v1-of-v6": "send-proxy",
    "tlvs": "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    "tls": "send-proxy-v2-ssl proxy-v2-options ssl,cert-cn,crc32c,unique-id,authority",
}


@pytest.fixture(scope="module", params=[("tpx", "socket"), ("raw", "descriptor")], ids="-".join)
def collector(live: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Collector]:
    hooks, identity = request.param
    c = Collector(
        tmp_path_factory.mktemp("collector"),
        COLLECTOR_HOOKS=hooks,
        COLLECTOR_IDENTITY=identity,
        COLLECTOR_TRUSTED_CIDRS="127.0.0.0/8,::1",
    )
    yield c
    assert c.stop() == 0, c.log()


class HAProxy:
    """A frontend for each of FRONTENDS, which forwards bytes to ``backend`` behind a preamble; and health checks of it,
    which are asked for as PATH_OF_CHECKS with both versions."""

    def __init__(self, directory: Path, backend: int, checks: bool = False) -> None:
        directory.chmod(0o755)
        self.ports = {name: free_port() for name in FRONTENDS}
        certificate = directory / "both.pem"
        lines = [
            "defaults",
            " mode tcp",
            " timeout connect 9s",
            " timeout client 30s",
            " timeout server 30s",
            r" unique-id-format %{+X}o\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid",
        ]
        for name, options in FRONTENDS.items():
            host = "::1" if name.endswith("v6") else "127.0.0.1"
            secure = f" ssl crt {certificate}" if name == "tls" else ""
            lines += [
                f"listen {name}",
                f" bind {host}:{self.ports[name]}{secure}",
                f" server s 127.0.0.1:{backend} {options}",
            ]
        if checks:
            lines += [
                "backend checked",
                f" option httpchk GET {PATH_OF_CHECKS}",
                f" server v1 127.0.0.1:{backend} send-proxy check inter 200",
                f" server v2 127.0.0.1:{backend} send-proxy-v2 proxy-v2-options crc32c check inter 200",
            ]
        key = directory / "key.pem"
        subprocess.run(
            [
                tool("openssl"),
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=api.example",
                "-days",
                "1",
                "-keyout",
                key,
                "-out",
                certificate,
            ],
            check=True,
            capture_output=True,
        )
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
        (directory / "haproxy.cfg").write_text("\n".join(lines) + "\n")
        self._process = Listening(self.ports["v1"], tool("haproxy"), "-db", "-f", str(directory / "haproxy.cfg"))

    def connect(self, name: str) -> socket.socket:
        """A client's connection; TLS where the frontend is."""
        sock = socket.create_connection(("::1" if name.endswith("v6") else "127.0.0.1", self.ports[name]))
        if name != "tls":
            return sock
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(sock, server_hostname="api.example")

    def close(self) -> None:
        """End it."""
        self._process.close()


PATH_OF_CHECKS = "/proxy/check"


class Proxied:
    """nginx that wants a preamble."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._nginx = Nginx(directory, f"listen 127.0.0.1:{self.port} proxy_protocol; {LOCATION}")

    def close(self) -> None:
        """End it."""
        self._nginx.close()


@pytest.fixture(scope="module")
def nginx(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with contextlib.closing(Proxied(tmp_path_factory.mktemp("nginx"))) as server:
        yield server


@pytest.fixture(scope="module")
def haproxy(nginx: Proxied, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    with contextlib.closing(HAProxy(tmp_path_factory.mktemp("haproxy"), nginx.port)) as proxy:
        yield proxy


def end(name: tuple) -> str:
    """A socket's name as records write it."""
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def through(haproxy: HAProxy, name: str, path: str) -> tuple[str, str]:
    """Two requests on one connection: the client's end, and HAProxy's towards nginx as that sees it."""
    with haproxy.connect(name) as sock:
        client, seen = end(sock.getsockname()), set()
        for number in (1, 2):
            request = f"GET {path}/{number} HTTP/1.1\r\nHost: h\r\n".encode() + HEADER + b"\r\n"
            peer, claimed = http(sock, request).decode().split(" ")
            seen.add(peer)
            assert claimed == client.replace("[", "").replace("]", ""), "nginx does not understand HAProxy"
    assert len(seen) == 1
    return client, seen.pop()


@pytest.mark.parametrize("name", FRONTENDS)
def test_the_programs_understand_each_other(haproxy: HAProxy, name: str) -> None:
    """Without the collector: what the other tests stand on."""
    through(haproxy, name, "/programs")


@pytest.mark.parametrize("name", FRONTENDS)
def test_both_ends_keep_what_haproxy_claims(collector: Collector, haproxy: HAProxy, nginx: Proxied, name: str) -> None:
    path = f"/proxy/{name}"
    client, peer = through(haproxy, name, path)
    if name == "tls":  # in front of HAProxy there is TLS, which is recorded too once its library was found
        wait_for(lambda: len([r for r in collector.records(path) if r["tls"] == "false"]) >= 4)
        records = [r for r in collector.records(path) if r["tls"] == "false"]
    else:
        records = collector.wait_records(path, 8)
    behind = [r for r in records if r["destIp"] == f"127.0.0.1:{nginx.port}"]
    assert sorted((r["direction"], r["path"][-1]) for r in behind) == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    for record in behind:  # the sockets' ends stay; HAProxy's own side keeps the claim that it sent
        assert (record["ip"], record["clientIp"]) == (peer, client)
        assert record["clientSource"] == ("proxy_v1" if name.startswith("v1") else "proxy_v2")
    assert {r["process_name"] for r in of(behind, "2")} == {"haproxy"}
    assert {r["process_name"] for r in of(behind, "1")} == {"nginx"}
    for record in records:
        assert record["mark"] == [] and record["statusCode"] == "200"
        if record not in behind:  # no preamble there: the header of a trusted peer
            assert (record["ip"], record["clientIp"], record["clientSource"]) == (client, "192.0.2.99:0", "x-real-ip")


def test_health_checks(collector: Collector, nginx: Proxied, tmp_path: Path) -> None:
    """LOCAL makes no claim. In version 1 HAProxy claims the very ends of its check's connection."""
    with contextlib.closing(HAProxy(tmp_path, nginx.port, checks=True)):
        wait_for(lambda: len(collector.records(PATH_OF_CHECKS)) >= 12, 20)
    records = [r for r in collector.records(PATH_OF_CHECKS) if r["statusCode"] == "200"]
    claims = {(r.get("clientIp") == r["ip"], r.get("clientSource")) for r in records}
    assert claims == {(False, None), (True, "proxy_v1")}
    assert all("clientIp" not in r for r in records if "clientSource" not in r)
    assert {r["direction"] for r in records} == {"1", "2"} and all(r["mark"] == [] for r in records)


# ---- preambles by hand ----

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ENDS4 = bytes([192, 0, 2, 10, 198, 51, 100, 20]) + struct.pack("!HH", 51000, 443)
LINE = b"PROXY TCP4 192.0.2.10 198.51.100.20 51000 443\r\n"


def block(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def checked(wrong: int = 0) -> bytes:
    """A preamble with a checksum, that is wrong by so much."""
    header = block(0x21, 0x11, ENDS4 + b"\x03\0\4\0\0\0\0")
    return header[:-4] + struct.pack("!I", crc32c.crc32c(header) ^ wrong)


def strip_and_serve(sock: socket.socket) -> None:
    """A server that wants a preamble, reads exactly that, byte by byte for version 1, and believes nothing of it."""
    start = sock.recv(1)
    if start == b"P":
        while not start.endswith(b"\r\n"):
            start += sock.recv(1)
    else:
        start += sock.recv(15, socket.MSG_WAITALL)
        sock.recv(int.from_bytes(start[14:16], "big"), socket.MSG_WAITALL)
    while (request := read_request(sock)) is not None:
        sock.sendall(answer(*request))


BY_HAND = {
    "line": (LINE, "192.0.2.10:51000", "proxy_v1", []),
    "unknown": (b"PROXY UNKNOWN \xff \r whatever\r\n", None, None, []),
    "checked": (checked(), "192.0.2.10:51000", "proxy_v2", []),
    "wrong": (checked(wrong=1), None, None, ["proxy_invalid"]),
    "short": (block(0x21, 0x21, ENDS4), None, None, ["proxy_invalid"]),
    "six": (block(0x21, 0x21, bytes(15) + b"\1" + bytes(15) + b"\2" + ENDS4[8:]), "[::1]:51000", "proxy_v2", []),
    "unix": (block(0x21, 0x31, b"/run/app.sock".ljust(216, b"\0")), None, None, []),
    "local": (block(0x20, 0x11, ENDS4), None, None, []),
    "long": (block(0x21, 0x11, ENDS4 + b"\xe0\xf0\x00" + b"x" * 0xF000), "192.0.2.10:51000", "proxy_v2", []),
}


@pytest.mark.parametrize("how", ["one call", "apart", "in pieces"])
@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(collector: Collector, name: str, how: str) -> None:
    preamble, claimed, source, marks = BY_HAND[name]
    path = f"/by-hand/{name}/{how.replace(' ', '-')}"
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    server = Server(strip_and_serve)
    with server.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if how == "one call":
            http(sock, preamble + request)
        else:
            step = len(preamble) if how == "apart" else max(1, len(preamble) // 40)
            for at in range(0, len(preamble), step):
                sock.sendall(preamble[at : at + step])
            http(sock, request)
    records = collector.wait_records(path, 2)
    server.close()
    assert {r["direction"] for r in records} == {"1", "2"}
    for record in records:
        assert (record.get("clientIp"), record.get("clientSource"), record["mark"]) == (claimed, source, marks)
        assert record["ip"].startswith("127.0.0.1:") and record["destIp"] == f"127.0.0.1:{server.port}"


def serve_one(sock: socket.socket) -> None:
    """One answer, after the empty line that ends a head; empty lines before the request are none."""
    data = b""
    while not data.lstrip(b"\r\n").endswith(b"\r\n\r\n"):
        data += sock.recv(1)
    sock.sendall(answer(b"/", b""))


@pytest.mark.parametrize("start", [b"PROXY", b"PROXYS", b"PROPFIND", b"\r\n\r\nGET", b"\r\n\r\nPROXY"])
def test_what_only_begins_like_one(collector: Collector, start: bytes) -> None:
    method, server = start.strip().decode(), Server(serve_one)
    path = f"/by-hand/begins/{len(start)}{method}"
    request = start + f" {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    with server.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request[:12]:
            sock.sendall(bytes([byte]))
        http(sock, request[12:])
    records = collector.wait_records(path, 2)
    server.close()
    for record in records:
        assert (record["method"], record["statusCode"], record["mark"]) == (method, "200", [])
        assert "clientIp" not in record and "clientSource" not in record
