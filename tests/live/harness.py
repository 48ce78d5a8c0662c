"""A collector under test, and programs to watch: real processes on the loopback interface."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.events import validate
from tests.live import connects
from tests.live.kafka_broker import free_port

HERE = Path(__file__).resolve().parent
RELEASE_SECONDS = 2.0  # in which the probes of a library are closed that nobody has any more
START_SECONDS = 150  # compiling included, on a machine with much else to do


class Collector:
    """`collector run --output FILE` as a process of its own."""

    program: tuple[str, ...] = ("collector",)  # the module, and what goes before `run`
    traced = connects.ALL  # its sockets and connections are in the file ``connects`` (tests/live/connects.py)

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        self.directory = directory
        self.connects = directory / "connects"
        self.brokers = environment.get("AKTO_KAFKA_BROKER_MAL", "").split(",")
        self.output = directory / "records.jsonl"
        self.port = free_port()
        self._file = (0, 0)  # what was read so far of the output: device and inode, bytes, lines, and the records of lines
        self._at = 0
        self._lines: list[bytes] = []
        self._records: dict[int, dict] = {}
        env = {
            **os.environ,
            "COLLECTOR_RUNTIME_DIR": str(directory / "run"),
            "AKTO_LOG_LEVEL": "INFO",
            "COLLECTOR_HEALTH_ADDRESS": f"127.0.0.1:{self.port}",
            "COLLECTOR_SHARDS": "2",
            **environment,
        }
        self.stderr = directory / "stderr.txt"
        if "--output" not in arguments:
            arguments = ("--output", str(self.output), *arguments)
        with self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [
                    *(connects.tracer(self.connects) if self.traced else []),
                    sys.executable,
                    "-m",
                    *self.program,
                    "run",
                    *arguments,
                ],
                env=env,
                stderr=err,
                stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
        try:
            wait_for(lambda: "capturing" in self.stderr.read_text() or self.process.poll() is not None, START_SECONDS)
        except AssertionError:  # or all that come later would find that another one captures
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no capture within {START_SECONDS} s: {self.stderr.read_text()[-1500:]}") from None
        if self.process.poll() is not None:
            raise RuntimeError(self.stderr.read_text())

    def records(self, part: str = "") -> list[dict]:
        """Whole records whose path contains ``part``, validated. Each is read once, however often this is asked."""
        if not self._read():
            return []
        found, wanted = [], part.encode()
        for number, line in enumerate(self._lines):
            if wanted in line:
                if number not in self._records:
                    self._records[number] = validate(json.loads(line))
                if part in self._records[number]["path"]:
                    found.append(self._records[number])
        return found

    def _read(self) -> bool:
        """The lines that the output has more than before; is there an output?"""
        try:
            with self.output.open("rb") as file:
                info = os.fstat(file.fileno())
                if self._file != (info.st_dev, info.st_ino) or info.st_size < self._at:
                    self._file, self._at, self._lines, self._records = (info.st_dev, info.st_ino), 0, [], {}
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return False
        whole = data.rfind(b"\n") + 1
        self._at += whole
        self._lines += data[:whole].split(b"\n")[:-1]
        return True

    def forget_records(self) -> None:
        """Empty the output, and read it from its beginning again. (Its size does not tell: by the next look it may be longer
        than it was before.)
        """
        self.output.write_bytes(b"")
        self._at, self._lines, self._records = 0, [], {}

    def settled(self) -> bool:
        """Are the probes of libraries those that stay? Released ones are there for another moment: what they record says
        nothing of the next exchange.
        """
        lines = re.finditer(r"^(\S+) .*: (attached|released): library .*?(\w+:\w+:\d+)\)?$", self.log(), re.MULTILINE)
        last = {line[3]: line for line in lines}
        leaving = [datetime.fromisoformat(line[1]).timestamp() for line in last.values() if line[2] == "released"]
        return time.time() - max(leaving, default=0.0) > RELEASE_SECONDS

    def wait_records(self, part: str, count: int, seconds: float = 10) -> list[dict]:
        """At least ``count`` records whose path contains ``part``, and then a moment for surplus ones."""
        wait_for(lambda: len(self.records(part)) >= count, seconds, quiet=True)
        time.sleep(0.3)
        found = self.records(part)
        assert len(found) == count, (
            len(found),
            [(r["direction"], r["path"], r["mark"]) for r in found][:8],
            self.log()[-1500:],
        )
        return found

    def page(self, name: str) -> str:
        """A page of the health server."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=5) as answer:
                text: bytes = answer.read()
                return text.decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self.page("metrics").splitlines()
            if line.startswith((name + " ", name + "{"))
        )

    def child(self, module: str) -> int:
        """The pid of a child process, by its module."""
        for entry in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                if module in Path(f"/proc/{entry}/cmdline").read_text():
                    return int(entry)
            except OSError:
                continue
        return 0

    def children(self) -> list[int]:
        """All child processes."""
        return [int(p) for p in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def log(self) -> str:
        """Everything on standard error."""
        return self.stderr.read_text()

    def stop(self, number: int = signal.SIGTERM, seconds: float = 40) -> int:
        """Ask it to end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(seconds)
            if connects.ALL:
                assert not connects.strange(connects.calls(self.connects), self.brokers)
            return code
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def wait_for(what: Callable[[], object], seconds: float = 10, *, quiet: bool = False) -> bool:
    """Poll until it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.05)
    if quiet:
        return False
    raise AssertionError(f"not within {seconds} s")


class Program:
    """A server under test: `programs.py NAME` or any command that prints its port on its first line."""

    def __init__(self, *command: str) -> None:
        if not command[0].startswith("/"):
            command = (sys.executable, str(HERE / "programs.py"), *command)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            self.close()
            raise RuntimeError(f"{command}: {line!r}")
        self.port = int(line)

    def close(self) -> None:
        """End it and what it has forked."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Nginx:
    """nginx with one worker (or more), `location` lines given; ``tls``: files of the certificate and its key."""

    def __init__(
        self, directory: Path, locations: str, *, workers: int = 1, tls: tuple[Path, Path] | None = None, http2: bool = False
    ) -> None:
        self.port = free_port()
        self.scheme = "https" if tls else "http"
        root = directory / "nginx"
        root.mkdir()
        os.chmod(directory, 0o755)
        os.chmod(root, 0o777)
        options = ("ssl " if tls else "") + ("http2 " if http2 else "")
        ssl = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};" if tls else ""
        (root / "nginx.conf").write_text(f"""
daemon off; master_process on; worker_processes {workers}; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log {root}/access.log; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; keepalive_requests 1000000; default_type application/json;
server {{ listen 127.0.0.1:{self.port} {options}backlog=1024; {ssl} root {root}; {locations} }} }}""")
        self.root = root
        self.process = subprocess.Popen(
            ["/usr/sbin/nginx", "-p", str(root), "-c", str(root / "nginx.conf")],
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        import socket

        def answers() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(answers)

    def workers(self) -> list[int]:
        """Worker processes."""
        return [int(p) for p in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def close(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
