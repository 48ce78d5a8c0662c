"""The health pages from the supervisor's side: a real child, real sockets; a port that others have, a child that dies."""

from __future__ import annotations

import http.client
import json
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import __version__, counter_names, recent
from collector.counters import CounterMemory, Counters
from collector.errors import ConfigError
from collector.health.process import MAX_CONNECTIONS
from collector.runtime import STACKS_SIGNAL
from collector.supervisor.health import STACKS_BYTES, TRY_AGAIN_SECONDS, Health, Port
from collector.supervisor.lock import STATUS_SOCKET

STATE: dict[str, Any] = {
    "live": [True, "ok"],
    "ready": [False, "not ready: loader"],
    "unseen": [],
    "unsupported": [],
    "policy": {"name": "off", "digest": "", "words": "off: nothing is redacted"},
    "pid": 7,
    "children": [],
    "notes": [],
}


class Pages:
    """A supervisor's part in the health pages, with the child that it started."""

    def __init__(self, directory: Path, address: str = "127.0.0.1:0") -> None:
        self.memory = CounterMemory(2 + 3)
        self.supervisor = Counters(self.memory.block(4), counter_names.SUPERVISOR_NAMES)
        self.directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.path = directory / STATUS_SOCKET
        self.now = 0.0
        self.state = STATE
        self.health = Health(address, self.directory, self.memory)
        self.health.open(self.now)
        self.start()

    @property
    def counters(self) -> Counters:
        return self.health.child.counters

    def start(self) -> None:
        self.health.start("INFO", None, self.state)
        channel = self.health.child.channel
        assert channel is not None
        select.select([channel], [], [])
        assert [message["kind"] for message, _ in self.health.child.said()] == ["ready"]
        self.health.child.ready = True
        self.health.serves()

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.supervisor["heartbeat_ns"] = time.monotonic_ns()
        self.health.turn(self.now, self.state)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.health._port.shown.rsplit(":", 1)
        return host, int(port)

    def get(self, path: str) -> tuple[int, bytes]:
        self.turn()
        connection = http.client.HTTPConnection(*self.address)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def private(self, path: str) -> bytes:
        """A page of the Unix socket."""
        self.turn()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.path))
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        return answer.partition(b"\r\n\r\n")[2]

    def status(self) -> dict[str, Any]:
        said = json.loads(self.private("/status"))
        assert isinstance(said, dict)
        return said

    def until(self, what: Callable[[], object]) -> None:
        while not what():
            self.turn()
            time.sleep(0.002)

    def close(self) -> None:
        self.health.child.discard()
        self.health.close()
        os.close(self.directory)


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    made = Pages(tmp_path)
    yield made
    made.close()


def test_pages_are_served_and_follow_the_supervisors_words(pages: Pages) -> None:
    assert pages.get("/healthz") == (200, b"ok\n")
    assert pages.get("/readyz") == (503, b"not ready: loader\n")
    assert pages.get("/status")[0] == 404
    assert b"collector_records_total" in pages.get("/metrics")[1]
    pages.state = {**STATE, "ready": [True, "ok"]}
    pages.until(lambda: pages.get("/readyz") == (200, b"ok\n"))
    said = pages.status()
    assert said["ready"] and said["version"] == __version__ and said["health_problem"] == ""
    assert said["health_address"] == "{}:{}".format(*pages.address)
    assert pages.counters["requests"] >= 4 and pages.counters["bad_requests"] == 1


@pytest.fixture
def kept() -> Iterator[recent.Handler]:
    """The handler of a supervisor's log that keeps its last lines."""
    handler = recent.Handler(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    handler.close()


def test_the_log_and_our_stacks_are_for_reports_only(kept: recent.Handler, tmp_path: Path) -> None:
    """The child reads them where we write them: nothing is sent, and they are there when we do not run."""
    pages = Pages(tmp_path)
    try:
        logging.getLogger("x").error("first")
        kept.say("said")
        assert pages.private("/log").endswith(b"ERROR first\nsaid\n") and pages.private("/stacks") == b""
        os.kill(os.getpid(), STACKS_SIGNAL)
        stacks = pages.private("/stacks").decode()
        assert "in test_the_log_and_our_stacks" in stacks and stacks.count("most recent call first") == 2
        assert [pages.get(path)[0] for path in ("/log", "/stacks")] == [404, 404]
        for _ in range(1000):  # what is asked for again and again does not fill the memory
            os.kill(os.getpid(), STACKS_SIGNAL)
            pages.turn()
        assert 0 < len(pages.private("/stacks")) < 2 * STACKS_BYTES
    finally:
        pages.close()
    os.kill(os.getpid(), STACKS_SIGNAL)  # ends nobody


def test_without_a_log_there_are_pages(pages: Pages) -> None:
    assert pages.private("/log") == b"" and pages.status()["live"]


def test_the_status_socket_is_nobody_elses_and_goes_with_us(tmp_path: Path) -> None:
    pages = Pages(tmp_path)
    assert pages.path.stat().st_mode & 0o777 == 0o600
    pages.close()
    assert not pages.path.exists()


def test_the_child_can_write_nobodys_counters_but_its_own(pages: Pages) -> None:
    pages.get("/healthz")
    before = bytes(pages.memory.block(0)), bytes(pages.memory.block(3))
    pages.until(lambda: pages.counters["requests"])
    assert (bytes(pages.memory.block(0)), bytes(pages.memory.block(3))) == before


def test_a_new_child_goes_on_where_the_old_one_was(pages: Pages) -> None:
    address = pages.address
    pages.get("/healthz")
    pages.health.child.kill()
    while not pages.health.child.reap():
        time.sleep(0.002)
    pages.health.child.ready = False
    assert pages.health.child.exit_code == -signal.SIGKILL
    with socket.create_connection(address) as waiting:  # the socket is the supervisor's: a client need only wait
        waiting.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        pages.turn()
        pages.start()
        pages.turn()
        assert waiting.recv(1000).startswith(b"HTTP/1.1 200")
    assert pages.address == address and pages.status()["live"]


def test_the_oldest_connection_gives_way(pages: Pages) -> None:
    opened = [socket.create_connection(pages.address) for _ in range(MAX_CONNECTIONS)]
    try:
        last = socket.create_connection(pages.address)
        opened.append(last)
        last.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        pages.turn()
        assert last.recv(1000).startswith(b"HTTP/1.1 200")
        with pytest.raises(ConnectionResetError):
            opened[0].recv(1)
        assert pages.counters["pushed_out"] >= 1
    finally:
        for sock in opened:
            sock.close()


@pytest.mark.slow
def test_a_client_that_sends_nothing_is_told_that_it_is_late(pages: Pages) -> None:
    with socket.create_connection(pages.address) as slow:
        slow.sendall(b"GET /hea")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    assert pages.counters["too_slow"] == 1


def test_a_port_that_is_taken_is_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        pages = Pages(tmp_path, f"127.0.0.1:{port}")
        assert "in use by another program" in pages.status()["health_problem"]
        pages.turn(TRY_AGAIN_SECONDS + 1)
        assert "in use" in pages.status()["health_problem"]
    try:
        pages.turn(TRY_AGAIN_SECONDS / 2)  # not yet
        assert "in use" in pages.status()["health_problem"]
        pages.turn(TRY_AGAIN_SECONDS)
        assert pages.get("/healthz") == (200, b"ok\n") and pages.status()["health_problem"] == ""
    finally:
        pages.close()


def test_a_socket_that_listens_no_more_is_replaced() -> None:
    port = Port("127.0.0.1:0")
    port.first(0.0)
    assert port.sock is not None and not port.again(TRY_AGAIN_SECONDS + 1)
    port.sock.shutdown(socket.SHUT_RDWR)  # a child that was taken over could do that
    assert not port.again(TRY_AGAIN_SECONDS + 2)  # not at every turn
    assert port.again(2 * TRY_AGAIN_SECONDS + 2)
    socket.create_connection(port.sock.getsockname()).close()
    port.close()


@pytest.mark.parametrize(
    ("address", "shown"), [("127.0.0.1:0", "127.0.0.1:"), ("0.0.0.0:0", "0.0.0.0:"), ("[::]:0", "[::]:")]
)
def test_addresses(address: str, shown: str) -> None:
    port = Port(address)
    try:
        port.first(0.0)
    except ConfigError:
        assert address.startswith("[")  # a host without IPv6
        return
    assert port.shown.startswith(shown) and port.shown.removeprefix(shown).isdecimal()
    port.close()


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no such host:1", "127.0.0.1:0.example:1"])
def test_an_address_that_cannot_be_ours_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="COLLECTOR_HEALTH_ADDRESS="):
        Port(address).first(0.0)
