"""How servers and clients of the TLS matrix are started. A missing program is a skip with the reason, in CI a failure."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.live.harness import wait_for
from tests.live.kafka_broker import free_port
from tests.live.matrix import build
from tests.live.matrix.starting import listening, tool
from tests.live.tls.bed import Bed
from tests.live.tls.exchanges import FIRST, Connection, Exchange, all_exchanges, content

HERE = Path(__file__).resolve().parent
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python has no name for it


class Running:
    """A server. It prints its port on its first line, or is told ``port``. Standard output and error are files."""

    def __init__(self, bed: Bed, directory: Path, name: str, *command: str, port: int = 0, **environment: str) -> None:
        self.output, self.errors = directory / f"{name}.out", directory / f"{name}.err"
        with self.output.open("wb") as out, self.errors.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment_of(bed, environment),
                start_new_session=True,
            )
        try:
            wait_for(lambda: self._is_ready(port), 20)
            self.port = port or int(self.output.read_text().split("\n")[0])
        except BaseException as error:
            self.close()
            raise RuntimeError(f"{command}: {self.errors.read_text()[-1000:]}") from error

    def _is_ready(self, port: int) -> bool:
        assert self.process.poll() is None, self.process.returncode
        return listening(port) if port else "\n" in self.output.read_text()

    def close(self) -> None:
        """End it and what it has forked."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT  # not reaped: so the group's number stays its own
        wait_for(lambda: os.waitid(os.P_PID, self.process.pid, ended) is not None, 2, quiet=True)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def environment_of(bed: Bed, more: dict[str, str]) -> dict[str, str]:
    """What programs of the matrix find in their environment."""
    return {**os.environ, "TLS_BED": str(bed.directory), "PYTHONPATH": str(ROOT), **more}


def log_lines(file: Path) -> list[dict[str, Any]]:
    """Whole lines of a log, with the exchange's number; proxies write only its path."""
    lines = []
    for text in file.read_text().split("\n")[:-1] if file.exists() else []:
        line = json.loads(text)
        if "path" in line:
            line["number"] = int(line["path"].split("/")[-2])
        lines.append(line)
    return lines


@dataclass
class Site:
    """Servers that run: what clients connect to, and the one behind it, if it passes requests on. ``name`` is the first part
    of the paths that it is asked for."""

    name: str
    front: Running
    log: Path
    behind: Site | None = None
    answers: Callable[[Exchange], bool] = field(default=lambda _: True)  # by itself, without the one behind

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.front.port}"

    def lines(self) -> list[dict[str, Any]]:
        """Of its log."""
        return log_lines(self.log)


@dataclass(frozen=True)
class Start:
    """What a server is started with."""

    bed: Bed
    directory: Path
    name: str  # the first part of all paths
    connections: list[Connection]
    stack: ExitStack  # what is closed behind the server
    behind: Site | None = None

    @property
    def log(self) -> Path:
        """The log of the server."""
        return self.directory / f"{self.name}.log"

    def run(self, *command: str, port: int = 0, **environment: str) -> Running:
        """Its process."""
        return Running(self.bed, self.directory, self.name, *command, port=port, **environment)


StartServer = Callable[[Start], Site]


def script(*command: str) -> StartServer:
    """A command that gets the name of its log as its last argument, and prints its port."""

    def start(this: Start) -> Site:
        return Site(this.name, this.run(tool(command[0]), *command[1:], str(this.log)), this.log)

    return start


def python(mode: str) -> StartServer:
    """A mode of servers.py."""
    return script(sys.executable, "-m", "tests.live.tls.servers", mode)


def compiled(name: str) -> StartServer:
    """A program that build.py makes."""
    return lambda this: Site(this.name, this.run(*build.command(name), "server", str(this.log)), this.log)


def puma(this: Start) -> Site:
    """Puma with its own TLS, eight threads."""
    port, bed = free_port(), this.bed.directory
    bind = f"ssl://127.0.0.1:{port}?cert={bed}/server.pem&key={bed}/server.key&ca={bed}/ca.pem&verify_mode=force_peer"
    command = (tool("puma"), "--quiet", "--environment", "production", "--threads", "8:8", "--bind", bind)
    return Site(this.name, this.run(*command, str(HERE / "puma.ru"), port=port, TLS_LOG=str(this.log)), this.log)


def nginx(this: Start) -> Site:
    """Files of its own for some of the GETs, and a proxy to the server behind for all else; TLS on both sides."""
    assert this.behind is not None
    port, bed, root = free_port(), this.bed.directory, this.directory / "nginx"
    root.mkdir()
    root.chmod(0o777)

    def is_file(exchange: Exchange) -> bool:
        plain = exchange.method == "GET" and exchange.status == 200 and not exchange.chunked
        return plain and exchange.number >= FIRST and exchange.number % 3 == 1

    for exchange in filter(is_file, all_exchanges(this.connections)):
        file = root / exchange.path[1:]
        file.parent.mkdir(parents=True)
        file.write_bytes(content(this.bed.letters, exchange.number, exchange.answer))
    (root / "nginx.conf").write_text(f"""
daemon off; master_process on; worker_processes 1; user root; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format matrix escape=json
        '{{"path":"$request_uri","method":"$request_method","peer":"$remote_addr:$remote_port","status":$status}}';
    access_log {this.log} matrix;
    client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
    scgi_temp_path {root}/s; keepalive_requests 1000000; default_type text/plain; client_max_body_size 0;
    upstream behind {{ server {this.behind.address}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=512;
        ssl_certificate {bed}/server.pem; ssl_certificate_key {bed}/server.key;
        ssl_client_certificate {bed}/ca.pem; ssl_verify_client on;
        location / {{
            root {root}; error_page 418 = @behind; recursive_error_pages on;
            if ($request_method != GET) {{ return 418; }}
            try_files $uri @behind;
        }}
        location @behind {{
            rewrite ^/{this.name}/(.*)$ /{this.behind.name}/$1 break;
            proxy_pass https://behind; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_next_upstream off;
            proxy_ssl_certificate {bed}/client.pem; proxy_ssl_certificate_key {bed}/client.key;
            proxy_ssl_trusted_certificate {bed}/ca.pem; proxy_ssl_verify on; proxy_ssl_name localhost;
        }}
    }}
}}""")
    front = this.run(tool("nginx"), "-p", str(root), "-c", str(root / "nginx.conf"), port=port)
    return Site(this.name, front, this.log, this.behind, is_file)


class Receiver:
    """Writes datagrams to a file. HAProxy logs to such a one: to a file of its own it does not write at all while another of
    its threads does."""

    def __init__(self, file: Path) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._file = file.open("wb", buffering=0)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while line := self._socket.recv(4096):
            self._file.write(line.rstrip(b"\n") + b"\n")

    def close(self) -> None:
        """The thread ends with an empty datagram."""
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()
        self._file.close()


def haproxy(this: Start) -> Site:
    """A proxy with TLS on both sides, in two threads."""
    assert this.behind is not None
    port, bed, configuration = free_port(), this.bed.directory, this.directory / "haproxy.cfg"
    receiver = Receiver(this.log)
    this.stack.callback(receiver.close)
    configuration.write_text(f"""
global
    log 127.0.0.1:{receiver.port} format raw local0
    nbthread 2
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port} ssl crt {bed}/server-all.pem ca-file {bed}/ca.pem verify required alpn http/1.1
    log-format '{{"path":"%HP","method":"%HM","peer":"%ci:%cp","status":%ST}}'
    http-request replace-path /{this.name}/(.*) /{this.behind.name}/\\1
    default_backend behind
backend behind
    server one {this.behind.address} ssl crt {bed}/client-all.pem ca-file {bed}/ca.pem verify required alpn http/1.1
""")
    front = this.run(tool("haproxy"), "-db", "-f", str(configuration), port=port)
    return Site(this.name, front, this.log, this.behind, lambda _: False)


def apache(this: Start) -> Site:
    """A proxy with the event MPM, TLS on both sides."""
    assert this.behind is not None
    port, bed, root = free_port(), this.bed.directory, this.directory / "apache"
    root.mkdir()
    root.chmod(0o777)
    modules = ("mpm_event", "authz_core", "ssl", "proxy", "proxy_http", "socache_shmcb")
    loaded = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules)
    (root / "apache.conf").write_text(f"""
ServerRoot {root}
ServerName localhost
PidFile {root}/pid
ErrorLog {root}/error.log
DefaultRuntimeDir {root}
{loaded}
User www-data
Group www-data
Listen 127.0.0.1:{port}
StartServers 1
ServerLimit 2
ThreadsPerChild 32
MaxRequestWorkers 64
KeepAliveTimeout 60
MaxKeepAliveRequests 0
Protocols http/1.1
LogFormat "{{\\"path\\":\\"%U\\",\\"method\\":\\"%m\\",\\"peer\\":\\"%a:%{{remote}}p\\",\\"status\\":%>s}}" matrix
CustomLog {this.log} matrix
SSLEngine on
SSLCertificateFile {bed}/server.pem
SSLCertificateKeyFile {bed}/server.key
SSLCACertificateFile {bed}/ca.pem
SSLVerifyClient require
SSLProxyEngine on
SSLProxyMachineCertificateFile {bed}/client-all.pem
SSLProxyCACertificateFile {bed}/ca.pem
SSLProxyVerify require
SSLProxyCheckPeerName off
ProxyPass /{this.name}/ https://{this.behind.address}/{this.behind.name}/
""")
    front = this.run(tool("apache2"), "-f", str(root / "apache.conf"), "-D", "FOREGROUND", port=port)
    return Site(this.name, front, this.log, this.behind, lambda _: False)


class Client:
    """A client that runs, in one process or several: it makes connections as it is told them."""

    def __init__(
        self, bed: Bed, directory: Path, command: list[str], port: int, processes: int = 1, **environment: str
    ) -> None:
        self.log, self.errors = directory / "client.log", directory / "client.err"
        self.processes = []
        self._next = 0
        for _ in range(processes):
            with self.errors.open("ab") as err:
                process = subprocess.Popen(
                    [*command, str(port), str(self.log)],
                    stdin=subprocess.PIPE,
                    stdout=err,
                    stderr=err,
                    env=environment_of(bed, environment),
                    start_new_session=True,
                )
            self.processes.append(process)

    def lines(self) -> list[dict[str, Any]]:
        """Of its log."""
        return log_lines(self.log)

    def say(self, connection: Connection) -> None:
        """One more connection is to be made; waits while the client has much to do."""
        stdin = self.processes[self._next % len(self.processes)].stdin
        self._next += 1
        assert stdin is not None
        try:
            stdin.write(connection.line().encode())
            stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"the client has ended: {self.errors.read_text()[-2000:]}") from None

    def has_made(self, number: int) -> bool:
        """The exchange of this number is in the log."""
        assert all(process.poll() is None for process in self.processes), self.errors.read_text()[-2000:]
        return any(line["number"] == number for line in self.lines())

    def finish(self) -> None:
        """No more connections; wait until all are made."""
        for process in self.processes:
            process.communicate()
            assert process.returncode == 0, f"the client failed: {self.errors.read_text()[-2000:]}"

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
