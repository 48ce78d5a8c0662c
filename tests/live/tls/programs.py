"""The programs of the TLS matrix, and which of them talk to each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.conftest import ROOT
from tests.live.matrix import build
from tests.live.matrix.starting import tool
from tests.live.tls import starting
from tests.live.tls.starting import HERE, StartServer

ROWS = ROOT / "build" / "tls-matrix"  # what the tests have found out, a file for each side of each pair

# what a program says of itself, and where the version stands in it
NODE = ("node", "-p", "process.version + ' ' + process.versions.openssl")
PYTHON_SSL = (sys.executable, "-c", "import ssl; print(ssl.OPENSSL_VERSION)")


def said(*command: str) -> Callable[[str], str]:
    """What a command says; the first group of a pattern is cut out of it."""

    def version(pattern: str) -> str:
        done = subprocess.run([tool(command[0]), *command[1:]], capture_output=True, text=True, check=True)
        found = re.search(pattern, done.stdout + done.stderr)
        assert found is not None, (command, done.stdout, done.stderr)
        return found[1]

    return version


def package(name: str) -> Callable[[], str]:
    """The version of a Python package."""
    return lambda: said(sys.executable, "-c", f"import {name}; print('version', {name}.__version__)")(r"version (\S+)")


def own() -> str:
    """A program of the matrix has no version of its own."""
    return "-"


def shared_openssl() -> str:
    """The distribution's library."""
    return "OpenSSL " + said("openssl", "version", "-v")(r"Library: OpenSSL ([\d.]+)")


def shared_gnutls() -> str:
    """The distribution's library."""
    return "GnuTLS " + said(*build.command("tls-gnutls"), "version")(r"(.*)")


def static_openssl() -> str:
    """The library that was linked into the C program."""
    version = said(*build.command("tls-openssl"), "version")(r"OpenSSL ([\d.]+)")
    return f"OpenSSL {version}, static"


def node_openssl() -> str:
    """Node's own."""
    return "OpenSSL " + said(*NODE)(r" ([\d.]+)") + ", static in node"


def python_openssl() -> str:
    """That of the interpreter."""
    return "OpenSSL " + said(*PYTHON_SSL)(r"OpenSSL ([\d.]+)")


def ruby_openssl() -> str:
    """That of the extension."""
    return "OpenSSL " + said("ruby", "-ropenssl", "-e", "puts OpenSSL::OPENSSL_LIBRARY_VERSION")(r"OpenSSL ([\d.]+)")


def php_openssl() -> str:
    """That of libcurl."""
    return "OpenSSL " + said("php", "-r", "echo curl_version()['ssl_version'];")(r"OpenSSL/([\d.]+)")


def go_version() -> str:
    """Of the compiler, and so of crypto/tls."""
    return said("go", "version")(r"go([\d.]+)")


def go_tls() -> str:
    """The standard library's."""
    return f"Go crypto/tls {go_version()}"


@dataclass(frozen=True)
class Server:
    """A program that serves."""

    name: str
    process: str  # its name in records
    version: Callable[[], str]
    library: Callable[[], str]
    start: StartServer


@dataclass(frozen=True)
class Program:
    """A program that calls."""

    name: str
    process: str
    version: Callable[[], str]
    library: Callable[[], str]
    command: Callable[[], list[str]]
    processes: int = 1
    bodies_alone: bool = False


@dataclass(frozen=True)
class Pair:
    """A client, the server that it calls, and the one behind that, if it is a proxy."""

    name: str
    client: Program
    server: Server
    behind: Server | None = None


def go_server(build_name: str, what: str) -> Server:
    """A build of the Go program."""
    return Server(f"Go net/http ({what})", "matrix", go_version, go_tls, starting.compiled(build_name))


def go_client(build_name: str, what: str) -> Program:
    """The same as a client."""
    return Program(f"Go net/http ({what})", "matrix", go_version, go_tls, lambda: [*build.command(build_name), "client"])


def python_client(name: str) -> Program:
    """A mode of clients.py."""
    command = [sys.executable, "-m", "tests.live.tls.clients", name]
    return Program(name, "python", package(name), python_openssl, lambda: command)


def command_client(name: str) -> Callable[[], list[str]]:
    """A mode of commands.py."""
    return lambda: [sys.executable, "-m", "tests.live.tls.commands", tool(name).rpartition("/")[2]]


NGINX = Server("nginx", "nginx", lambda: said("nginx", "-v")(r"nginx/([\d.]+)"), shared_openssl, starting.nginx)
HAPROXY = Server("HAProxy", "haproxy", lambda: said("haproxy", "-v")(r"version ([\d.]+)"), shared_openssl, starting.haproxy)
APACHE = Server(
    "Apache (event)", "apache2", lambda: said("apache2", "-v")(r"Apache/([\d.]+)"), shared_openssl, starting.apache
)
NODE_SERVER = Server(
    "Node https", "node", lambda: said(*NODE)(r"v([\d.]+)"), node_openssl, starting.script("node", str(HERE / "server.js"))
)
PYTHON_THREADS = Server(
    "CPython ssl, threads",
    "python",
    lambda: said(sys.executable, "-V")(r"Python ([\d.]+)"),
    python_openssl,
    starting.python("threads"),
)
UVICORN = Server("uvicorn (asyncio)", "python", package("uvicorn"), python_openssl, starting.python("asyncio"))
UVLOOP = Server("uvicorn (uvloop)", "python", package("uvicorn"), python_openssl, starting.python("uvloop"))
PUMA = Server("Puma", "puma", lambda: said("puma", "--version")(r"version ([\d.]+)"), ruby_openssl, starting.puma)
C_OPENSSL = Server("C program, OpenSSL linked statically", "openssl", own, static_openssl, starting.compiled("tls-openssl"))
C_GNUTLS = Server("C program, GnuTLS", "gnutls", own, shared_gnutls, starting.compiled("tls-gnutls"))
GO_PLAIN = go_server("tls-go", "plain")
GO_STRIPPED = go_server("tls-go-stripped", "-s -w")
GO_PIE = go_server("tls-go-pie", "PIE")

CURL = Program("curl", "curl", lambda: said("curl", "-V")(r"curl ([\d.]+)"), shared_openssl, command_client("curl"))
WGET = Program(
    "wget", "wget", lambda: said("wget", "-V")(r"Wget ([\d.]+)"), shared_gnutls, command_client("wget"), bodies_alone=True
)
NODE_CLIENT = Program(
    "Node https.Agent",
    "node",
    lambda: said(*NODE)(r"v([\d.]+)"),
    node_openssl,
    lambda: [tool("node"), str(HERE / "client.js")],
)
RUBY = Program(
    "Ruby net/http",
    "ruby",
    lambda: said("ruby", "-v")(r"ruby ([\d.]+)"),
    ruby_openssl,
    lambda: [tool("ruby"), str(HERE / "client.rb")],
)
PHP = Program(
    "PHP curl",
    "php",
    lambda: said("php", "-v")(r"PHP ([\d.]+)"),
    php_openssl,
    lambda: [tool("php"), str(HERE / "client.php")],
    processes=4,
)
C_OPENSSL_CLIENT = Program(C_OPENSSL.name, "openssl", own, static_openssl, lambda: [*build.command("tls-openssl"), "client"])
C_GNUTLS_CLIENT = Program(C_GNUTLS.name, "gnutls", own, shared_gnutls, lambda: [*build.command("tls-gnutls"), "client"])


def libcurl(library: str) -> Program:
    """One of the distribution's libcurl, by ctypes."""
    file = f"libcurl-{library.lower()}.so.4"

    def version(of: str) -> str:
        code = f"import ctypes; f = ctypes.CDLL('{file}').curl_version; f.restype = ctypes.c_char_p; print(f().decode())"
        return said(sys.executable, "-c", code)(of + r"/([\d.]+)")

    command = [sys.executable, "-m", "tests.live.tls.libcurl", file]
    name = f"libcurl with {library}"
    return Program(
        name, "python", lambda: version("libcurl"), lambda: f"{library} {version(library)}", lambda: command, processes=4
    )


def boring() -> str:
    """The crate that carries BoringSSL."""
    found = re.search(r'name = "boring-sys"\nversion = "([\d.]+)"', (HERE / "boring" / "Cargo.lock").read_text())
    assert found is not None
    return found[1]


def boring_library() -> str:
    """Of no version of its own."""
    return "BoringSSL, static"


BORING = Server("Rust hyper, boring", "matrix-boring", boring, boring_library, starting.compiled("tls-boring"))
BORING_CLIENT = Program(
    BORING.name, "matrix-boring", boring, boring_library, lambda: [*build.command("tls-boring"), "client"]
)

PAIRS: tuple[Pair, ...] = (
    Pair("curl-nginx", CURL, NGINX, C_OPENSSL),
    Pair("requests-haproxy", python_client("requests"), HAPROXY, PYTHON_THREADS),
    Pair("openssl-apache", C_OPENSSL_CLIENT, APACHE, NODE_SERVER),
    Pair("wget-gnutls", WGET, C_GNUTLS),
    Pair("nss-threads", libcurl("NSS"), PYTHON_THREADS),
    Pair("libcurlgnutls-openssl", libcurl("GnuTLS"), C_OPENSSL),
    Pair("gnutls-openssl", C_GNUTLS_CLIENT, C_OPENSSL),
    Pair("node-node", NODE_CLIENT, NODE_SERVER),
    Pair("requests-threads", python_client("requests"), PYTHON_THREADS),
    Pair("httpx-uvicorn", python_client("httpx"), UVICORN),
    Pair("aiohttp-uvloop", python_client("aiohttp"), UVLOOP),
    Pair("ruby-puma", RUBY, PUMA),
    Pair("php-go", PHP, GO_PLAIN),
    Pair("go-stripped", go_client("tls-go", "plain"), GO_STRIPPED),
    Pair("stripped-pie", go_client("tls-go-stripped", "-s -w"), GO_PIE),
    Pair("pie-openssl", go_client("tls-go-pie", "PIE"), C_OPENSSL),
)
if os.environ.get("TLS_BORING"):  # takes minutes to compile, and needs cmake and libclang
    PAIRS += (Pair("boring-boring", BORING_CLIENT, BORING),)
