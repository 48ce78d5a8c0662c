"""Where processes connect to: every socket() and connect() of a command and its descendants, by strace.

strace stops them at these calls only (seccomp), so all else runs as without it. `CONNECTS=1 pytest tests/live` has each
collector of those tests traced, and fails for one that connects to anything but its brokers.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import skip_or_fail

ALL = bool(os.environ.get("CONNECTS"))

USERS = "/var/run/nscd/socket"
_SOCKET = re.compile(r"^(\d+) +socket\((\w+), (\w+)")
_CONNECT = re.compile(r"^(\d+) +connect\(\d+, \{sa_family=(\w+), (.*?)\}, \d+")
_PORT, _HOST = re.compile(r"sin6?_port=htons\((\d+)\)"), re.compile(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')
_PATH = re.compile(r'sun_path=(@?)"([^"]*)"')


@dataclass(frozen=True)
class Call:
    """One call. ``to``: HOST:PORT, the path of a Unix socket (@ in front of an abstract one), or for socket() its type."""

    pid: int
    name: str
    family: str
    to: str


def tracer(log: Path) -> list[str]:
    """What to put in front of a command; its process id stays that of the command."""
    if shutil.which("strace") is None:
        skip_or_fail("needs strace")
    return [
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-s",
        "256",
        "-e",
        "signal=none",
        "-e",
        "trace=socket,connect",
        "-o",
        str(log),
    ]


def calls(log: Path) -> list[Call]:
    """All that is in a log. Raises ValueError for a line that is not understood: nothing is passed over."""
    out = []
    for line in log.read_text().splitlines():
        if found := _SOCKET.match(line):
            out.append(Call(int(found[1]), "socket", found[2], found[3]))
        elif found := _CONNECT.match(line):
            out.append(Call(int(found[1]), "connect", found[2], _to(found[2], found[3])))
        elif "(" in line and "resumed>" not in line:
            raise ValueError(line)
    return out


def _to(family: str, text: str) -> str:
    if family == "AF_UNIX":
        path = _PATH.search(text)
        return path[1] + path[2] if path else text
    host, port = _HOST.search(text), _PORT.search(text)
    return f"{host[1]}:{port[1]}" if host and port else text


def strange(seen: list[Call], brokers: Collection[str]) -> list[Call]:
    """Those that a collector has no business with: what is neither one of ``brokers`` (HOST:PORT, numeric) nor a socket of
    its own directory, and sockets that can send without connect() (datagrams, netlink, raw ones). The first process may ask
    the C library for the node's users, which looks for a name service cache.
    """
    return [call for call in seen if not _ours(call, brokers) and not (call.to == USERS and call.pid == seen[0].pid)]


def _ours(call: Call, brokers: Collection[str]) -> bool:
    if call.name == "socket":
        return call.family == "AF_UNIX" or call.family in ("AF_INET", "AF_INET6") and call.to.startswith("SOCK_STREAM")
    if call.family == "AF_UNIX":
        return bool(re.fullmatch(r"(sink|shard-\d+)\.sock", call.to))
    return call.to in brokers
