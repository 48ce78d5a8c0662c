"""Who talks to whom in the HTTP/2 matrix, and how each program is started: in clear (prior knowledge) or inside TLS."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.live.kafka_broker import free_port
from tests.live.matrix import build
from tests.live.matrix.starting import tool
from tests.live.tls.bed import Bed
from tests.live.tls.starting import Receiver, Running

HERE = Path(__file__).resolve().parent
PROGRAMS = (sys.executable, "-m", "tests.live.h2.programs")


@dataclass(frozen=True)
class Start:
    """What a server is started with."""

    bed: Bed
    directory: Path
    name: str  # the first part of the paths that it is asked for
    clear: bool
    stack: ExitStack  # what is closed behind it
    behind: str = ""  # the address that a proxy passes requests on to, and the first part of their paths there
    behind_name: str = ""

    @property
    def log(self) -> Path:
        """What it was asked for, a line of JSON each."""
        return self.directory / f"{self.name}.log"

    @property
    def environment(self) -> dict[str, str]:
        """For programs of this matrix."""
        return {"H2_CLEAR": "1"} if self.clear else {}

    def run(self, *command: str, port: int = 0) -> Running:
        """Its process."""
        return Running(self.bed, self.directory, self.name, *command, port=port, **self.environment)


@dataclass(frozen=True)
class Server:
    """``process`` is its name in records. ``asks``: the protocol in which a proxy passes requests on."""

    process: str
    start: Callable[[Start], Running]
    asks: str = ""


@dataclass(frozen=True)
class Client:
    """``process`` is its name in records."""

    process: str
    command: Callable[[], list[str]]


def nginx(this: Start) -> Running:
    """HTTP/2 in front, HTTP/1 behind it: it speaks no other to servers."""
    port, bed, root = free_port(), this.bed.directory, this.directory / "nginx"
    root.mkdir()
    root.chmod(0o777)
    secret = "" if this.clear else f"ssl_certificate {bed}/server.pem; ssl_certificate_key {bed}/server.key;"
    (root / "nginx.conf").write_text(f"""
daemon off; master_process on; worker_processes 1; user root; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format matrix escape=json
        '{{"path":"$request_uri","method":"$request_method","peer":"$remote_addr:$remote_port","status":$status}}';
    access_log {this.log} matrix;
    client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
    scgi_temp_path {root}/s; keepalive_requests 1000000; client_max_body_size 0; proxy_max_temp_file_size 0;
    server {{
        listen 127.0.0.1:{port} {"" if this.clear else "ssl"} http2 backlog=512; {secret}
        location / {{
            rewrite ^/{this.name}/(.*)$ /{this.behind_name}/$1 break;
            proxy_pass {"http" if this.clear else "https"}://{this.behind}; proxy_http_version 1.1;
        }}
    }}
}}""")
    return this.run(tool("nginx"), "-p", str(root), "-c", str(root / "nginx.conf"), port=port)


def haproxy(this: Start) -> Running:
    """HTTP/2 on both sides."""
    port, bed, configuration = free_port(), this.bed.directory, this.directory / "haproxy.cfg"
    receiver = Receiver(this.log)
    this.stack.callback(receiver.close)
    front = "proto h2" if this.clear else f"ssl crt {bed}/server-all.pem alpn h2"
    back = "proto h2" if this.clear else f"ssl ca-file {bed}/ca.pem verify required alpn h2"
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
    bind 127.0.0.1:{port} {front}
    log-format '{{"path":"%HP","method":"%HM","peer":"%ci:%cp","status":%ST}}'
    http-request replace-path /{this.name}/(.*) /{this.behind_name}/\\1
    default_backend behind
backend behind
    server one {this.behind} {back}
""")
    return this.run(tool("haproxy"), "-db", "-f", str(configuration), port=port)


def apache(this: Start) -> Running:
    """HTTP/2 on both sides (mod_http2, mod_proxy_http2); in clear it takes the upgrade from HTTP/1, too."""
    port, bed, root = free_port(), this.bed.directory, this.directory / "apache"
    root.mkdir()
    root.chmod(0o777)
    modules = ("mpm_event", "authz_core", "ssl", "http2", "proxy", "proxy_http2", "socache_shmcb")
    loaded = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules)
    secret = f"""
SSLEngine on
SSLCertificateFile {bed}/server.pem
SSLCertificateKeyFile {bed}/server.key
SSLProxyEngine on
SSLProxyCACertificateFile {bed}/ca.pem
SSLProxyCheckPeerName off
"""
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
ServerLimit 1
ThreadsPerChild 32
MaxRequestWorkers 32
MaxKeepAliveRequests 0
Protocols {"h2c" if this.clear else "h2"} http/1.1
LogFormat "{{\\"path\\":\\"%U\\",\\"method\\":\\"%m\\",\\"peer\\":\\"%a:%{{remote}}p\\",\\"status\\":%>s}}" matrix
CustomLog {this.log} matrix
{"" if this.clear else secret}
ProxyPass /{this.name}/ {"h2c" if this.clear else "h2"}://{this.behind}/{this.behind_name}/
""")
    return this.run(tool("apache2"), "-f", str(root / "apache.conf"), "-D", "FOREGROUND", port=port)


def go(mode: str) -> list[str]:
    """A mode of the Go program."""
    return [*build.command("h2-go"), mode]


def python(mode: str) -> Callable[[Start], Running]:
    """A mode of programs.py."""
    return lambda this: this.run(*PROGRAMS, mode, str(this.log))


NODE = Server("node", lambda this: this.run(tool("node"), str(HERE / "server.js"), str(this.log)))
GO = Server("h2", lambda this: this.run(*build.command("h2-go"), "server", str(this.log)))
HYPERCORN = Server("python", python("hypercorn"))
NGINX = Server("nginx", nginx, asks="http1")
HAPROXY = Server("haproxy", haproxy, asks="http2")
APACHE = Server("apache2", apache, asks="http2")

NODE_CLIENT = Client("node", lambda: [tool("node"), str(HERE / "client.js")])
GO_CLIENT = Client("h2", lambda: go("client"))
HTTPX = Client("python", lambda: [*PROGRAMS, "httpx"])
CURL = Client("curl", lambda: [*PROGRAMS, "curl"])


@dataclass(frozen=True)
class Pair:
    """A client, the server that it calls, and the one behind that, if it is a proxy."""

    name: str
    client: Client
    server: Server
    behind: Server | None = None
    few: bool = False  # exchanges: a process for each

    def roles(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Process and protocol of the records that there must be, by direction and first part of their paths."""
        out = {
            ("2", self.name): (self.client.process, "http2"),
            ("1", self.name): (self.server.process, "http2"),
        }
        if self.behind:
            out["2", self.behind_name] = (self.server.process, self.server.asks)
            out["1", self.behind_name] = (self.behind.process, self.server.asks)
        return out

    @property
    def behind_name(self) -> str:
        """The first part of the paths behind a proxy."""
        return f"{self.name}-behind"


PAIRS = (
    Pair("node-node", NODE_CLIENT, NODE),
    Pair("go-go", GO_CLIENT, GO),
    Pair("httpx-hypercorn", HTTPX, HYPERCORN),
    Pair("go-haproxy-node", GO_CLIENT, HAPROXY, NODE),
    Pair("node-nginx-go", NODE_CLIENT, NGINX, GO),
    Pair("httpx-apache-go", HTTPX, APACHE, GO),
    Pair("curl-node", CURL, NODE, few=True),
    Pair("curl-go", CURL, GO, few=True),
    Pair("curl-hypercorn", CURL, HYPERCORN, few=True),
    Pair("curl-haproxy-go", CURL, HAPROXY, GO, few=True),
)
