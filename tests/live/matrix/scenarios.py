"""What is done with a kind of server, and what its records must say. Each scenario gets a running collector."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.live.harness import Collector, Program, wait_for
from tests.live.matrix import build
from tests.live.matrix.starting import Listening, Start, varnish
from tests.live.matrix.traffic import EXCHANGES, SIZES, Exchange, comm, drive, note_beast, plan
from tests.live.matrix.verdict import Expected, Records, Verdict, compare, never_wrong

SERVED, CALLED = "1", "2"


@dataclass(frozen=True)
class Kind:
    """A row of the matrix."""

    name: str
    what: str
    start: Start
    keep_alive: bool = True
    sizes: tuple[int, ...] = SIZES
    prefix: str = ""
    run: Callable[[Collector, Kind, Path], None] = field(default_factory=lambda: ordinary)

    @property
    def path(self) -> str:
        """What the paths of this kind begin with."""
        return f"{self.prefix}/{self.name}"


def served(exchanges: list[Exchange]) -> list[Expected]:
    """The server's side: the process that says of itself that it answered."""
    return [Expected(SERVED, e, e.path, e.client, e.server, frozenset({e.pid}), e.name) for e in exchanges]


def called(exchanges: list[Exchange]) -> list[Expected]:
    """The side of the client, which is this process."""
    return [Expected(CALLED, e, e.path, e.client, e.server, frozenset({os.getpid()}), comm()) for e in exchanges]


def accept(verdict: Verdict, collector: Collector) -> None:
    """No differences, and nothing dropped on the way."""
    dropped = collector.metric("collector_kernel_dropped_events_total")
    assert not verdict, f"{verdict}\ndropped events: {dropped:.0f}"


def ordinary(collector: Collector, kind: Kind, directory: Path) -> None:
    """Both sides are recorded, whole and right."""
    records, exchanges = Records(collector), plan(kind.path, EXCHANGES, kind.sizes)
    server = kind.start(directory)
    try:
        drive(server.port, exchanges, keep_alive=kind.keep_alive)
        expected = served(exchanges) + called(exchanges)
        found = records.wait((kind.path,), len(expected))
    finally:
        server.close()
    accept(compare(found, expected), collector)


def through_varnish(collector: Collector, kind: Kind, directory: Path) -> None:
    """Four records of each exchange: our client, Varnish on both sides, and the backend."""
    records, exchanges = Records(collector), plan("/varnish", EXCHANGES, kind.sizes)
    backend = kind.start(directory)
    try:
        front = varnish(directory, backend.port)
        try:
            drive(front.port, exchanges)
            expected = called(exchanges) + around_varnish(exchanges, front, backend.port)
            found = records.wait(("/varnish", "/backend"), len(expected))
        finally:
            front.close()
    finally:
        backend.close()
    accept(compare(found, expected), collector)


def around_varnish(exchanges: list[Exchange], front: Listening, backend: int) -> list[Expected]:
    """Varnish as server and as client, and the backend, which says whom it saw at the other end."""
    workers = frozenset(front.children())
    name = comm(next(iter(workers)))
    expected = []
    for e in exchanges:
        behind = replace(e, path=e.path.replace("/varnish/", "/backend/"), client=e.peer, server=f"127.0.0.1:{backend}")
        expected.append(Expected(SERVED, e, e.path, e.client, e.server, workers, name))
        expected.append(Expected(CALLED, behind, behind.path, behind.client, behind.server, workers, name))
        expected += served([behind])
    return expected


def beast_calls(collector: Collector, kind: Kind, directory: Path) -> None:
    """The client is Boost.Beast; the server is one of ours."""
    records, exchanges = Records(collector), plan(kind.path, EXCHANGES, kind.sizes)
    server = kind.start(directory)
    try:
        pid = call_with_beast(server.port, exchanges)
        clients = [Expected(CALLED, e, e.path, e.client, e.server, frozenset({pid}), "beast") for e in exchanges]
        expected = served(exchanges) + clients
        found = records.wait((kind.path,), len(expected))
    finally:
        server.close()
    accept(compare(found, expected), collector)


def call_with_beast(port: int, exchanges: list[Exchange]) -> int:
    """Have all of them made; the client's pid. A line each way: what to send; what came."""
    lines = "".join(f"{e.number} {e.method} {e.path} {len(e.body)}\n" for e in exchanges)
    process = subprocess.Popen(
        [*build.command("beast"), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate(lines, timeout=120)
    assert process.returncode == 0, out[-500:]
    by_number = {e.number: e for e in exchanges}
    for line in out.splitlines():
        note_beast(by_number, line, port)
    assert all(e.pid for e in exchanges), "not all were answered"
    return process.pid


def io_uring_counted(collector: Collector, pid: int, name: str, before: float = 0) -> None:
    """The collector has told, by name, that this process sends and receives through io_uring."""
    wait_for(lambda: collector.metric("collector_io_uring_setups_total") > before, 8)
    wait_for(lambda: f'collector_unseen_processes{{process="{name}",reason="io_uring"}}' in collector.page("metrics"), 12)
    assert f"process {name!r}: sends or receives through io_uring" in collector.log(), pid


def with_io_uring(collector: Collector, kind: Kind, directory: Path) -> None:
    """The client's side is right; what is wrong on the server's side says so; the server is counted."""
    before = collector.metric("collector_io_uring_setups_total")
    records, exchanges = Records(collector), plan(kind.path, EXCHANGES, kind.sizes)
    server = kind.start(directory)
    assert isinstance(server, Program)
    try:
        drive(server.port, exchanges, keep_alive=kind.keep_alive)
        found = records.wait((kind.path,), 2 * len(exchanges))
        io_uring_counted(collector, server.process.pid, comm(server.process.pid), before)
    finally:
        server.close()
    verdict = compare((r for r in found if r["direction"] == CALLED), called(exchanges))
    verdict.update(never_wrong((r for r in found if r["direction"] == SERVED), served(exchanges)))
    accept(verdict, collector)
