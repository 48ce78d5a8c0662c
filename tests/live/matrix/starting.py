"""How each server of the matrix is started. A missing program is a skip with the reason, in CI a failure."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.conftest import skip_or_fail
from tests.live.harness import Program, wait_for
from tests.live.kafka_broker import free_port
from tests.live.matrix import build

HERE = Path(__file__).resolve().parent


class Server(Protocol):
    """Something that listens on the loopback interface."""

    port: int

    def close(self) -> None:
        """End it and all its processes."""


Start = Callable[[Path], Server]


def tool(name: str) -> str:
    """The path of an installed program."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        skip_or_fail(f"needs {name} (scripts/setup --test)")
    assert path is not None
    return path


def listening(port: int) -> bool:
    """Somebody listens there. Nobody is disturbed by a connection without a request."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in map(str.split, lines))


class Listening:
    """A command that is told its port."""

    def __init__(self, port: int, *command: str) -> None:
        self.port = port
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_for(lambda: listening(port) or self.process.poll() is not None, 20)
            assert self.process.poll() is None, (command, self.process.returncode)
        except BaseException:
            self.close()
            raise

    def children(self) -> list[int]:
        """Its child processes."""
        return [int(p) for p in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def close(self) -> None:
        """End it and what it has forked."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT  # not reaped: so the group's number stays its own
        wait_for(lambda: os.waitid(os.P_PID, self.process.pid, ended) is not None, 5, quiet=True)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def python(mode: str) -> Start:
    """A mode of servers.py."""
    return lambda _: Program(sys.executable, str(HERE / "servers.py"), mode)


def script(interpreter: str, name: str) -> Start:
    """A script of this folder that prints its port."""
    return lambda _: Program(tool(interpreter), str(HERE / name))


def compiled(name: str, *arguments: str) -> Start:
    """A program that build.py makes."""
    return lambda _: Program(*build.command(name), *arguments)


def inetd(*command: str) -> Start:
    """A command that starts answer.pl (ANSWER) for each connection to PORT."""

    def start(_: Path) -> Server:
        port = free_port()
        words = {"PORT": str(port), "ANSWER": str(HERE / "answer.pl")}
        arguments = [a.replace("PORT", words["PORT"]).replace("ANSWER", words["ANSWER"]) for a in command[1:]]
        return Listening(port, tool(command[0]), *arguments)

    return start


def busybox(directory: Path) -> Server:
    """`busybox httpd -f` with answer.pl as a CGI program: the connection's process passes on what that prints."""
    programs = directory / "cgi-bin"
    programs.mkdir()
    (programs / "answer").symlink_to(HERE / "answer.pl")
    port = free_port()
    return Listening(port, tool("busybox"), "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(directory))


def varnish(directory: Path, backend: int) -> Listening:
    """Varnish without caching; /varnish/... is asked for as /backend/... at the port ``backend``."""
    file = directory / "matrix.vcl"
    file.write_text(f"""vcl 4.0;
backend default {{ .host = "127.0.0.1"; .port = "{backend}"; }}
sub vcl_recv {{ set req.url = regsub(req.url, "^/varnish/", "/backend/"); return (pass); }}
""")
    port = free_port()
    return Listening(
        port,
        tool("varnishd"),
        "-F",
        "-j",
        "none",
        "-n",
        str(directory / "varnish"),
        "-f",
        str(file),
        "-a",
        f"127.0.0.1:{port}",
        "-s",
        "malloc,64m",
    )
