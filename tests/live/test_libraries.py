"""Probe sources of libraries, end to end: found in running processes, attached, captured, bound to sockets, handed over to a
new loader, released. The libraries and their sources are those of tests/demo.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from elftools.elf.elffile import ELFFile

from collector import abi, capturefile
from collector.loader.mapped import Proc
from collector.loader.probes.probe import Found, Source
from tests.collector.test_files import replay
from tests.conftest import ROOT, skip_or_fail
from tests.demo import build, many, play, source
from tests.live.harness import Collector, Program, wait_for

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]
SIZES = [3, 700, 20000]


class WithSources(Collector):
    """A collector with a further probe source. ``uprobes``: perf, or - for the best that the kernel has."""

    def __init__(self, directory: Path, module: str, uprobes: str, *arguments: str, **environment: str) -> None:
        self.program = ("tests.demo", module, uprobes)
        super().__init__(directory, *arguments, PYTHONPATH=str(ROOT), **environment)


def all_attached(collector: Collector) -> None:
    """Entry and return of a function share a breakpoint, so breakpoints alone do not tell: no probe comes any more."""
    seen: list[float] = []

    def rests() -> bool:
        time.sleep(0.5)
        seen.append(collector.metric("collector_probes"))
        return len(seen) > 2 and len(set(seen[-3:])) == 1

    wait_for(rests, 20)


def breakpoints(pid: int, path: Path, of: Source, programs: Container[str] = ()) -> int:
    """How many places of a source, or of some of its programs, have a breakpoint where a process has mapped a library."""
    with open(f"/proc/{pid}/root{path}", "rb") as file:
        found = of.locate(ELFFile(file))
    assert isinstance(found, Found)
    (mapping,) = (one for one in Proc().mappings(pid) if one.path == str(path))
    begin = int(mapping.place.split("-")[0], 16) - mapping.offset
    places = {site.offset for site in found.sites if not programs or site.program in programs}
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return sum(os.pread(memory.fileno(), 1, begin + place) == b"\xcc" for place in places)


def covered(path: Path) -> int:
    """How many functions of libmany have a breakpoint where this process has mapped it."""
    return breakpoints(os.getpid(), path, many.SOURCE)


class Player:
    """A process that plays a scenario of tests/demo/play.py once it is told to."""

    left: ClassVar[list[Player]] = []  # by a test that failed: others would find its library

    def __init__(self, library: Path, scenario: str, *before: str) -> None:
        """``before``: a command that executes the one behind it."""
        self.library, self.scenario = library, scenario
        self.process = subprocess.Popen(
            [*before, sys.executable, ROOT / "tests/demo/play.py", library, scenario],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.left.append(self)
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def play(self, collector: Collector) -> list[str]:
        """The ends of the sockets, if there are any: server's local, client's local."""
        self.say()
        lines = []
        while (line := self.line()) != "done":
            lines.append(line)
            if self.scenario == "asked":
                wait_for(lambda: f"attached: on demand, process {self.process.pid}\n" in collector.log())
                self.say()
        return lines[0].split() if lines else []

    def asked(self) -> bool:
        """Are there the probes that are attached on demand?"""
        return breakpoints(self.process.pid, self.library, source.SOURCE, {source.ON_DEMAND}) == 1

    def say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.communicate("\n")
        self.left.remove(self)


@pytest.fixture(autouse=True)
def no_player_left() -> Iterator[None]:
    yield
    while Player.left:
        player = Player.left.pop()
        player.process.kill()
        player.process.communicate()


@pytest.fixture(scope="module", params=["multi", "perf"])
def uprobes(live: None, request: pytest.FixtureRequest) -> str:
    release = tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2])
    if request.param == "multi" and release < (6, 6):
        skip_or_fail("links of many uprobes need kernel 6.6")
    return str(request.param)


@pytest.fixture(scope="module")
def played(uprobes: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Events of each scenario's process in the order of their rings, with its records under "records", ends under "ends"."""
    directory = tmp_path_factory.mktemp("played")
    directory.chmod(0o755)
    library = build.library("demo", directory)
    capture = directory / "traffic.cap"
    collector = WithSources(directory, "tests.demo.source", "perf" if uprobes == "perf" else "-", "--record", str(capture))
    out: dict[str, list[Any]] = {}
    try:
        players = {name: Player(library, name) for name in ("known", "late", "never", "memory", "killed", "asked")}
        wait_for(lambda: f"attached: library {str(library)!r}" in collector.log(), 30)
        for name, player in players.items():
            out[f"ends {name}"] = player.play(collector)
            out[f"pid {name}"] = [player.process.pid]
        out["asked"] = [name for name, player in players.items() if player.asked()]
        for player in players.values():
            player.close()
        wait_for(lambda: f"released: library {file_of(collector.log(), library)}" in collector.log(), 30)
        out["log"] = [collector.log()]
    finally:
        code = collector.stop()
    assert code == 0, collector.log()
    events: list[dict[str, Any]] = []
    out["names"] = []  # of the demo: the ring, how many events come first, the number
    for span in capturefile.Recording(str(capture)).spans():
        found = abi.walk(span.data)
        out["names"] += [(span.ring, len(events), event["number"]) for event in found if event.get("name") == b"demo-1.0"]
        events += found
    out["told"] = [
        (place, event["library"])
        for place, event in enumerate(events)
        if event["type"] == abi.TLS and event["source"] == source.NUMBER
    ]
    out["capture"] = [str(capture)]
    out["attached on demand"] = out["asked"]
    for name in players:
        out[name] = [event for event in events if event["conn"][1] == out[f"pid {name}"][0]]
    out["records"] = collector.records()
    return out


def file_of(log: str, library: Path) -> str:
    """Device and inode, as the collector names the file in its messages."""
    return str(re.findall(rf"attached: library {re.escape(repr(str(library)))} \(([0-9a-f:]+)\)", log)[-1])


def named(events: list[dict[str, Any]], *types: int) -> list[tuple[Any, ...]]:
    """The library's events, and binds: (type, direction, position, true length)."""
    return [
        (event["type"], event["dir"], event["pos"], event["len_true"])
        for event in events
        if event["source"] == source.NUMBER and (not types or event["type"] in types)
    ]


def of_object(events: list[dict[str, Any]], role: int) -> list[dict[str, Any]]:
    """The events of the process's object with this role, under its own conn_id and in its ring."""
    opened = next(
        event for event in events if event["type"] == abi.OPEN and event["source"] == source.NUMBER and event["role"] == role
    )
    return [event for event in events if event["conn"][0] == opened["conn"][0] and event["type"] != abi.PROCESS]


def stream(events: list[dict[str, Any]], direction: int) -> bytes:
    """The bytes of one direction, each at its position."""
    data = b""
    for event in events:
        if event["type"] == abi.DATA and event["dir"] == direction and event["source"] == source.NUMBER:
            assert event["pos"] == len(data) and event["len_true"] == event["len_cap"], event
            data += event["data"]
    return data


def expected(scenario: str) -> tuple[bytes, bytes]:
    """(requests, answers)."""
    name = scenario.encode()
    return (
        b"".join(
            b"POST /%s?n=%d HTTP/1.1\r\nHost: demo\r\nContent-Length: %d\r\n\r\n%s" % (name, i, n, b"q" * n)
            for i, n in enumerate(SIZES)
        ),
        b"".join(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (n, b"a" * n) for n in SIZES),
    )


@pytest.mark.parametrize("scenario", ["known", "late", "never", "memory", "killed", "asked"])
def test_plaintext_arrives_whole_and_in_order(played: dict[str, list[Any]], scenario: str) -> None:
    requests, answers = expected(scenario)
    for role in (abi.SERVER,) if scenario == "memory" else (abi.SERVER, abi.CLIENT):
        events = of_object(played[scenario], role)
        assert events[0]["type"] == abi.OPEN and events[0]["start"] == abi.SEEN and events[0]["positions"] == (0, 0)
        asked, answered = (abi.IN, abi.OUT) if role == abi.SERVER else (abi.OUT, abi.IN)
        assert stream(events, asked) == requests and stream(events, answered) == answers
        closed = [event for event in events if event["type"] == abi.CLOSE and event["source"] == source.NUMBER]
        if scenario == "killed":  # the object is never freed
            assert not closed
        else:
            assert len(closed) == 1
            assert closed[0]["final"][asked] == len(requests) and closed[0]["final"][answered] == len(answers)


@pytest.mark.parametrize("scenario", ["known", "killed"])
def test_an_object_with_a_known_socket_has_its_name_and_ends(played: dict[str, list[Any]], scenario: str) -> None:
    server_host, server_port, client_host, client_port = played[f"ends {scenario}"]
    events = of_object(played[scenario], abi.SERVER)
    assert (events[0]["local"], events[0]["remote"]) == (
        (abi.address16(server_host), int(server_port)),
        (abi.address16(client_host), int(client_port)),
    )
    assert not [event for event in played[scenario] if event["type"] == abi.BIND]
    # the socket's end is told under the same name, although nothing of it was captured
    last = events[-1]
    assert (last["type"], last["source"], last["reason"]) == (abi.CLOSE, 0, abi.NORMAL)
    assert not [event for event in events if event["type"] == abi.DATA and event["source"] == 0]


@pytest.mark.parametrize("scenario", ["late", "asked"])
def test_a_socket_that_is_known_late_is_bound_and_follows_into_the_ring_of_the_object(
    played: dict[str, list[Any]], scenario: str
) -> None:
    server_host, server_port, client_host, client_port = played[f"ends {scenario}"]
    events = of_object(played[scenario], abi.SERVER)
    assert events[0]["local"] == (bytes(16), 0)
    (bind,) = (event for event in events if event["type"] == abi.BIND)
    data = [event for event in events if event["type"] == abi.DATA]
    before = [event for event in data if events.index(event) < events.index(bind)]
    assert before and len(before) < len(data)
    assert bind["socket"] not in (0, bind["conn"][0]) and bind["role"] == abi.SERVER
    assert (bind["local"], bind["remote"]) == (
        (abi.address16(server_host), int(server_port)),
        (abi.address16(client_host), int(client_port)),
    )
    socket_events = [event for event in played[scenario] if event["conn"][0] == bind["socket"]]
    assert [event["type"] for event in socket_events] == [abi.CLOSE]
    assert {event["ring"] for event in (*events, *socket_events)} == {bind["ring"]}


@pytest.mark.parametrize("scenario", ["never", "memory"])
def test_an_object_without_a_socket_has_no_ends(played: dict[str, list[Any]], scenario: str) -> None:
    events = of_object(played[scenario], abi.SERVER)
    assert events[0]["local"] == events[0]["remote"] == (bytes(16), 0)
    assert not [event for event in played[scenario] if event["type"] == abi.BIND]


def test_probes_on_demand_are_in_those_processes_that_need_them(played: dict[str, list[Any]]) -> None:
    assert played["attached on demand"] == ["known", "late", "never", "killed", "asked"]


def test_the_library_has_a_name_in_each_ring_before_anything_is_said_of_it(played: dict[str, list[Any]]) -> None:
    first, number = played["told"][0]
    assert {library for _place, library in played["told"]} == {number}
    rings = {ring: place for ring, place, library in played["names"] if library == number}
    assert list(rings) == list(range(len(rings))) and len(rings) >= 2  # of each shard at least one
    assert max(rings.values()) <= first


def test_a_recording_gives_the_same_records(played: dict[str, list[Any]]) -> None:
    done = replay(*played["capture"], "--shards", str(len(played["names"])))

    def those(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        names = ("recordId", "ip", "destIp", "tlsLibrary", "tlsVersion", "alpn", "marks", "process_id")
        return sorted(tuple(r[name] for name in names) for r in records if r.get("tlsLibrary") == "demo-1.0")

    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and those(records) == those(played["records"]) != []


def test_all_is_released_when_no_process_maps_the_library(played: dict[str, list[Any]], uprobes: str) -> None:
    (log,) = played["log"]
    assert not re.search(r"not attached: .*demo", log)


def test_300_probes_survive_a_killed_loader(uprobes: str, tmp_path: Path) -> None:
    library = build.library("many", tmp_path)
    with build.mapped(ctypes.CDLL(str(library))):
        survive_a_killed_loader(library, uprobes, tmp_path)


def survive_a_killed_loader(library: Path, uprobes: str, tmp_path: Path) -> None:
    collector = WithSources(tmp_path, "tests.demo.many", "perf" if uprobes == "perf" else "-")
    try:
        wait_for(lambda: collector.log().count(f"attached: library {str(library)!r}") == 1, 60)
        assert covered(library) == 300
        probes = collector.metric("collector_probes")
        victim = collector.child("loader.process")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: collector.child("loader.process") not in (0, victim), 30)
        wait_for(lambda: collector.page("readyz").strip() == "ok", 30)
        assert covered(library) == 300
        assert collector.metric("collector_probes") == probes
        wait_for(lambda: collector.log().count(f"attached: library {str(library)!r}") == 2, 60)  # and nothing was missing
        assert collector.metric("collector_probes") == probes
        assert collector.log().count("hooks ") == 2  # its own line and the start line: compiled once
    finally:
        code = collector.stop(seconds=120)  # the kernel takes some 80 ms to close each perf event
    assert code == 0 and covered(library) == 0, collector.log()


def test_a_new_shard_knows_the_socket_of_an_object(uprobes: str, tmp_path: Path) -> None:
    path = build.library("demo", tmp_path)
    with build.mapped(play.load(str(path))) as library:
        know_the_socket(path, library, uprobes, tmp_path)


def know_the_socket(path: Path, library: ctypes.CDLL, uprobes: str, tmp_path: Path) -> None:
    collector = WithSources(tmp_path, "tests.demo.source", "perf" if uprobes == "perf" else "-", COLLECTOR_SHARDS="1")
    try:
        wait_for(lambda: f"attached: library {str(path)!r}" in collector.log(), 30)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _address = listener.accept()
        fds = far.fileno(), near.fileno()
        ends = "{}:{}".format(*near.getsockname()), "{}:{}".format(*far.getsockname())
        server, client = play.Object(library, play.SERVER, fds[0]), play.Object(library, play.CLIENT, fds[1])
        play.exchanges(server, client, b"unbound", [3], (-1, -1, -1))
        play.exchanges(server, client, b"bound", [3], (0, *fds))
        collector.wait_records("/bound", 2)
        victim = collector.child("shards.process")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: collector.child("shards.process") not in (0, victim), 30)
        wait_for(lambda: collector.page("readyz").strip() == "ok", 30)
        play.exchanges(server, client, b"later", [3], (-1, -1, -1))
        request = b"GET /last HTTP/1.1\r\nHost: demo\r\n\r\n"
        client.write(request)
        assert server.read(len(request)) == request
        answer = b"HTTP/1.1 200 OK\r\n\r\nuntil the end"
        server.write(answer)
        assert client.read(len(answer)) == answer
        near.close()
        far.close()  # and the objects are never freed: it is the sockets' end that ends the answer
        records = collector.wait_records("/later", 2) + collector.wait_records("/last", 2)
    finally:
        code = collector.stop(seconds=120)
    assert code == 0, collector.log()
    assert {(r["ip"], r["destIp"], r["tlsLibrary"]) for r in records} == {(*ends, "demo-1.0")}
    assert [r["responsePayload"] for r in records] == ["aaa", "aaa", "until the end", "until the end"]


@pytest.mark.parametrize("scenario", ["known", "late", "never", "memory", "killed", "asked"])
def test_records_of_the_library(played: dict[str, list[Any]], scenario: str) -> None:
    records = [record for record in played["records"] if f"/{scenario}?" in record["path"]]
    sides = ("1",) if scenario == "memory" else ("1", "2")
    assert sorted((record["direction"], record["path"]) for record in records) == [
        (side, f"/{scenario}?n={number}") for side in sides for number in range(len(SIZES))
    ]
    for record in records:
        number = int(record["path"].rpartition("=")[2])
        assert record["requestPayload"] == "q" * SIZES[number] and record["responsePayload"] == "a" * SIZES[number]
        assert (record["tls"], record["tlsLibrary"], record["tlsVersion"]) == ("true", "demo-1.0", "1.3")
        assert record["alpn"] == "http/1.1" and "sni" not in record
        if scenario in ("never", "memory"):
            assert record["mark"] == ["peer_unknown"]
        else:
            server_host, server_port, client_host, client_port = played[f"ends {scenario}"]
            assert not record["mark"]
            assert (record["ip"], record["destIp"]) == (f"{client_host}:{client_port}", f"{server_host}:{server_port}")


def test_probes_on_demand_survive_a_killed_loader_and_go_with_their_process(uprobes: str, tmp_path: Path) -> None:
    library = build.library("demo", tmp_path)
    collector = WithSources(tmp_path, "tests.demo.source", "perf" if uprobes == "perf" else "-")
    try:
        first = Player(library, "asked")
        wait_for(lambda: collector.log().count(f"attached: library {str(library)!r}") == 1, 30)
        first.say()
        wait_for(first.asked)
        victim = collector.child("loader.process")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: collector.child("loader.process") not in (0, victim), 30)
        wait_for(lambda: collector.log().count(f"attached: library {str(library)!r}") == 2, 60)
        wait_for(first.asked)  # killed before the supervisor had it, the probe comes again
        second = Player(library, "asked")
        assert not second.asked()
        second.say()
        wait_for(second.asked)
        first.say()
        first.close()
        wait_for(lambda: f"released: on demand, process {first.process.pid}" in collector.log())
        assert second.asked()
        second.say()
        second.close()
        wait_for(lambda: f"released: library {file_of(collector.log(), library)}" in collector.log(), 30)
    finally:
        code = collector.stop(seconds=120)
    assert code == 0, collector.log()


@pytest.mark.parametrize("hooks", ["tpx", "raw"])
def test_what_begins_or_is_mapped_late_is_found_without_looking_at_all_processes(
    live: None, tmp_path: Path, hooks: str
) -> None:
    libraries = []
    for name in ("at the start", "begins", "late"):
        (tmp_path / name).mkdir()
        libraries.append(build.library("demo", tmp_path / name))
    at_start, begins, late = libraries
    script = "import ctypes, sys; sys.stdin.readline(); ctypes.CDLL(sys.argv[1]); sys.stdin.read()"
    loads_late = subprocess.Popen([sys.executable, "-c", script, late], stdin=subprocess.PIPE, text=True)
    assert loads_late.stdin is not None
    first = Player(at_start, "memory")
    environment = {"UPROBE_POLL_INTERVAL": "3600", "COLLECTOR_HOOKS": hooks}
    collector = WithSources(tmp_path, "tests.demo.source", "-", **environment)
    try:
        wait_for(lambda: f"attached: library {str(at_start)!r}" in collector.log(), 30)
        second = Player(begins, "memory")
        wait_for(lambda: f"attached: library {str(begins)!r}" in collector.log(), 30)
        loads_late.stdin.write("\n")
        loads_late.stdin.flush()
        wait_for(lambda: f"attached: library {str(late)!r}" in collector.log(), 30)
        first.close()
        second.close()
    finally:
        loads_late.communicate()
        code = collector.stop(seconds=120)
    assert code == 0, collector.log()


def test_some_programs_only(uprobes: str, tmp_path: Path) -> None:
    library = build.library("demo", tmp_path)
    chosen = tmp_path / "chosen"
    chosen.symlink_to(sys.executable)
    how = "perf" if uprobes == "perf" else "-"
    collector = WithSources(tmp_path, "tests.demo.source", how, PROBE_PROCESS_NAMES="Chosen")
    try:
        other, meant = Player(library, "known"), Player(library, "known", "sh", "-c", f'exec "{chosen}" "$@"')
        wait_for(lambda: breakpoints(meant.process.pid, library, source.SOURCE, {"demo_enter"}) == 2)
        all_attached(collector)
        meant.play(collector)
        collector.wait_records("/known", 2 * len(SIZES))
        other.play(collector)
        assert breakpoints(other.process.pid, library, source.SOURCE) == 0
        third = Player(library, "memory")
        third.play(collector)
        meant.close()
        wait_for(lambda: f"released: on demand, process {meant.process.pid}" in collector.log())
        for player in (other, third):
            player.close()
    finally:
        code = collector.stop(seconds=120)
    assert code == 0, collector.log()
    assert len(collector.records("/known")) == 2 * len(SIZES) and not collector.records("/memory")


@pytest.mark.parametrize("identity", ["socket", "descriptor"])
def test_plain_connections_are_left_out_where_only_libraries_are_wanted(live: None, tmp_path: Path, identity: str) -> None:
    library = build.library("demo", tmp_path)
    environment = {"CAPTURE_ALL": "False", "CAPTURE_SSL": "TRUE", "COLLECTOR_IDENTITY": identity}
    collector = WithSources(tmp_path, "tests.demo.source", "-", **environment)
    try:
        player = Player(library, "known")
        wait_for(lambda: f"attached: library {str(library)!r}" in collector.log(), 30)
        server = Program("plain")
        try:
            ask(server, "/plain")
        finally:
            server.close()
        player.play(collector)
        collector.wait_records("/known", 2 * len(SIZES))
        assert not collector.records("/plain")
        player.close()
    finally:
        code = collector.stop(seconds=120)
    assert code == 0, collector.log()


def ask(server: Program, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
        return bytes(answer.read())


def test_processes_of_some_names_only(live: None, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.symlink_to(sys.executable)
    collector = WithSources(tmp_path, "tests.demo.source", "-", TRACE_COMMS="chosen,another")
    servers = [Program("plain"), Program(str(chosen), str(Path(__file__).parent / "programs.py"), "plain")]
    try:
        wait_for(lambda: ask(servers[1], "/chosen") and collector.records("/chosen"))
        ask(servers[0], "/not")
        ask(servers[1], "/last")
        collector.wait_records("/last", 1)
    finally:
        for server in servers:
            server.close()
        code = collector.stop(seconds=120)
    assert code == 0, collector.log()
    assert {record["direction"] for record in collector.records("/chosen")} == {"1"} and not collector.records("/not")
