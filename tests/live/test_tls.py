"""Every way in which a program uses OpenSSL gives the records that clear text would have given (tlsplay.c)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.tls import certificate
from tests.live.harness import Collector, wait_for
from tests.live.matrix import build

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


class Player:
    """A run of tlsplay."""

    def __init__(self, folder: Path, scenario: str) -> None:
        self.scenario = scenario
        self.process = subprocess.Popen(
            [*build.command("tlsplay"), folder / "cert.pem", folder / "key.pem", scenario],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Begin, or go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def exchanges(self) -> dict[str, tuple[int, int]]:
        """What it has made until its end: path -> bytes of the answer, port of the client."""
        out, _err = self.process.communicate(timeout=60)
        *lines, last = out.splitlines()
        assert last == "done" and self.process.returncode == 0, out
        return {path: (int(size), int(port)) for path, size, port in map(str.split, lines)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certificates")
    certificate(found)
    return found


@pytest.fixture(scope="module", params=["socket", "descriptor"])
def collector(
    live: None, folder: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("tls")
    first = Player(folder, "plain")  # keeps the library mapped until the collector has found it
    found = Collector(directory, COLLECTOR_IDENTITY=request.param, MAX_BODY_SIZE="262144")
    try:
        wait_for(lambda: "libssl.so.3'" in found.log() and "libcrypto.so.3'" in found.log(), 60)
        first.go()
        first.exchanges()
        yield found
    finally:
        assert found.stop() == 0, found.log()


def compare(collector: Collector, made: dict[str, tuple[int, int]], part: str) -> list[dict]:
    """Both sides of each exchange are recorded once, whole and with their ends."""
    records = collector.wait_records(part, 2 * len(made))
    for direction in ("1", "2"):
        assert sorted(r["path"] for r in records if r["direction"] == direction) == sorted(made)
    for record in records:
        size, port = made[record["path"]]
        assert (record["tls"], int(record["responseSize"]), len(record["responsePayload"])) == ("true", size, size), record
        assert record["ip"].rpartition(":")[2] == str(port), (record["path"], record["ip"], port)
    return records


@pytest.mark.parametrize(
    "scenario", ["peek", "ex", "partial", "renegotiate", "keyupdate", "early", "moved", "freed", "referenced"]
)
def test_a_use_of_the_library(collector: Collector, folder: Path, scenario: str) -> None:
    player = Player(folder, scenario)
    player.go()
    made = player.exchanges()
    for record in compare(collector, made, f"/{scenario}/"):
        assert not record["mark"], record


def test_an_object_that_writes_into_memory_is_found_by_its_records(collector: Collector, folder: Path) -> None:
    for _ in range(2):
        player = Player(folder, "memory")
        player.go()
        made = player.exchanges()
        records = collector.wait_records("/memory/", 2 * len(made))
        collector.output.write_bytes(b"")
    assert {r["ip"].rpartition(":")[2] for r in records} == {str(port) for _size, port in made.values()}


def test_a_child_goes_on_with_its_parents_connection(collector: Collector, folder: Path) -> None:
    player = Player(folder, "fork")
    player.go()
    made = player.exchanges()
    records = compare(collector, made, "/fork/")
    assert len({r["process_id"] for r in records if r["direction"] == "1"}) == 2


def test_tls_inside_tls(collector: Collector, folder: Path) -> None:
    player = Player(folder, "inside")
    player.go()
    made = player.exchanges()
    records = collector.wait_records("/inside/", 2 * len(made))
    ports = {r["ip"].rpartition(":")[2] for r in records}
    assert ports <= {"0", *(str(port) for _size, port in made.values())}, "no connection's ends or its own"


def test_a_preamble_before_tls_is_kept(collector: Collector, folder: Path) -> None:
    player = Player(folder, "preamble")
    player.go()
    records = compare(collector, player.exchanges(), "/preamble/")
    assert {r["clientIp"] for r in records} == {"192.0.2.7:4711"}


def test_a_connect_before_tls(collector: Collector, folder: Path) -> None:
    player = Player(folder, "connect")
    player.go()
    compare(collector, player.exchanges(), "/connect/")


@pytest.mark.parametrize("identity", ["socket", "descriptor"])
def test_a_connection_that_is_older_is_joined_at_its_next_message(
    live: None, folder: Path, tmp_path: Path, identity: str
) -> None:
    player = Player(folder, "joined")
    player.go()
    assert player.process.stdout is not None
    lines = [player.process.stdout.readline() for _ in range(2)]
    collector = Collector(tmp_path, COLLECTOR_IDENTITY=identity, MAX_BODY_SIZE="262144")
    try:
        wait_for(lambda: "libssl.so.3'" in collector.log(), 60)
        player.go()
        made = player.exchanges()
        assert len(made) == 3 and not set(made) & {line.split()[0] for line in lines}
        for record in compare(collector, made, "/joined/"):
            assert record["mark"] == "joined_mid_stream", record
    finally:
        assert collector.stop() == 0, collector.log()
