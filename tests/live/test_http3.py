"""HTTP/3 is not captured: its connections are counted by process and role, equal to those that were made."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.datagrams import V1, V2
from tests.live.harness import Collector, wait_for
from tests.live.matrix import build

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]
QUIC = "collector_quic_unsupported_connections_total"
HOSTS = ("127.0.0.1", "::1")


@pytest.fixture(scope="module")
def collector(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("http3")
    directory.chmod(0o755)
    running = Collector(directory)
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("certificate")
    pem, key = str(directory / "certificate.pem"), str(directory / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-keyout", key, "-out", pem],
        check=True,
        capture_output=True,
    )
    return pem, key


def aioquic(name: str) -> list[str]:
    """As tests/live/http3/play.py."""
    return [sys.executable, "-m", "tests.live.http3.play", name]


def quic_go(name: str, directory: Path) -> list[str]:
    """tests/live/http3/quicgo under this name."""
    return [str(shutil.copy(build.command("http3-quicgo")[0], directory / name))]


class Exchanges:
    """A server and a client that has made ``number`` connections to it, each with an exchange; both live."""

    def __init__(self, server: Sequence[str], client: Sequence[str], number: int, *options: str) -> None:
        self._processes = [self._start(server)]
        try:
            port = self._line(0)
            self._processes.append(self._start([*client, port, str(number), *options]))
            assert self._line(1) == "done"
        except BaseException:
            self.end()
            raise

    def _start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _line(self, number: int) -> str:
        out = self._processes[number].stdout
        assert out is not None
        return out.readline().strip()

    def end(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.communicate()


def counted(collector: Collector, process: str) -> dict[str, int]:
    """Connections of processes of this name by role."""
    lines = re.findall(rf'^{QUIC}{{process="{process}",role="(\w+)"}} (\S+)$', collector.page("metrics"), re.MULTILINE)
    return {role: int(float(number)) for role, number in lines}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", ["v1", "v2", "retry"])
def test_connections_of_aioquic(collector: Collector, certificate: tuple[str, str], host: str, kind: str) -> None:
    name = f"{kind}-{HOSTS.index(host)}"
    version = V2 if kind == "v2" else V1
    both = Exchanges(
        [*aioquic(f"{name}-server"), "server", host, *certificate, *([kind] if kind == "retry" else [])],
        [*aioquic(f"{name}-client"), "client", host],
        5,
        str(version),
    )
    try:
        wait_for(lambda: counted(collector, f"{name}-client") == {"client": 5}, 20)
        wait_for(lambda: counted(collector, f"{name}-server") == {"server": 5}, 20)
        assert f'collector_unseen_processes{{process="{name}-client",reason="quic"}} 1.0' in collector.page("metrics")
    finally:
        both.end()
    assert collector.log().count(f"process '{name}-client': has connections over QUIC (HTTP/3)") == 1
    assert not collector.records("/http3")


@pytest.mark.parametrize("host", HOSTS)
def test_connections_of_quic_go(collector: Collector, certificate: tuple[str, str], host: str, tmp_path: Path) -> None:
    """It sends by sendmsg, several datagrams a call, and receives by recvmmsg."""
    name = f"go-{HOSTS.index(host)}"
    both = Exchanges(
        [*quic_go(f"{name}-server", tmp_path), "server", host, *certificate],
        [*quic_go(f"{name}-client", tmp_path), "client", host],
        20,
    )
    try:
        wait_for(lambda: counted(collector, f"{name}-client") == {"client": 20}, 20)
        wait_for(lambda: counted(collector, f"{name}-server") == {"server": 20}, 20)
    finally:
        both.end()


def test_both_ends_of_other_implementations(collector: Collector, certificate: tuple[str, str], tmp_path: Path) -> None:
    both = Exchanges(
        [*aioquic("mixed-server"), "server", "127.0.0.1", *certificate],
        [*quic_go("mixed-client", tmp_path), "client", "127.0.0.1"],
        7,
    )
    try:
        wait_for(lambda: counted(collector, "mixed-client") == {"client": 7}, 20)
        wait_for(lambda: counted(collector, "mixed-server") == {"server": 7}, 20)
    finally:
        both.end()


def test_processes_that_have_ended_stay_counted_and_a_new_loader_counts_nothing_twice(
    collector: Collector, certificate: tuple[str, str]
) -> None:
    arguments = (
        [*aioquic("again-server"), "server", "127.0.0.1", *certificate],
        [*aioquic("again-client"), "client", "127.0.0.1"],
    )
    first = Exchanges(*arguments, 4)
    try:
        wait_for(lambda: counted(collector, "again-server") == {"server": 4}, 20)
        victim = collector.child("loader.process")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: collector.child("loader.process") not in (0, victim), 30)
        wait_for(lambda: collector.page("readyz").strip() == "ok", 30)
        Exchanges(*arguments, 3).end()
        wait_for(lambda: counted(collector, "again-client") == {"client": 7}, 20)
    finally:
        first.end()
    assert counted(collector, "again-client") == {"client": 7}
    assert counted(collector, "again-server") == {"server": 7}


def echo(datagrams: int) -> None:
    """So many, of lengths up to an Ethernet frame's, each sent, echoed and received; in this process."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for sock in (server, client):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(10)
        client.connect(server.getsockname())
        for number in range(datagrams):
            data = os.urandom(12 + number * 37 % 1460)
            client.send(data)
            got, address = server.recvfrom(2048)
            server.sendto(got, address)
            assert client.recv(2048) == data


def test_an_echo_is_none_and_the_sum_is_that_of_all(collector: Collector) -> None:
    before = collector.page("metrics")
    line = 'collector_kernel_ignored_total{reason="quic"} '
    (total,) = [text for text in before.splitlines() if text.startswith(line)]
    threads = [threading.Thread(target=echo, args=(20_000,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: collector.page("metrics") != before, 10)
    assert total in collector.page("metrics")
    assert float(total.removeprefix(line)) == collector.metric(QUIC) > 0


def test_the_status_says_so(collector: Collector) -> None:
    command = [sys.executable, "-m", "collector", "status"]
    environment = {**os.environ, "COLLECTOR_RUNTIME_DIR": str(collector.directory / "run")}

    def said(*more: str) -> str:
        return subprocess.run([*command, *more], env=environment, capture_output=True, check=True, text=True).stdout

    assert "\nnot read  go-0-client: 20 QUIC connections as a client\n" in said()
    rows = json.loads(said("--json"))["unsupported"]
    assert [QUIC.removesuffix("_total"), "server", "retry-1-server", 5] in rows
