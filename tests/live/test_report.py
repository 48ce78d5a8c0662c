"""`collector report` of a running collector, and the search for secrets: what went through the collector as header, body,
target, cookie, server name of TLS, argument or variable of a process is in its records, and nowhere else that it writes.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import re
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import status
from tests.live.certificates import Authority
from tests.live.harness import Collector, Nginx, Program, wait_for

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("live"), pytest.mark.timeout(180)]

PAGES = ("log.txt", "metrics.txt", "status.json")  # what comes from the running collector's own pages


class Canaries:
    """Secrets that can be told apart, each made at its first use."""

    def __init__(self) -> None:
        self._prefix = "canary" + secrets.token_hex(4)
        self._numbers = itertools.count()
        self.made: dict[str, str] = {}

    def __call__(self, what: str) -> str:
        self.made[what] = f"{self._prefix}n{next(self._numbers)}x"
        return self.made[what]

    def found(self, data: bytes) -> list[str]:
        """Those that are in some bytes: as they are, in base64 (from any place in a group of three), in hexadecimal."""
        return [what for what, secret in self.made.items() if any(form in data for form in self._forms(secret))]

    @staticmethod
    def _forms(secret: str) -> list[bytes]:
        plain = secret.encode()
        coded = [base64.b64encode(b"\0" * n + plain)[4 if n else 0 : -4] for n in range(3)]
        return [plain, *coded, plain.hex().encode(), plain[::-1]]


class Captured:
    """A collector at the level DEBUG through which all the secrets have gone."""

    def __init__(self, directory: Path) -> None:
        self.canary = canary = Canaries()
        self.directory = directory
        keys = directory / "keys"
        keys.mkdir()
        certificate = Authority(keys, "authority").issue("server")
        self.server = Program("threads")
        self.nginx = Nginx(directory, 'location / { return 200 "{}"; }', tls=(certificate, keys / "server.key"))
        self.collector = Collector(
            directory,
            AKTO_LOG_LEVEL="DEBUG",
            COLLECTOR_KAFKA_PASSWORD=canary("a setting: password"),
            COLLECTOR_KAFKA_TLS_KEY_PASSWORD=canary("a setting: key password"),
            SOME_VARIABLE=canary("a variable that is none of ours"),
        )
        self.speak()
        wait_for(lambda: any("last" in r["path"] for r in self.collector.records("/last")), 20)

    def speak(self) -> None:
        """All that is secret goes through, well-formed and not."""
        canary = self.canary
        body = json.dumps({"password": canary("a body"), "deep": [{"x": canary("a body, deep")}]}).encode()
        zipped = gzip.compress(canary("a body in gzip").encode())
        head = f"POST /{canary('a path')}?token={canary('a query')} HTTP/1.1\r\nHost: {canary('a host')}.test\r\n"
        head += f"Authorization: Bearer {canary('a header')}\r\nCookie: session={canary('a cookie')}\r\n"
        for extra, content in (
            ("Content-Type: application/json\r\n", body),
            ("Content-Encoding: gzip\r\n", zipped),
            ("Content-Encoding: gzip\r\n", b"\x1f\x8b" + canary("a damaged gzip").encode()),
            ("Content-Type: application/grpc\r\n", b"\0\0\0\0\x20" + canary("a damaged gRPC message").encode()),
            (f"Content-Type: text/plain; charset={canary('a charset')}\r\n", canary("a body in no charset").encode()),
        ):
            self._send(head.encode() + f"{extra}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        name = canary("a name of a header")
        for damaged in (
            f"GET /{canary('a target with a space')} x HTTP/1.1\r\n\r\n",
            f"GET / HTTP/1.1\r\n{name}\r\nContent-Length: 3\r\nContent-Length: {canary('a bad length')}\r\n\r\n",
            f"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{canary('a bad chunk')}\r\n",
            f"PROXY TCP4 {canary('a bad proxy line')}\r\n\r\n",
            f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{canary('a bad frame of HTTP/2')}",
            f"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {canary('a WebSocket key')}\r\n\r\n",
        ):
            self._send(damaged.encode(), answered=False)
        sni = canary("a server name of TLS")
        where = f"{sni}.test:{self.nginx.port}"
        command = ["curl", "-sk", "--resolve", f"{where}:127.0.0.1", "-H", f"X-Api-Key: {canary('a header in TLS')}"]
        command += ["-A", canary("an argument of a process"), f"https://{where}/{canary('a path in TLS')}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "T": canary("a variable of it")})
        self._send(b"GET /last HTTP/1.1\r\nHost: x\r\n\r\n")

    def _send(self, data: bytes, *, answered: bool = True) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as sock:
            sock.settimeout(20)
            sock.sendall(data)
            if not answered:
                sock.shutdown(socket.SHUT_WR)
            assert sock.recv(65536) or not answered

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "COLLECTOR_RUNTIME_DIR": str(self.directory / "run")}

    def report(self, name: str, *arguments: str) -> dict[str, str]:
        """The files of a report of this collector."""
        path = self.directory / f"{name}.tar.gz"
        done = subprocess.run(
            [sys.executable, "-m", "collector", "report", "--output", str(path), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert path.stat().st_mode & 0o777 == 0o600
        found = {}
        with tarfile.open(path) as tar:
            for entry in tar.getmembers():
                file = tar.extractfile(entry)
                assert file is not None
                found[entry.name.partition("/")[2]] = file.read().decode()
        assert all(file in done.stdout for file in found if file not in ("CONTENTS", "README"))
        return found

    def close(self) -> None:
        self.collector.stop()
        self.server.close()
        self.nginx.close()


@pytest.fixture(scope="module")
def captured(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    """One for all; the tests take it in the order in which they stand here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AKTO_")]:
            patch.delenv(name)
        one = Captured(tmp_path_factory.mktemp("report"))
        yield one
        one.close()


def test_a_report_has_every_part(captured: Captured) -> None:
    found = captured.report("whole")
    contents = found.pop("CONTENTS")
    assert all(line.endswith(" bytes") for line in contents.splitlines()), contents
    assert json.loads(found["status.json"])["pid"] == captured.collector.process.pid
    assert "collector_events_total" in found["metrics.txt"]
    for module in ("supervisor", "shards", "sink", "loader", "health"):
        assert f" {module}\n" in found["processes.txt"], found["processes.txt"]
        assert f" {module}: asked" in found["stacks.txt"], found["stacks.txt"]
    stacks = captured.report("again")["stacks.txt"]
    assert "supervisor.py" in stacks and "in _wait" in stacks
    assert stacks.count("Stack (most recent call first)") == 1  # that was asked for now: as it is, and of all threads
    for source in ("shards/process.py", "sink/process.py", "loader/process.py", "health/process.py"):
        assert source in found["log.txt"], f"no stack of {source}"
    assert re.search(r"lru_hash +conns .* \(\d+ %\)", found["maps.txt"]), found["maps.txt"]
    assert re.search(r"ringbuf .* \d+ bytes \(\d+ %\)", found["maps.txt"]), found["maps.txt"]
    assert "CPU:" in found["processes.txt"] and "Pss:" in found["processes.txt"]
    assert "of the running collector" in found["config.txt"] and "DEBUG" in found["config.txt"]
    assert re.search(r"COLLECTOR_KAFKA_PASSWORD +text +- +none +\(set\)", found["config.txt"])
    assert "exit code 0" in found["check.txt"] and "system call" in found["kernel-stacks.txt"]


def test_the_records_have_the_secrets_that_a_peer_sent(captured: Captured) -> None:
    """Or else the others prove nothing."""
    found = captured.canary.found(captured.collector.output.read_bytes())
    assert {"a body", "a path", "a query", "a header", "a cookie", "a header in TLS", "a path in TLS"} <= set(found)


def test_no_secret_is_in_the_log_at_debug_the_pages_and_the_report(captured: Captured) -> None:
    collector, canary = captured.collector, captured.canary
    places = {
        "log": collector.log(),
        **{page: collector.page(page) for page in ("metrics", "healthz", "readyz")},
        "status": json.dumps(status.ask(str(captured.directory / "run"))),
        "log page": status.page(str(captured.directory / "run"), "/log").decode(),
        **{f"report: {name}": text for name, text in captured.report("addresses", "--with-addresses").items()},
    }
    assert "DEBUG" in places["log"] and places["log page"]
    assert {where: found for where, text in places.items() if (found := canary.found(text.encode()))} == {}


def test_no_address_is_in_the_report_unless_it_is_asked_for(captured: Captured) -> None:
    run = str(captured.directory / "run")
    os.kill(captured.collector.process.pid, signal.SIGHUP)
    with_, without = captured.report("with", "--with-addresses"), captured.report("without")
    assert with_.keys() == without.keys()
    assert "<address-" not in "".join(with_.values()) and "as --with-addresses" not in with_["README"]
    host = socket.gethostname()
    for name, text in without.items():
        assert host not in text or len(host) < 3, name
        for word in re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text):
            assert word.startswith(("127.", "0.")), (name, word)
    assert run in without["config.txt"]


def test_a_collector_that_is_stuck_is_reported(captured: Captured) -> None:
    """The supervisor does not run: its log and its pages are there all the same."""
    pid = captured.collector.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        found = captured.report("stuck")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert re.search(rf"\n  {pid} \S+: state T", "\n" + found["kernel-stacks.txt"])
    assert "Pss:" in found["processes.txt"] and "conns" in found["maps.txt"] and "supervisor" in found["stacks.txt"]
    assert "capturing HTTP" in found["log.txt"] and "collector_events_total" in found["metrics.txt"]
    wait_for(lambda: captured.collector.page("readyz") == "ok\n", 20)


def test_pages_that_nobody_answers_are_said_and_the_rest_is_there(captured: Captured) -> None:
    supervisor, health = captured.collector.process.pid, captured.collector.child("collector.health.process")
    os.kill(supervisor, signal.SIGSTOP)  # it would start another child
    os.kill(health, signal.SIGSTOP)
    try:
        found = captured.report("silent")
    finally:
        os.kill(health, signal.SIGCONT)
        os.kill(supervisor, signal.SIGCONT)
    said = dict(line.split(None, 1) for line in found["CONTENTS"].splitlines())
    assert all("NoAnswerError" in said[name] for name in PAGES)
    assert f"\n{health} health" in found["processes.txt"] and "conns" in found["maps.txt"]
    wait_for(lambda: captured.collector.page("readyz") == "ok\n", 20)


AS_NOBODY = """
import os, sys
from collector.__main__ import main
from collector.report import command
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(main(["report", "--output", "/proc/self/fd/" + sys.argv[1]]))
"""


def test_another_user_gets_what_is_no_secret(captured: Captured) -> None:
    """Without privilege there is no page of the running collector in it, and nothing fails."""
    with (captured.directory / "nobody.tar.gz").open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(file.fileno())],
            env=captured.environment,
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines() if line.count(" ") > 2)
    assert "Permission denied" in lines["status.json"] and lines["versions.txt"].endswith("bytes")
    with tarfile.open(captured.directory / "nobody.tar.gz") as tar:
        assert {Path(name).name for name in tar.getnames()} >= {"check.txt", "kernel.txt", "README", "CONTENTS"}


def test_a_shard_that_crashes_leaves_no_core_and_no_secret(captured: Captured) -> None:
    """Not in its last words, either."""
    collector = captured.collector
    shard = collector.child("collector.shards.process")
    limits = Path(f"/proc/{shard}/limits").read_text()
    assert re.search(r"Max core file size +([01]) +\1 ", limits), limits
    assert [int(n) for n in resource.prlimit(collector.process.pid, resource.RLIMIT_CORE)] in ([1, 1], [0, 0])
    os.kill(shard, signal.SIGSEGV)
    wait_for(lambda: "ended with -11" in collector.log(), 20)
    wait_for(lambda: collector.page("readyz") == "ok\n", 20)
    assert "Segmentation fault" in collector.log() and "shards/process.py" in collector.log()
    assert list((captured.directory / "run").rglob("core*")) == []
    assert captured.canary.found(collector.log().encode()) == []
