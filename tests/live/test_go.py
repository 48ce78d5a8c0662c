"""Go's crypto/tls, end to end: HTTP/1 between Go programs over TLS with certificates on both sides. What client and server
logged is the truth; each exchange is recorded twice, once for each side.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from collector.loader.probes.go import Go
from collector.loader.probes.probe import Found
from tests.conftest import ROOT
from tests.live.golang import build
from tests.live.harness import Collector, wait_for

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]
CONNECTIONS, EXCHANGES = 50, 20
SMALL = [0, 1, 700, 4096, 20000, 60000]
LARGE = [0, 300_000, 5 << 20]
BODY_BYTES = 65536  # COLLECTOR_BODY_BYTES
# of the first exchange of a connection that was joined in the middle (docs/records.md)
DOUBT = {"joined_mid_stream", "pairing_uncertain", "request_framing_uncertain", "response_framing_uncertain"}
CHAINS = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca \
    -addext basicConstraints=critical,CA:TRUE
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out request.pem -subj /CN=server.test
printf 'subjectAltName=DNS:server.test\\nextendedKeyUsage=serverAuth,clientAuth\\n' > extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem
"""


@pytest.fixture(scope="module")
def keys(live: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate authority and a certificate for both sides."""
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(["sh", "-ec", CHAINS], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def collector(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("go")
    directory.chmod(0o755)
    running = Collector(directory)
    yield running
    assert running.stop(seconds=120) == 0, running.log()
    assert re.search(r" 0 dropped, 0 failed; \d+ events, 0 lost", running.log()), running.log()[-600:]


class WithPerfEvents(Collector):
    """A collector on a kernel without links of many places."""

    program = ("tests.live.golang.perf",)


class Server:
    """The server of tests/live/golang; it logs to a file."""

    def __init__(self, program: Path, keys: Path, lines: Path, *flags: object) -> None:
        self._lines = lines
        with lines.open("wb") as output:
            self.process = subprocess.Popen(
                [program, "serve", "-folder", keys, *map(str, flags)], stdin=subprocess.PIPE, stdout=output
            )
        wait_for(lambda: b"\n" in self._lines.read_bytes())
        self.address = "127.0.0.1:" + self._lines.read_text().split()[0]

    def exchanges(self) -> dict[str, dict[str, Any]]:
        """By path."""
        logged = [json.loads(line) for line in self._lines.read_text().splitlines()[1:]]
        return {one["Path"]: one for one in logged}

    def finish(self) -> dict[str, dict[str, Any]]:
        """End it; all that it has logged."""
        self.process.communicate(b"")
        return self.exchanges()


class Client:
    """The client of tests/live/golang."""

    def __init__(self, program: Path, keys: Path, server: Server, name: str, *flags: object) -> None:
        self.process = subprocess.Popen(
            [program, "call", "-folder", keys, "-address", server.address, "-name", name, *map(str, flags)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self) -> None:
        """What it waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> dict[str, dict[str, Any]]:
        """All that it has still to say, by path."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        *lines, last = self.process.stdout.read().splitlines()  # communicate() skips what line() has read ahead
        assert self.process.wait() == 0 and last == "done"
        self.process.stdout.close()
        return {one["Path"]: one for one in map(json.loads, lines)}


class Running:
    """Servers and clients, with keys, that end together."""

    def __init__(self, keys: Path, folder: Path) -> None:
        self._keys, self._folder = keys, folder
        self._all: list[Server | Client] = []

    def server(self, program: Path, *flags: object) -> Server:
        server = Server(program, self._keys, self._folder / f"server-{len(self._all)}", *flags)
        self._all.append(server)
        return server

    def client(self, program: Path, server: Server, name: str, *flags: object) -> Client:
        client = Client(program, self._keys, server, name, *flags)
        self._all.append(client)
        return client

    def close(self) -> None:
        for one in self._all:
            if one.process.poll() is None:
                one.process.kill()
                one.process.communicate()


def probed(program: Path, pid: int) -> set[str]:
    """The kernel programs of which there is a breakpoint in a process of this program."""
    with program.open("rb") as file:
        found = Go().locate(ELFFile(file))
    assert isinstance(found, Found)
    text = Path(f"/proc/{pid}/maps").read_text()
    pattern = re.compile(r"([0-9a-f]+)-[0-9a-f]+ r.xp ([0-9a-f]+) .*" + re.escape(str(program)))
    begin, offset = next((int(m[1], 16), int(m[2], 16)) for m in map(pattern.match, text.splitlines()) if m)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return {
            site.program for site in found.sites if os.pread(memory.fileno(), 1, begin + site.offset - offset) == b"\xcc"
        }


ALWAYS = {"go_handshake", "go_close", "go_read", "go_record"}


def covered(program: Path, *processes: Server | Client, by: set[str] | None = None) -> None:
    """Wait until what these processes do is seen."""
    pids = [one.process.pid for one in processes]
    wait_for(lambda: all(probed(program, pid) >= (by or ALWAYS) for pid in pids), 30)


@pytest.fixture
def running(keys: Path, tmp_path: Path) -> Iterator[Running]:
    """What is started by it ends with the test."""
    found = Running(keys, tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def program(live: None) -> Path:
    return build.program("stripped")


def body(text: str, size: int) -> str:
    one = text + ";"
    return (one * (size // len(one) + 1))[:size]


def check(records: list[dict], server: dict[str, dict[str, Any]], marks: list[str] | None = None) -> None:
    """Each record is what the server logged, with both ends of the connection as the server knows them."""
    for record in records:
        path = record["path"]
        truth = server[path]
        expected = [
            f"{side}_body_cut:{size - BODY_BYTES}"
            for side, size in (("request", truth["Request"]), ("response", truth["Answer"]))
            if size > BODY_BYTES
        ]
        assert sorted(record["mark"]) == (expected if marks is None else marks), path
        assert record["tls"] == "true" and record["statusCode"] == "200" and not truth["Error"]
        assert (int(record["requestSize"]), int(record["responseSize"])) == (truth["Request"], truth["Answer"]), record
        assert record["requestPayload"] == body(f"q:{path}", truth["Request"])[:BODY_BYTES]
        assert record["responsePayload"] == body(f"a:{path}", truth["Answer"])[:BODY_BYTES]
        assert (record["ip"], record["destIp"]) == (truth["Remote"], truth["Local"])


def sides(records: list[dict]) -> list[tuple[str, str]]:
    return sorted((record["direction"], record["path"]) for record in records)


def test_connections_that_are_older(running: Running, program: Path, tmp_path: Path) -> None:
    """They are joined at their next message, those that come later are whole. With one collector after another, the second
    of which has perf events instead of links.
    """
    server = running.server(program)
    client = running.client(program, server, "old", "-exchanges", 3, "-step")
    client.say()
    assert json.loads(client.line())
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        folder.chmod(0o755)
        collector = Collector(folder) if number == 1 else WithPerfEvents(folder, PYTHONPATH=str(ROOT))
        try:
            covered(program, server, client)
            client.say()
            assert json.loads(client.line())
            records = collector.wait_records(f"/old/c0/x{number}", 2)
            running.client(program, server, f"new{number}").finish()
            whole = collector.wait_records(f"/new{number}/", 2)
        finally:
            code = collector.stop(signal.SIGTERM, 120)
        assert code == 0
        check(records, server.exchanges(), sorted(DOUBT))
        check(whole, server.exchanges())
    assert not probed(program, server.process.pid)
    client.finish()


@pytest.mark.parametrize("kind", list(build.KINDS))
def test_both_sides_of_every_exchange(collector: Collector, running: Running, kind: str) -> None:
    program = build.program(kind)
    server = running.server(program)
    flags = ("-connections", CONNECTIONS, "-exchanges", EXCHANGES, "-sizes", json.dumps(SMALL), "-wait")
    client = running.client(program, server, kind, *flags)
    assert client.line() == "ready"
    covered(program, server, client)
    called = client.finish()
    assert len(called) == CONNECTIONS * EXCHANGES
    records = collector.wait_records(f"/{kind}/", 2 * len(called), 30)
    assert sides(records) == sorted((side, path) for side in "12" for path in called)
    check(records, server.finish())


def test_large_bodies(collector: Collector, program: Path, running: Running) -> None:
    server = running.server(program)
    covered(program, server)
    flags = ("-connections", 3, "-exchanges", 9, "-sizes", json.dumps(LARGE))
    called = running.client(program, server, "large", *flags).finish()
    assert len(called) == 27
    records = collector.wait_records("/large/", 2 * len(called), 30)
    assert sides(records) == sorted((side, path) for side in "12" for path in called)
    check(records, server.finish())


@pytest.mark.parametrize("wrap", ["tls", "counted", "buffered", "pipe"])
def test_a_connection_over_something_else_than_a_socket(
    collector: Collector, program: Path, running: Running, wrap: str
) -> None:
    server = running.server(program, "-wrap", wrap)
    client = running.client(program, server, f"{wrap}-first", "-wrap", wrap, "-step", "-exchanges", 4)
    covered(program, server, client)
    client.say()
    collector.wait_records(f"/{wrap}-first/", 2)
    if wrap != "tls":  # the probes that are needed for it are attached for both
        covered(program, server, client, by={"go_fd_read", "go_fd_write"})
    client.finish()
    first = collector.wait_records(f"/{wrap}-first/", 8)
    flags = ("-connections", 5, "-exchanges", 4, "-sizes", json.dumps(SMALL), "-wrap", wrap)
    called = running.client(program, server, wrap, *flags).finish()
    later = collector.wait_records(f"/{wrap}/", 2 * len(called))
    truth = server.finish()
    if wrap == "pipe":  # a goroutine of its own carries the bytes: nobody can tell which socket it is
        assert {tuple(record["mark"]) for record in first + later} == {("peer_unknown",)}
    elif wrap == "tls":
        check(first + later, truth)
    else:
        check([record for record in first if "/x3?" in record["path"]], truth)
        check([record for record in later if record["direction"] == "1"], truth)


def test_a_client_that_does_not_read_for_a_while(collector: Collector, program: Path, running: Running) -> None:
    server = running.server(program)
    covered(program, server)
    client = running.client(program, server, "slow", "-mode", "stall", "-sizes", "[5242880]")
    assert client.line() == "stalled"
    flags = ("-connections", 5, "-exchanges", 5, "-sizes", json.dumps(SMALL))
    others = running.client(program, server, "meanwhile", *flags).finish()
    meanwhile = collector.wait_records("/meanwhile/", 2 * len(others))
    assert not collector.records("/slow/")
    assert len(client.finish()) == 1
    slow = collector.wait_records("/slow/", 2)
    check(slow + meanwhile, server.finish())


def test_a_client_that_leaves(collector: Collector, program: Path, running: Running) -> None:
    """What the server could not write any more is not in its record, what the client has not read not in the other."""
    server = running.server(program)
    covered(program, server)
    client = running.client(program, server, "gone", "-mode", "leave", "-sizes", "[52428800]")
    assert client.line() == "stalled"
    client.finish()
    served, called = sorted(collector.wait_records("/gone/", 2), key=lambda record: record["direction"])
    wait_for(server.exchanges)
    (truth,) = server.finish().values()
    assert truth["Error"]
    for record in (served, called):
        assert "response_incomplete" in record["words"], record["mark"]
    # one record of TLS is the most that is told and was not sent
    assert 0 <= int(served["responseSize"]) - truth["Answer"] <= 16384
    assert int(called["responseSize"]) < int(served["responseSize"])
